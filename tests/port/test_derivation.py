"""Maps derived from data flow are the hidden truth of scrambled references, and gate S says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.port import scrambled
from tests.port.compared import CASES
from tests.port.driven import Driven, drive
from tests.port.truth import wrong
from vaeport.errors import KeyMismatchError
from vaeport.mapping.flow import Flow
from vaeport.mapping.induce import source_of
from vaeport.port.derivation import Derived
from vaeport.port.parity import read_layout

SCRAMBLED = ("kl", "kl16", "wan", "oobleck")
OPEN = {"kl": 2, "kl16": 2, "wan": 2, "oobleck": 0}
"""choices that a graph leaves open: queries and keys, of encoder and decoder"""
each = pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.full] * (case == "wan")) for case in SCRAMBLED]
)


def driven(case: str, seed: int, *, hard: bool) -> Driven:
    name, config = CASES[case]
    return drive(f"tests.port.scrambled:{name}", {"seed": seed, "hard": hard, **config})


def missed(found: Driven, derived: Derived, case: str, seed: int, *, hard: bool) -> list[str]:
    name, config = CASES[case]
    nearest = found.proof.nearest
    assert nearest is not None
    return wrong(derived.plan, nearest.registration.model, nearest.arch, name, seed, hard=hard, **config)


@each
@pytest.mark.parametrize(("seed", "hard"), [(1, False), (2, True)], ids=["normal", "hard"])
def test_the_map_is_the_hidden_truth(case: str, hard: bool, seed: int, tmp_path: Path) -> None:
    """Every element of every native weight, so the order of queries, keys and values too."""
    found = driven(case, seed, hard=hard)
    assert found.proof.verdict == "reuse_with_arguments", found.proof.differences
    derived = found.derived()
    print("\n" + "\n".join(derived.evidence))
    assert missed(found, derived, case, seed, hard=hard) == []
    assert derived.registered is None
    assert len([line for line in derived.evidence if line.startswith("open by graph")]) == OPEN[case]
    assert not [line for line in derived.evidence if "cannot tell" in line]
    verdict = found.twin(derived)
    assert verdict, "\n".join(verdict.lines())
    assert {row.gate for row in verdict.rows} == {"S"}
    # as the file that a port keeps
    file = tmp_path / "weight_map.py"
    file.write_text(source_of(derived.rules, "Derived."))
    assert read_layout(file) == derived.rules


def test_values_decide_what_the_graph_leaves_open() -> None:
    """Without them queries and keys are as good as each other: that is said, and gate S refuses the guess."""
    found = driven("kl", 1, hard=False)

    def without(drawn: Any) -> Flow:
        return found.flow

    derived = found.derived(without)
    assert len([line for line in derived.evidence if "values cannot tell" in line]) == 2
    other = missed(found, derived, "kl", 1, hard=False)
    assert other
    assert all("attention.qkv" in key for key in other)
    verdict = found.twin(derived)
    assert not verdict
    assert {failure.name for failure in verdict.failures} >= {"same function"}


@pytest.mark.full
def test_a_class_under_its_own_names_has_the_registered_layout() -> None:
    _, config = CASES["wan"]
    derived = drive("diffusers:AutoencoderKLWan", config).derived()
    assert derived.registered == "diffusers"
    assert derived.layout.name == "diffusers"
    assert derived.rules.name != "diffusers"


def test_weights_that_nothing_reads_are_dropped_by_name() -> None:
    _, config = CASES["oobleck"]
    found = drive("tests.port.test_derivation:with_spare", config)
    derived = found.derived()
    assert dict(derived.plan.dropped) == dict.fromkeys(
        ("spare.weight", "spare.bias"), "read by neither encode nor decode"
    )
    assert any(line.startswith("dropped by name: spare.weight, spare.bias") for line in derived.evidence)
    assert found.twin(derived)


def with_spare(**config: Any) -> Any:
    """Oobleck with a layer that no method uses."""
    module = scrambled.original("oobleck", 0, **config)
    module.spare = torch.nn.Linear(3, 5)
    return module


def test_what_has_no_partner_is_listed_with_what_is_nearest() -> None:
    """The graph of one class onto another: each weight without a partner, and why the nearest was rejected."""
    _, config = CASES["kl"]
    one = drive("diffusers:AutoencoderKL", config)
    other = drive("tests.port.test_derivation:with_gain", config)
    assert other.proof.verdict == "port"
    other.proof = one.proof
    with pytest.raises(KeyMismatchError) as caught:
        other.derived()
    first = str(caught.value).split("without\n")[1].splitlines()[0]
    assert first.strip() == (
        "encoder.conv_in.gain scale [64]: encoder.levels.0.blocks.0.main.norm1.weight has its shape, "
        "but reads encoder.conv_in.bias, not what pairs with encoder.conv_in.bias"
    )


def with_gain(**config: Any) -> Any:
    """AutoencoderKL whose first convolution is followed by a gain per channel."""
    module = scrambled.original("kl", 0, **config)

    class Gained(type(module.encoder.conv_in)):  # type: ignore[misc]
        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = super().forward(x) * self.gain
            return y

    module.encoder.conv_in.__class__ = Gained
    module.encoder.conv_in.gain = torch.nn.Parameter(torch.ones(config["block_out_channels"][0], 1, 1))
    return module
