"""Pairs become few readable rules that give exactly these pairs, in both directions."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.mapping.flows import Run, flow_of
from tests.mapping.test_trace import attend, fused, split
from vaeport.errors import KeyMismatchError
from vaeport.mapping import Drop, Layout, Plan, plan
from vaeport.mapping.derive import Graph, settled
from vaeport.mapping.flow import Flow
from vaeport.mapping.induce import Pair, induce, pairs_of, source_of
from vaeport.mapping.rules import Fuse, Rule, Units

PLAIN = Units()
Shapes = dict[str, tuple[int, ...]]


def one(native: str, foreign: str, units: Units = PLAIN) -> Pair:
    return Pair(native, (foreign,), (units,))


def rules(*pairs: Pair) -> list[tuple[str, str]]:
    """The two columns of the rules."""
    return [(rule.native, rule.foreign) for rule in induce("x", pairs).rules]


def given_by(layout: Layout, pairs: list[Pair]) -> list[Pair]:
    """What the layout says of the same native keys."""
    found = []
    for pair in pairs:
        rule, keys = layout.rule_of(pair.native) or (Rule("", ""), ())
        found.append(Pair(pair.native, keys, tuple(rule.units_of(i) for i in range(len(keys)))))
    return found


def test_numbers_become_expressions() -> None:
    flat = [one(f"down.{i}.block.{j}.gain", f"layers.{3 * i + j}.gamma") for i in range(3) for j in range(2)]
    back = [one(f"up.{i}.gain", f"up.{3 - i}.gamma") for i in range(4)]
    moved = [one(f"unit.{i}.a", f"unit.{2 * i + 1}.b") for i in range(3)]
    assert rules(*flat) == [("down.{i}.block.{j}.gain", "layers.{3*i+j}.gamma")]
    assert rules(*back) == [("up.{i}.gain", "up.{3-i}.gamma")]
    assert rules(*moved) == [("unit.{i}.a", "unit.{2*i+1}.b")]
    assert rules(*flat, *back, *moved) == [*rules(*flat), *rules(*back), *rules(*moved)]


def test_a_number_that_stays_is_written_out() -> None:
    pairs = [one(f"a.{i}.g", f"b.7.c.{i}.h") for i in range(2)]
    assert rules(*pairs) == [("a.{i}.g", "b.7.c.{i}.h")]
    assert rules(one("a.0.g", "b.7.h"), one("a.1.g", "b.7.i")) == [("a.0.g", "b.7.h"), ("a.1.g", "b.7.i")]


def test_weights_that_keep_their_names_are_one_rule() -> None:
    pairs = [one(f"a.{i}.conv.{leaf}", f"b.{i + 1}.c.{leaf}") for i in range(2) for leaf in ("weight", "bias")]
    assert rules(*pairs) == [("a.{i}.conv.{rest*}", "b.{i+1}.c.{rest}")]


def test_keys_without_a_common_rule_stand_alone() -> None:
    pairs = [one("a.0.g", "x.5.h"), one("a.1.g", "x.2.h"), one("a.2.g", "x.9.h")]
    assert rules(*pairs) == [(p.native, p.foreign[0]) for p in pairs]


def test_an_order_that_rules_cannot_keep_falls_back_to_single_keys() -> None:
    """`a.{rest*}` would take the key of the child too, which lies elsewhere."""
    pairs = [one("a.weight", "x.weight"), one("a.b.weight", "y.weight"), one("c.01.g", "z.01.h")]
    assert given_by(induce("x", pairs), pairs) == pairs
    assert rules(*pairs) == [(p.native, p.foreign[0]) for p in pairs]


def test_parts_of_a_fused_weight() -> None:
    pairs = [
        Pair(f"mid.{i}.qkv.{leaf}", tuple(f"attn.{i}.to_{p}.{leaf}" for p in "qkv"), (PLAIN,) * 3)
        for i in range(2)
        for leaf in ("weight", "bias")
    ]
    layout = induce("x", pairs)
    assert given_by(layout, pairs) == pairs
    assert len(layout.rules) == 2
    assert all(rule.fuse is not None and len(rule.fuse.parts) == 3 for rule in layout.rules)


def test_blocks_of_one_stored_weight() -> None:
    other = Pair("a.qkv.weight", ("b.kqv.weight#1/3", "b.kqv.weight#0/3", "b.kqv.weight#2/3"), (PLAIN,) * 3)
    cut = [one(f"c.{n}.weight", f"d.qkv.weight#{i}/3") for i, n in enumerate("qkv")]
    layout = induce("x", [other, *cut])
    assert given_by(layout, [other, *cut]) == [other, *cut]
    rule, _ = layout.rule_of("a.qkv.weight") or (None, None)
    assert rule == Rule("a.qkv.weight", "b.kqv.weight#{part}", PLAIN, rule and rule.fuse)


def test_units_are_kept_apart() -> None:
    pairs = [
        one("a.0.w", "b.0.v", Units(trail=2)),
        one("a.1.w", "b.1.v", Units(trail=1)),
        one("a.2.w", "b.2.v", Units(transposed=True)),
    ]
    layout = induce("x", pairs)
    assert given_by(layout, pairs) == pairs
    mixed = Pair("q", ("a", "b"), (Units(trail=1), PLAIN))
    assert induce("x", [mixed]).rules == (Rule("q", "{part}", PLAIN, Fuse(("a", "b"), (Units(trail=1), PLAIN))),)


def test_names_prefix_and_drops_are_kept() -> None:
    drops = (Drop(r"loss\..*", "training"),)
    layout = induce("mine", [one("a", "b")], drops, prefix="vae.")
    assert (layout.name, layout.prefixes, layout.drops) == ("mine", ("vae.",), drops)


# The property: any pairs come back exactly, also from the source, and tensors go there and back bit for bit.

WORDS = ("conv", "norm", "to_q", "block1", "res_unit", "x")
UNITS = {
    PLAIN: (4, 2),
    Units(trail=2): (4, 2),
    Units(lead=1, trail=1): (4,),
    Units(trail=-1): (4, 2, 1),
    Units(lead=-1): (1, 4),
    Units(transposed=True): (4, 2),
    Units(trail=-2, transposed=True): (4, 2, 1, 1),
    Units(lead=1, transposed=True): (4, 2),
    Units(lead=1, trail=1, transposed=True): (4, 2),
}


@st.composite
def many_pairs(draw: st.DrawFn) -> tuple[list[Pair], Shapes]:
    """Pairs of distinct keys under rules, broken rules and none, with the shapes of the native ones."""
    pairs: list[Pair] = []
    shapes: Shapes = {}
    for group in range(draw(st.integers(1, 4))):
        word, leaf = draw(st.sampled_from(WORDS)), draw(st.sampled_from(("weight", "bias", "g")))
        numbers = draw(st.lists(st.integers(0, 12), min_size=1, max_size=4, unique=True))
        factor, shift = draw(st.sampled_from((1, 3, -1))), draw(st.integers(0, 3))
        theirs = [factor * n + shift + (12 if factor < 0 else 0) for n in numbers]
        if draw(st.booleans()):
            theirs = draw(st.permutations(theirs))
        units = draw(st.sampled_from([*UNITS]))
        kind = draw(st.sampled_from(("one", "one", "fused", "mixed", "block", "turned")))
        for mine, number in zip(numbers, theirs, strict=True):
            key = f"g{group}.{mine}.{word}.{leaf}"
            place, shape = f"f{group}.{number}", UNITS[units]
            if kind == "one":
                pairs.append(Pair(key, (f"{place}.{draw(st.sampled_from((word, 'y')))}.{leaf}",), (units,)))
                shapes[key] = shape
            elif kind in ("fused", "mixed") or shape[0] == 1:
                all_units = (PLAIN, Units(trail=2), Units(transposed=True)) if kind == "mixed" else (units,) * 3
                shape = (4, 2) if kind == "mixed" else shape
                pairs.append(Pair(key, tuple(f"{place}.to_{p}.{leaf}" for p in "qkv"), all_units))
                shapes[key] = (3 * shape[0], *shape[1:])
            elif kind == "block":
                for i, name in enumerate("qkv"):
                    pairs.append(Pair(f"{key}.{name}", (f"{place}.qkv.{leaf}#{i}/3",), (units,)))
                    shapes[f"{key}.{name}"] = shape
            else:
                order = draw(st.permutations(range(3)))
                pairs.append(Pair(key, tuple(f"{place}.qkv.{leaf}#{i}/3" for i in order), (units,) * 3))
                shapes[key] = (3 * shape[0], *shape[1:])
    return pairs, shapes


@given(many_pairs())
def test_any_pairs_come_back_exactly(drawn: tuple[list[Pair], Shapes]) -> None:
    pairs, shapes = drawn
    layout = induce("made up", pairs)
    assert given_by(layout, pairs) == pairs
    mapped = plan(layout, shapes)
    stored = {block.key: step.stored_shape(block) for step in mapped.steps for block in step.blocks}
    weights = counted(stored)
    there = plan(layout, shapes, stored).require("", "")
    assert_there_and_back(there, weights)


def counted(shapes: Shapes) -> dict[str, Tensor]:
    """A number of its own for every element."""
    start, found = 0.0, {}
    for key, shape in shapes.items():
        tensor = torch.empty(shape)
        found[key] = torch.arange(start, start + tensor.numel()).view(shape)
        start += tensor.numel()
    return found


def assert_there_and_back(mapped: Plan, weights: dict[str, Tensor]) -> None:
    """Every stored element lies in exactly one native place, and comes back to its own."""
    native = dict(mapped.convert(weights.__getitem__))
    assert {key: tuple(t.shape) for key, t in native.items()} == {s.native: s.shape for s in mapped.steps}
    there = torch.cat([t.flatten() for t in native.values()]).sort().values
    assert torch.equal(there, torch.cat([t.flatten() for t in weights.values()]).sort().values)
    back = dict(mapped.write(native.__getitem__))
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[key], weights[key]) for key in weights)


@given(many_pairs())
def test_the_source_runs_to_an_equal_layout(tmp_path_factory: pytest.TempPathFactory, drawn: Any) -> None:
    drops = (Drop(r"loss\.(a|'b')", 'it is "training"'),)
    layout = induce("made up", drawn[0], drops, prefix="vae.")
    assert executed(source_of(layout, "Keys of X."), tmp_path_factory.mktemp("map")) == layout


def executed(source: str, folder: Path) -> Layout:
    file = folder / "weight_map.py"
    file.write_text(source)
    spec = importlib.util.spec_from_file_location("weight_map", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.__doc__ == "Keys of X."
    (layout,) = module.LAYOUTS
    assert layout in vars(module).values()
    return layout  # type: ignore[no-any-return]


# From two flows to pairs.


def mapped(mine: Flow, theirs: Flow) -> Plan:
    """The plan of the map that a match of two flows gives."""
    found = settled((Graph.of(mine), Graph.of(theirs)), {})
    assert found.same_graph
    pairs = pairs_of(found, mine.shapes, theirs.shapes)
    layout = induce("x", pairs)
    assert given_by(layout, pairs) == pairs
    return plan(layout, mine.shapes, theirs.shapes).require("", "")


def stored(plan: Plan) -> dict[str, list[str]]:
    """Native key -> keys or blocks that it is made of."""
    return {s.native: [b.key if b.count == 1 else f"{b.key}#{b.index}/{b.count}" for b in s.blocks] for s in plan.steps}


def test_fused_from_split() -> None:
    found = mapped(flow_of(fused(False), 2, 5, 4), flow_of(split(True), 2, 5, 4))
    assert sorted(stored(found)["qkv.weight"]) == ["k.weight", "q.weight", "v.weight"]
    assert stored(found)["qkv.weight"][2] == "v.weight"
    assert stored(found)["qkv.bias"] == [key.replace("weight", "bias") for key in stored(found)["qkv.weight"]]
    assert_there_and_back(found, counted({k: tuple(t.shape) for k, t in split(True).state_dict().items()}))


def test_split_from_fused() -> None:
    found = mapped(flow_of(split(False), 2, 5, 4), flow_of(fused(False, (1, 2, 0)), 2, 5, 4))
    assert stored(found)["v.weight"] == ["qkv.weight#0/3"]
    assert {stored(found)[f"{n}.bias"][0] for n in "qk"} == {"qkv.bias#1/3", "qkv.bias#2/3"}


def test_fused_in_another_order() -> None:
    found = mapped(flow_of(fused(False), 2, 5, 4), flow_of(fused(True, (2, 0, 1)), 2, 5, 4))
    assert stored(found)["qkv.weight"][2] == "qkv.weight#1/3"
    whole = mapped(flow_of(fused(False), 2, 5, 4), flow_of(fused(True), 2, 5, 4))
    assert stored(whole)["qkv.weight"] == ["qkv.weight"]


def test_blocks_in_other_shapes() -> None:
    """Fused in another order, stored [in, out], with a bias [1, 1, C] that is added apart."""

    def run(m: Any, x: Tensor) -> Tensor:
        v, q, k = (x @ m.w + m.b).chunk(3, -1)
        return m.out(attend(q, k, v, True))

    other = Run(run, w=(4, 12), b=(1, 1, 12), out=nn.Linear(4, 4))
    found = mapped(flow_of(fused(False), 2, 5, 4), flow_of(other, 2, 5, 4))
    assert stored(found)["qkv.weight"][2] == "w#0/3"
    assert stored(found)["qkv.bias"][2] == "b#0/3"
    assert_there_and_back(found, counted({k: tuple(t.shape) for k, t in other.state_dict().items()}))


def test_one_channel_needs_no_units() -> None:
    """Of all ways to give [1] the shape [1], the one that does nothing."""
    mono = nn.Conv1d(2, 1, 3)
    found = mapped(flow_of(mono, 1, 2, 9), flow_of(nn.Conv1d(2, 1, 3), 1, 2, 9))
    assert [step.rule.units for step in found.steps] == [PLAIN, PLAIN]


def test_shapes_that_are_no_view_are_named() -> None:
    found = settled((Graph.of(flow_of(nn.Linear(4, 6), 2, 4)), Graph.of(flow_of(nn.Linear(4, 6), 2, 4))), {})
    with pytest.raises(ValueError, match=r"weight \[6, 4\] is no view of weight \[2, 3, 4\]"):
        pairs_of(found, {"weight": (6, 4), "bias": (6,)}, {"weight": (2, 3, 4), "bias": (6,)})


def test_a_map_that_leaves_blocks_open_writes_nothing_in_silence() -> None:
    layout = induce("x", [one("q", "qkv#0/3"), one("k", "qkv#1/3")])
    with pytest.raises(KeyMismatchError, match="qkv: 2 of its blocks"):
        dict(plan(layout, {"q": (2,), "k": (2,)}).write(lambda key: torch.zeros(2)))
