"""From the committed flows of the official classes alone, their maps are derived again and are the registered ones."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from functools import cache

import pytest

from tests.golden.flows import FOLDER, OFFICIALS, load_flow
from tests.golden.official import SOURCES
from tests.narrow import on_meta
from vaeport.mapping import Plan, plan
from vaeport.mapping.derive import Graph, Match, Node, match, settled
from vaeport.mapping.flow import Flow
from vaeport.mapping.induce import induce, pairs_of
from vaeport.mapping.rules import Block
from vaeport.port.flows import native_flow, shapes_of
from vaeport.port.reuse import reuse_proof
from vaeport.registry import ModelRegistry

QUERIES_AND_KEYS = {"ldm_sd1": 2, "flux1": 2, "wan2_1": 2, "stable_audio_2_0": 0}
"""attentions, each of which leaves two ways of reading them that only values can tell apart"""
each = pytest.mark.parametrize("name", OFFICIALS)


@cache
def native(name: str) -> Flow:
    """The flow of our model at its published width, without values. Shared by tests, so none may change it."""
    official = OFFICIALS[name]
    model = ModelRegistry.find(official.native).model
    vae = on_meta(model, model.variants[official.variant])
    return native_flow(vae, *shapes_of(vae.contract))


def ways(graphs: tuple[Graph, Graph], chosen: Mapping[Node, Node]) -> Iterator[Match]:
    """Every way in which the open choices can be settled."""
    found = match(graphs, chosen)
    if not found.open:
        yield found
        return
    ours, theirs = found.open[0]
    for candidate in theirs:
        yield from ways(graphs, {**chosen, ours[0]: candidate})


def blocks(mapped: Plan) -> dict[str, tuple[Block, ...]]:
    return {step.native: step.blocks for step in mapped.steps}


def thirds(found: tuple[Block, ...]) -> tuple[Block, ...]:
    return tuple(Block(found[0].key, i, 3) for i in range(3)) if len(found) == 1 else found


def derived(found: Match, mine: Flow, theirs: Flow) -> Plan:
    layout = induce("derived", pairs_of(found, mine.shapes, theirs.shapes))
    return plan(layout, mine.shapes, theirs.shapes).require("the derived map", "mend the derivation")


@each
def test_the_map_is_derived_again(name: str) -> None:
    """Of all ways to read queries and keys exactly one is the registered layout, and nothing else is open."""
    official, theirs, mine = OFFICIALS[name], load_flow(name).flow, native(name)
    layouts = ModelRegistry.find(official.native).layouts
    registered = next(layout for layout in layouts if layout.name == official.layout)
    expected = blocks(plan(registered, mine.shapes, theirs.shapes).require(name, "mend the registered layout"))
    assert expected.keys() == mine.shapes.keys()
    found = [blocks(derived(way, mine, theirs)) for way in ways((Graph.of(mine), Graph.of(theirs)), {})]
    assert len(found) == 2 ** QUERIES_AND_KEYS[name]
    assert found.count(expected) == 1
    other = {key for way in found for key in expected if way[key] != expected[key]}
    assert all(".attention.qkv." in key for key in other)
    for way in found:
        for key in other:
            (q, k, v), (query, key_, value) = thirds(way[key]), thirds(expected[key])
            assert {q, k} == {query, key_}
            assert v == value


@each
def test_the_official_class_is_reused(name: str) -> None:
    """The reuse proof, from the committed flow and contract."""
    golden, official = load_flow(name), OFFICIALS[name]
    proof = reuse_proof(golden.flow, golden.contract, golden.provenance["arguments"])
    assert proof.nearest is not None
    assert (proof.nearest.registration.name, proof.nearest.unmatched) == (official.native, 0)
    if name == "wan2_1":
        # the clamp is in the wrapper around the class
        assert (proof.verdict, proof.differences) == ("port", ["decode clamp: native [-1.0, 1.0], official None"])
        return
    assert (proof.verdict, proof.differences) == ("reuse", [])
    # the official class does not know the scale of its latents, except FLUX's
    assert (official.variant in proof.ambiguous) if name == "ldm_sd1" else (proof.ambiguous == [])
    told = reuse_proof(golden.flow, golden.contract, golden.provenance["arguments"], variant=official.variant)
    assert told.nearest is not None
    assert (told.verdict, told.ambiguous, told.nearest.variant) == ("reuse", [], official.variant)


@each
def test_another_flow_is_noticed(name: str) -> None:
    """Two weights of equal shape that change places, and an operation that reads something else."""
    theirs, mine = load_flow(name).flow, native(name)
    right = [blocks(derived(way, mine, theirs)) for way in ways((Graph.of(mine), Graph.of(theirs)), {})]
    shapes = [use.operands[0].shape for use in theirs.uses]
    one, other = next((i, j) for i in range(len(shapes)) for j in range(i + 1, len(shapes)) if shapes[i] == shapes[j])
    swapped = copy.deepcopy(theirs)
    swapped.uses[one].operands, swapped.uses[other].operands = swapped.uses[other].operands, theirs.uses[one].operands
    graphs = Graph.of(mine), Graph.of(swapped)
    if match(graphs).same_graph:
        assert blocks(derived(settled(graphs, {}), mine, swapped)) not in right
    cut = copy.deepcopy(theirs)
    cut.uses[-1].inputs = {next(iter(cut.uses[0].inputs))}
    assert not match((Graph.of(mine), Graph.of(cut))).same_graph


@each
def test_a_flow_says_where_it_comes_from(name: str) -> None:
    golden, official = load_flow(name), OFFICIALS[name]
    recorded = json.loads(SOURCES.read_text("utf-8"))[official.repo]
    assert golden.provenance["repo"] == f"https://github.com/{official.repo}"
    assert (golden.provenance["commit"], golden.provenance["files"]) == (recorded["commit"], recorded["files"])
    assert golden.provenance["class"] == official.place
    assert official.place.partition(":")[0] in recorded["files"]
    file = FOLDER / f"{name}.json.gz"
    assert file.stat().st_size < 60_000
    assert {path.name for path in FOLDER.iterdir()} == {f"{known}.json.gz" for known in OFFICIALS}
    row = next(line for line in (FOLDER.parent / "README.md").read_text("utf-8").splitlines() if f"| `{name}`" in line)
    assert recorded["commit"] in row
