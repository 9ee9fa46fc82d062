"""Which modules and weights of two sides are compared."""

from __future__ import annotations

from typing import Any

import pytest

from tests.narrow import MODELS, on_meta, reference, shapes
from vaeport.mapping import Layout, plan
from vaeport.mapping.rules import DtypeNote, Rule
from vaeport.proof.jobs import Capture
from vaeport.proof.judge import Judge, _holders, module_pairs, weight_pairs
from vaeport.proof.verdict import Verdict
from vaeport.registry import ModelRegistry


def test_holders() -> None:
    assert _holders(["a.b.c", "a.d", "e"]) == {"a", "a.b"}
    assert _holders(["a", "b"]) == _holders([]) == set()
    assert _holders(["a.b", "a"]) == {"a"}
    assert "ab" not in _holders(["abc.d"]), "parts of names, not of letters"


def mapped(*rules: Rule, notes: tuple[DtypeNote, ...] = ()) -> Any:
    layout = Layout(name="made", rules=rules, dtype_notes=notes)
    native = {rule.native: (2,) for rule in rules}
    return plan(layout, native, {rule.foreign: (2,) for rule in rules})


PAIRS = mapped(
    Rule("encoder.block.table", "blocks.0.table"),
    Rule("encoder.block.conv.weight", "blocks.0.conv.weight"),
    Rule("normalizer.mean", "latents_mean"),
)


def test_statistics_of_latents_are_no_weights_of_a_network() -> None:
    assert weight_pairs(PAIRS) == [
        ("encoder.block.table", "blocks.0.table"),
        ("encoder.block.conv.weight", "blocks.0.conv.weight"),
    ]
    assert module_pairs(PAIRS) == [("encoder.block", "blocks.0"), ("encoder.block.conv", "blocks.0.conv")]


def judged(native: dict[str, list[str]], reference: dict[str, list[str]], plan: Any = PAIRS) -> Verdict:
    """Gate D on two recorded signatures, in which all that is not given is bfloat16 on both sides."""
    verdict = Verdict({"name": "made"}, {"name": "made"})
    rows = [[], []]
    for found, side in zip(rows, zip(*weight_pairs(plan), strict=True), strict=True):
        found += [f"{name}: {what}" for name in side for what in ("stored", "used")]
        found += [f"{name.rpartition('.')[0]}: {what}" for name in side for what in ("input", "output")]
    mine, theirs = (
        {"D bfloat16": Capture(signature={**{row: ["bfloat16"] for row in found}, **given})}
        for found, given in zip(rows, (native, reference), strict=True)
    )
    Judge(verdict, mine, theirs).same_types("bfloat16", plan)
    return verdict


def test_equal_types_pass() -> None:
    assert judged({}, {}).failures == []


@pytest.mark.parametrize(("side", "row"), [(0, "encoder.block.conv: accumulation"), (1, "blocks.0.conv: accumulation")])
def test_the_accumulation_of_a_module_is_compared(side: int, row: str) -> None:
    given: list[dict[str, list[str]]] = [{}, {}]
    given[side][row] = ["float32"]
    (failure,) = judged(*given).failures
    assert (failure.gate, failure.where) == ("D", "encoder.block.conv: accumulation")


def test_the_accumulation_of_a_holder_is_that_of_what_it_holds() -> None:
    """A block that owns a table runs its convolution in one side's call of it, and beside it in the other's."""
    assert judged({}, {"blocks.0: accumulation": ["float32"]}).failures == []
    assert judged({"encoder.block: accumulation": ["float32"]}, {}).failures == []


@pytest.mark.parametrize("what", ["input", "output"])
def test_what_goes_into_a_holder_and_comes_out_is_compared(what: str) -> None:
    (failure,) = judged({}, {f"blocks.0: {what}": ["float32"]}).failures
    assert failure.where == f"encoder.block: {what}"


def test_an_intended_difference_is_a_note() -> None:
    plan = mapped(*PAIRS.layout.rules, notes=(DtypeNote(r".*\.conv: accumulation", "it is meant"),))
    verdict = judged({"encoder.block.conv: accumulation": ["float32"]}, {}, plan)
    assert verdict.failures == []
    assert any("(it is meant)" in note for note in verdict.notes)


@pytest.mark.parametrize("name", ["ltx1", "ltx5"])
def test_blocks_with_a_table_hold_others(name: str) -> None:
    """Diffusers' blocks own their modulations, and hold the convolutions; native blocks own nothing."""
    model, arch = MODELS[name]
    layout = next(lay for lay in ModelRegistry.find_class(model).layouts if lay.name == "diffusers")
    found = plan(layout, shapes(on_meta(model, arch)), shapes(reference(arch)))
    mine, theirs = (_holders(side) for side in zip(*module_pairs(found), strict=True))
    assert "decoder.mid_block.resnets.0" in theirs
    assert ("decoder.middle.blocks.0.main.modulate1", "decoder.mid_block.resnets.0") in module_pairs(found)
    assert "decoder.middle.blocks.0.main.modulate1" not in mine
