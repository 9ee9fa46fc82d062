"""A cast in another place is found, named, and the change that is told mends a fresh copy."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import prod
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.drift.kinds_norm import written
from bench.drift.policy import DTYPES
from bench.drift.sites import children, derive
from bench.drift.vaes import CachedSide
from tests.layers.laws import normal
from tests.narrow import Fault, native, proof
from vaeport import layers as words
from vaeport.drift import casts
from vaeport.drift.casts import explain_casts
from vaeport.drift.edits.casting import cast_edits, typed_calls, widened_to
from vaeport.drift.explanation import Finding
from vaeport.proof.prove import Proof
from vaeport.proof.sides import ReferenceSide
from vaeport.vae import VAE

LOW = torch.bfloat16
NORM = "decoder.middle.block2.main.norm2"
OWN = "should run in the model's own type, without float32 inside"
BACK = "its result should be cast back to the model's own type"
FIRST = "should be computed in float32 and cast back before `mul`, before the weight is applied"


@cache
def reference(name: str) -> CachedSide:
    """It is the same for every fault."""
    told = proof(name).reference
    assert isinstance(told, ReferenceSide)
    return CachedSide(told.path, told.arguments, convention=told.convention)


def typed(name: str, fault: Fault | None = None, **options: Any) -> Proof:
    return proof(name, fault, reference=reference(name), dtypes=("float32", "bfloat16"), **options)


def mended(fault: Fault, found: list[Finding]) -> Fault:
    """The fault, and all changes that were told."""

    def both(vae: VAE) -> None:
        fault(vae)
        for finding in found:
            finding.fix(vae)

    return both


def explained(name: str, fault: Fault) -> list[Finding]:
    """The findings; all together they leave nothing that differs on a fresh copy."""
    found = explain_casts(typed(name, fault))
    assert explain_casts(typed(name, mended(fault, found))) == []
    return found


@pytest.mark.parametrize("name", ["kl", "wan"])
def test_a_right_port_has_no_finding(name: str) -> None:
    assert explain_casts(typed(name)) == []


@pytest.mark.parametrize(
    ("name", "kind", "module", "says"),
    [
        ("kl", "norm in float32", NORM, OWN),
        ("kl", "norm gives float32", NORM, BACK),
        ("kl", "convolution in float32", "decoder.middle.block2.main.conv1", OWN),
        ("kl", "nearest in float32", "decoder.levels.1.resample.nearest", OWN),
        ("kl", "softmax in float32", "decoder.middle.attention.main.attention", OWN),
        ("wan", "norm in float32", NORM, FIRST),
        ("wan", "norm in the type of x", NORM, FIRST),
        ("wan", "norm gives float32", NORM, BACK),
        ("wan", "convolution in float32", "decoder.middle.block1.main.conv2", OWN),
        ("wan", "softmax in float32", "decoder.middle.attention.layer.main.attention", OWN),
    ],
)
def test_a_fault(name: str, kind: str, module: str, says: str) -> None:
    (finding,) = explained(name, DTYPES[kind])
    assert (finding.unit, finding.module, finding.cause) == (module, module, "cast placement")
    assert finding.change.startswith(says)
    assert "in bfloat16: " in finding.change
    assert finding.reference_unit
    assert all(".py:" in place for place in finding.places)
    assert "then gate D holds" in finding.line(holds=True)


def test_the_whole_proof_passes_with_the_change_that_is_nearest_to_the_reference() -> None:
    """The mean alone in float32 would have the right types too."""
    fault = DTYPES["norm in the type of x"]
    found = explain_casts(typed("wan", fault))
    assert found[0].remaining is not None
    assert 0.0 < found[0].remaining < 0.9 * found[0].error
    verdict = typed("wan", mended(fault, found), seed=3, repeats=1).run()
    assert verdict, "\n".join(verdict.lines())


def forwards(give: Callable[[Any, Tensor, Any], Tensor], *classes: Any, first: int = 0, count: int = 1000) -> Fault:
    """Gives the modules of some classes another forward: (module, x, its class) -> result."""

    def fault(vae: VAE) -> None:
        for path, module in list(children(vae, *classes))[first : first + count]:
            base = type(module)
            derive(vae, path, forward=lambda self, x, base=base: give(self, x, base))

    return fault


def widened(x: Tensor) -> Tensor:
    return x.float() if x.dtype == LOW else x


def test_the_same_fault_in_many_norms_is_one_finding() -> None:
    """More of them than faults are peeled off."""
    many = casts.MOST + 2
    fault = forwards(lambda self, x, _: written(self, x), words.ChannelRMSNorm, count=many)
    (finding,) = explained("wan", fault)
    assert finding.change.startswith(FIRST)
    assert "; and so " in finding.change
    assert len(finding.change.partition("; and so ")[2].split(", ")) == many - 1


def test_a_type_that_a_module_without_weights_lets_out_is_told_there() -> None:
    fault = forwards(lambda self, x, base: widened(base.forward(self, x)), words.Add, first=3, count=1)
    (finding,) = explained("kl", fault)
    assert finding.module == "encoder.levels.1.blocks.1"
    assert finding.change.startswith(BACK)


@pytest.mark.parametrize(("name", "module"), [("kl", "encoder.middle.attention.main.attention"), ("ltx1", "decoder")])
def test_a_cast_in_front_of_a_module_is_told_where_it_is_made(name: str, module: str) -> None:
    """LTX-Video's decoder is a copy that is bound to a timestep when it runs."""

    def fault(vae: VAE) -> None:
        base: Any = type(vae.get_submodule(module))
        derive(vae, module, forward=lambda self, x: base.forward(self, widened(x)))

    (finding,) = explained(name, fault)
    assert finding.module == module
    assert finding.change.startswith(OWN)


def test_two_faults_are_peeled_off_one_after_the_other() -> None:
    def both(vae: VAE) -> None:
        assert DTYPES["norm in float32"](vae)
        assert DTYPES["softmax in float32"](vae)

    assert [f.module for f in explained("kl", both)] == [NORM, "decoder.middle.attention.main.attention"]


def test_attention_in_float32_everywhere_is_told_of_every_attention() -> None:
    def fault(vae: VAE) -> None:
        for path, module in list(children(vae, words.SelfAttention)):
            base = type(module)

            def attend(self: Any, q: Tensor, k: Tensor, v: Tensor, frame: int, base: Any = base) -> Tensor:
                return base.attend(self, widened(q), widened(k), widened(v), frame).to(q.dtype)

            derive(vae, path, attend=attend)

    assert {f.module.partition(".")[0] for f in explained("kl", fault)} == {"encoder", "decoder"}


def test_what_no_cast_mends_is_said_to_be_unexplained() -> None:
    def beside(self: Any, x: Tensor, base: Any) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2).unsqueeze(1)
        q, k, v = F.linear(tokens.float(), self.qkv.weight.float(), self.qkv.bias.float()).to(x.dtype).chunk(3, -1)
        y: Tensor = self.proj(self.attend(q, k, v, prod(x.shape[-2:])))
        return y.squeeze(1).transpose(1, 2).reshape(x.shape)

    (finding,) = explain_casts(typed("kl", forwards(beside, words.SelfAttention, count=1)))
    assert (finding.unit, finding.cause) == ("encoder.middle.attention.main.attention.qkv", None)
    assert "no change that was tried mends it; in float32: " in finding.change
    assert "qkv: input: none" in finding.change
    assert finding.tried > 0


def test_no_change_of_types_changes_a_function() -> None:
    """In float64 every one of them gives the same bits."""
    vae, path = native("wan"), NORM
    norm = vae.get_submodule(path)
    x = normal(1, norm.gain.numel(), 3, 4, 5).double()  # type: ignore[union-attr, operator]
    expected = norm(x)
    calls = typed_calls(vae, path, lambda: norm(x))
    assert [call.name for call in calls if call.weighs] == ["mul"]
    edits = list(cast_edits(path, calls, torch.float32))
    assert len(edits) > 20
    for edit in edits:
        with edit.applied(vae):
            assert torch.equal(norm(x), expected), edit.change
    assert not norm._forward_hooks
    assert not norm._forward_pre_hooks


def test_a_wider_type_is_met_from_below() -> None:
    types = (torch.bfloat16, torch.float32, torch.float64)
    assert [widened_to(torch.float32)(t) for t in types] == [torch.float32, torch.float32, torch.float64]
    assert [widened_to(torch.float16)(t) for t in types] == [torch.float16, torch.float16, torch.float64]


def test_what_is_behind_too_many_faults_is_not_called_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(casts, "MOST", 1)

    def both(vae: VAE) -> None:
        assert DTYPES["norm in float32"](vae)
        assert DTYPES["nearest in float32"](vae)

    first, rest = explain_casts(typed("kl", both))
    assert (first.cause, rest.cause) == ("cast placement", None)
    assert "free upsample: bfloat16 float32" in rest.change
