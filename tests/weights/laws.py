"""What every map promises: each native key has stored ones, each stored key belongs to one native key."""

from __future__ import annotations

import torch

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
    stored = [key for step in found.steps for key in step.stored]
    assert len(stored) == len(set(stored))


def planned(layout: Layout, model: type[VAE], arch: VAEArchConfig, stored: dict[str, tuple[int, ...]]) -> Plan:
    """The plan of a file with these keys; an error names every key that does not fit."""
    found = plan(layout, shapes(on_meta(model, arch)), stored).require(layout.name, "fix the map")
    assert sorted(key for step in found.steps for key in step.stored) == sorted(stored)
    return found


def diffusers_shapes(arch: VAEArchConfig) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of Diffusers' class at full width."""
    with torch.device("meta"):
        return shapes(reference(arch))


def official_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of the official class, as captured from it, behind the published file's prefix."""
    weights = load_golden(name).provenance["weights"]
    return {weights["key_prefix"] + key: tuple(shape) for key, shape in weights["layout"].items()}
