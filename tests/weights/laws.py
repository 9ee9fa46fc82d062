"""What every map promises: each native key has stored ones, each stored key belongs to one native key."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor

from tests.golden.load import load_golden
from tests.narrow import on_meta, reference, shapes
from vaeport.configs import VAEArchConfig
from vaeport.mapping import Layout, Plan, plan
from vaeport.vae import VAE


def assert_bijective(layout: Layout, model: type[VAE], arch: VAEArchConfig) -> None:
    """No native key is without a rule, and no stored key is written twice."""
    native = shapes(on_meta(model, arch))
    found = plan(layout, native)
    assert (found.missing, found.misshapen) == ((), ())
    assert [step.native for step in found.steps] == list(native)
    assert_each_once(found)


def planned(layout: Layout, model: type[VAE], arch: VAEArchConfig, stored: dict[str, tuple[int, ...]]) -> Plan:
    """The plan of a file with these keys; an error names every key that does not fit."""
    found = plan(layout, shapes(on_meta(model, arch)), stored).require(layout.name, "fix the map")
    assert assert_each_once(found) == set(stored) - set(found.dropped)
    return found


def assert_each_once(found: Plan) -> set[str]:
    """Every stored key, or every one of its blocks, belongs to one native key; gives the keys."""
    blocks = [(block.key, block.index) for step in found.steps for block in step.blocks]
    assert len(blocks) == len(set(blocks))
    counts = {block.key: block.count for step in found.steps for block in step.blocks}
    assert sorted(blocks) == sorted((key, i) for key, count in counts.items() for i in range(count))
    return set(counts)


def assert_converts_alike(
    convert: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    official: Mapping[str, tuple[int, ...]],
    layout: Layout,
    diffusers: Layout,
    model: type[VAE],
    arch: VAEArchConfig,
    but: Collection[str] = (),
) -> None:
    """Each native weight is read from the same tensor in the official file, and in that file as Diffusers converts it.

    but     keys that Diffusers leaves unconverted
    """
    stored = {key: torch.empty(shape, device="meta") for key, shape in official.items()}
    mine = {s.native: s for s in planned(layout, model, arch, dict(official)).steps}
    converted = convert(dict(stored))
    left = {key: converted.pop(key) for key in but}
    theirs = plan(diffusers, shapes(on_meta(model, arch)), {key: tuple(t.shape) for key, t in converted.items()})
    assert (theirs.unexpected, theirs.misshapen) == ((), ())
    assert len(theirs.missing) == len(left)
    for step in theirs.steps:
        ours = mine.pop(step.native)
        assert [(b.index, b.count) for b in step.blocks] == [(b.index, b.count) for b in ours.blocks]
        for a, b in zip(step.stored, ours.stored, strict=True):
            assert converted[a] is stored[b], (step.native, a, b)
    assert {id(stored[key]) for step in mine.values() for key in step.stored} == set(map(id, left.values()))


def diffusers_shapes(arch: VAEArchConfig) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of Diffusers' class at full width."""
    with torch.device("meta"):
        return shapes(reference(arch))


def official_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of the official class, as captured from it, behind the published file's prefix."""
    weights = load_golden(name).provenance["weights"]
    return {weights["key_prefix"] + key: tuple(shape) for key, shape in weights["layout"].items()}
