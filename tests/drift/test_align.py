"""Units hold the same weights on both sides; their tensors are read in the native layout."""

from __future__ import annotations

import torch

from tests.layers.laws import normal
from tests.narrow import proof
from vaeport.drift.align import paths_of, units_of
from vaeport.drift.layouts import fitted
from vaeport.mapping import Plan


def planned(name: str) -> Plan:
    one = proof(name)
    return one._plan(one.reference.describe()["shapes"])


def test_units_hold_the_same_weights() -> None:
    mapped = planned("kl")
    units = units_of(mapped, paths_of(mapped))
    assert len(units) > 100
    for unit in units:
        ours = {key for step in mapped.steps if step.native.startswith(f"{unit.native}.") for key in step.stored}
        assert ours == {k for s in mapped.steps for k in s.stored if k.startswith(f"{unit.reference}.")}


def test_what_was_not_called_is_no_unit() -> None:
    mapped = planned("kl")
    called = [path for path in paths_of(mapped) if path != "encoder.conv_in"]
    assert "encoder.conv_in" in {unit.native for unit in units_of(mapped, paths_of(mapped))}
    assert "encoder.conv_in" not in {unit.native for unit in units_of(mapped, called)}


def test_parts_of_a_weight_are_no_unit() -> None:
    """The modulation tables of one block are halves of one stored table."""
    mapped = planned("ltx1")
    assert not [u for u in units_of(mapped, paths_of(mapped)) if "modulate" in u.native]


def test_layouts() -> None:
    x = normal(2, 3, 4, 5, 6)
    calls = [x[:, :, :1], x[:, :, 1:]]
    assert torch.equal(fitted(calls, x.shape, 2), x)  # type: ignore[arg-type]
    frames = x.transpose(1, 2).flatten(0, 1)
    assert torch.equal(fitted([frames], x.shape, 2), x)  # type: ignore[arg-type]
    assert torch.equal(fitted([x], frames.shape, 2), frames)  # type: ignore[arg-type]
    pieces = [part.transpose(1, 2).flatten(0, 1) for part in calls]
    assert torch.equal(fitted(pieces, frames.shape, 2), frames)  # type: ignore[arg-type]
    tokens = x.flatten(2).transpose(1, 2)
    assert torch.equal(fitted([tokens], (2, 3, 120), 2), x.flatten(2))  # type: ignore[arg-type]
    assert torch.equal(fitted([tokens], (2, 1, 120, 3), 2), tokens.unsqueeze(1))  # type: ignore[arg-type]
    assert fitted([x], (2, 3, 4, 5, 7), 2) is None
    one = normal(1, 8, 4, 4)
    assert torch.equal(fitted([one], (1, 8, 1, 4, 4), 1), one.unsqueeze(2))  # type: ignore[arg-type]
