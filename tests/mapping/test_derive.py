"""The same graph is recognised under other names, and a difference is found where it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.mapping.flows import Run, flow_of, foreign, graphs, native
from tests.mapping.test_trace import fused, pointwise, split
from tests.narrow import MODELS, on_meta, reference, shapes, weight_map
from vaeport.mapping import plan
from vaeport.mapping.derive import Graph, Match, Node, choices, match, origins, settled
from vaeport.mapping.flow import Flow


def matched(mine: Flow, theirs: Flow) -> Match:
    return match((Graph.of(mine), Graph.of(theirs)))


def keys(nodes: list[Node]) -> set[str]:
    return {node[0] for node in nodes}


@pytest.mark.parametrize("name", ["kl", "kl16", "wan", "oobleck", "oobleck8"])
def test_native_and_diffusers_are_one_graph(name: str) -> None:
    """Every weight has one partner; what stays open are queries and keys alone."""
    mine, theirs = native(name)[1], foreign(name)
    found = matched(mine, theirs)
    assert found.same_graph
    attention = name in ("kl", "kl16", "wan")
    assert len(found.open) == 4 * attention
    for ours, others in found.open:
        assert len(ours) == len(others) == 2
        assert all(".attention.qkv." in key for key, _ in ours)
        assert {part for _, part in ours} == {(0, 32), (32, 64)}
    weights = keys([*found.pairs, *(node for ours, _ in found.open for node in ours)])
    assert weights == set(mine.shapes)


@pytest.mark.parametrize("name", ["kl", "wan", "oobleck"])
def test_pairs_are_those_of_the_map(name: str) -> None:
    """The pairs from data flow alone are what the hand-written map says; queries and keys lie in one class."""
    model, arch = MODELS[name]
    with torch.device("meta"):
        stored = shapes(reference(arch))
    truth = plan(weight_map(model).DIFFUSERS, shapes(on_meta(model, arch)), stored).require(name, "fix the map")
    found = settled(graphs(name), {})
    partners: dict[str, set[str]] = {}
    for mine, theirs in found.pairs.items():
        partners.setdefault(mine[0], set()).add(theirs[0].partition("#")[0])
    assert partners == {step.native: set(step.stored) for step in truth.steps}


def test_forms_of_a_linear_map_match() -> None:
    plain = flow_of(nn.Sequential(nn.Conv1d(3, 4, 1)), 2, 3, 5)
    for form in ("linear", "conv2d", "in first", "first factor", "einsum"):
        found = matched(plain, flow_of(pointwise(form), 2, 3, 5))
        assert found.pairs == {("0.weight", None): ("w", None), ("0.bias", None): ("b", None)}


@pytest.mark.parametrize("mine", [fused(False), split(False)])
@pytest.mark.parametrize("theirs", [fused(True, (2, 0, 1)), split(True), split(False)])
def test_attention_matches_in_all_forms(mine: Run, theirs: Run) -> None:
    found = matched(flow_of(mine, 2, 5, 4), flow_of(theirs, 2, 5, 4))
    assert found.same_graph
    assert len(found.open) == 2
    assert sum(len(ours) for ours, _ in found.open) == 4
    assert all(len(ours) == len(others) == 2 for ours, others in found.open)


def test_a_bias_apart_has_the_blocks_of_its_matrix() -> None:
    """The rows of [q, k, v] belong to the rows of their biases."""

    def run(m: Any, x: Tensor) -> Tensor:
        q, k, v = (x @ m.w.T + m.b).chunk(3, -1)
        return m.out(F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0])

    apart = flow_of(Run(run, w=(12, 4), b=(12,), out=nn.Linear(4, 4)), 2, 5, 4)
    found = settled((Graph.of(flow_of(fused(True), 2, 5, 4)), Graph.of(apart)), {})
    assert found.same_graph
    for part in ((0, 4), (4, 8), (8, 12)):
        weight, bias = found.pairs["qkv.weight", part], found.pairs["qkv.bias", part]
        assert (weight[0], bias[0]) == ("w", "b")
        assert weight[1] == bias[1]


def test_a_layer_that_reads_all_reads_every_block() -> None:
    """Two fused layers one after the other: each block of the second reads both blocks of the first."""

    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        z = m.b(y)
        return m.c(y.chunk(2, 1)[0].sigmoid() * z.chunk(2, 1)[0] + y.chunk(2, 1)[1] * z.chunk(2, 1)[1])

    graph = Graph.of(flow_of(Run(run, a=nn.Conv1d(3, 8, 1), b=nn.Conv1d(8, 8, 1), c=nn.Conv1d(4, 3, 1)), 2, 3, 5))
    below = {node for node, _ in graph.after["a.bias", (0, 4)]}
    assert {("b.weight", (0, 4)), ("b.weight", (4, 8))} <= below


def test_siblings_are_told_apart_by_what_follows() -> None:
    """Two branches of equal shape, one of which has a norm behind it."""
    parts = {"a": nn.Conv1d(3, 4, 1), "b": nn.Conv1d(3, 4, 1), "n": nn.GroupNorm(2, 4), "c": nn.Conv1d(4, 2, 1)}
    one = flow_of(Run(lambda m, x: m.c(m.a(x) + m.n(m.b(x))), **parts), 2, 3, 5)
    other = flow_of(Run(lambda m, x: m.c(m.n(m.a(x)) + m.b(x)), **parts), 2, 3, 5)
    assert matched(one, other).pairs["a.weight", None] == ("b.weight", None)
    assert matched(one, one).pairs["a.weight", None] == ("a.weight", None)
    assert not matched(one, other).open


def symmetric() -> Flow:
    """Two branches that only values can tell apart, each of two weights."""
    parts: dict[str, Any] = {name: nn.Conv1d(3, 3, 1, bias=False) for name in "abcd"} | {"e": nn.Conv1d(3, 2, 1)}
    return flow_of(Run(lambda m, x: m.e(m.b(m.a(x)) + m.d(m.c(x))), **parts), 2, 3, 5)


def test_choices() -> None:
    both = (Graph.of(symmetric()), Graph.of(symmetric()))
    found = match(both)
    assert found.same_graph
    assert [keys(ours) for ours, _ in found.open] == [{"a.weight", "c.weight"}, {"b.weight", "d.weight"}]
    assert set(found.pairs) == {("e.weight", None), ("e.bias", None)}
    straight, crossed = choices(both, {})
    assert all(node == other for node, other in straight.pairs.items())
    assert {a[0][0]: b[0][0] for a, b in crossed.pairs.items()} == dict(zip("abcde", "cdabe", strict=True))
    assert settled(both, {}).pairs == straight.pairs
    one: dict[Node, Node] = {("c.weight", None): ("a.weight", None)}
    assert settled(both, one).pairs == crossed.pairs
    assert not settled(both, one).open


def drop_norm(theirs: Any) -> None:
    theirs.decoder.mid_block.resnets[1].norm1 = nn.Identity()


def wider(theirs: Any) -> None:
    theirs.encoder.conv_norm_out = nn.Sequential(theirs.encoder.conv_norm_out, nn.Conv2d(32, 32, 3, padding=1))


def without_shortcut(theirs: Any) -> None:
    block = theirs.decoder.up_blocks[2].resnets[0]
    block.conv_shortcut = None
    block.forward = lambda x, temb=None: block.conv2(block.norm2(block.conv1(block.norm1(x))))


def smaller_kernel(theirs: Any) -> None:
    theirs.decoder.up_blocks[1].resnets[0].conv1 = nn.Conv2d(32, 32, 1)


def without_residual(theirs: Any) -> None:
    """The same weights; the block behind reads less."""
    block = theirs.encoder.down_blocks[1].resnets[0]
    block.forward = lambda x, temb=None: block.conv2(block.norm2(block.conv1(block.norm1(x))))


@pytest.mark.parametrize(
    ("change", "native", "foreign"),
    [
        (drop_norm, {"decoder.middle.block2.main.norm1.weight", "decoder.middle.block2.main.norm1.bias"}, set()),
        (wider, set(), {"encoder.conv_norm_out.1.weight"}),
        (
            without_shortcut,
            {"decoder.levels.2.blocks.0.shortcut.weight", "decoder.levels.2.blocks.0.shortcut.bias"},
            set(),
        ),
        (
            smaller_kernel,
            {"decoder.levels.1.blocks.0.main.conv1.weight"},
            {"decoder.up_blocks.1.resnets.0.conv1.weight"},
        ),
    ],
)
def test_origins_are_where_a_layer_differs(change: Callable[[Any], None], native: set[str], foreign: set[str]) -> None:
    """Not where the difference spreads to, nor where equal layers stand."""
    both = graphs("kl", change)
    assert not match(both).same_graph
    mine, theirs = origins(both)
    assert (keys(mine), keys(theirs)) == (native, foreign)


def test_origins_where_edges_alone_differ() -> None:
    both = graphs("kl", without_residual)
    assert not match(both).same_graph
    assert origins(both) == (
        [("encoder.levels.0.resample.bias", None), ("encoder.levels.1.blocks.1.main.norm1.weight", None)],
        [
            ("encoder.down_blocks.0.downsamplers.0.conv.bias", None),
            ("encoder.down_blocks.1.resnets.1.norm1.weight", None),
        ],
    )


def test_equal_graphs_have_no_origin() -> None:
    assert origins(graphs("kl")) == ([], [])


def test_what_has_no_partner_is_listed() -> None:
    one = flow_of(nn.Sequential(nn.Conv1d(3, 4, 1), nn.GroupNorm(2, 4)), 2, 3, 5)
    other = flow_of(nn.Sequential(nn.Conv1d(3, 4, 1)), 2, 3, 5)
    found = matched(one, other)
    assert not found.same_graph
    assert keys(found.native) == {"0.weight", "0.bias", "1.weight", "1.bias"}
    assert keys(found.foreign) == {"0.weight", "0.bias"}
    assert found.pairs == {}
