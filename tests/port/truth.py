"""A derived map held against the truth that a scrambled reference keeps to itself, element by element."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tests.narrow import on_meta, shapes, weight_map
from tests.port import scrambled
from tests.port.scramble import unscrambled
from vaeport.configs import VAEArchConfig
from vaeport.mapping import Plan, plan
from vaeport.vae import VAE


def numbered(weights: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Weights in which no number comes twice."""
    found, start = {}, 0
    for key, shape in weights.items():
        end = start + math.prod(shape)
        found[key] = torch.arange(start, end, dtype=torch.float64).reshape(shape)
        start = end
    return found


def wrong(
    mapped: Plan, model: type[VAE], arch: VAEArchConfig, name: str, seed: int, *, hard: bool, **config: Any
) -> list[str]:
    """Native weights that are not made of what the truth and the registered Diffusers map make them of.

    The scrambled reference is that of `scrambled.build` with the same arguments.
    """
    with torch.device("meta"):
        reference = shapes(scrambled.original(name, seed, **config))
        module, truth = scrambled.build(name, seed, hard=hard, **config)
    native, state = shapes(on_meta(model, arch)), numbered(shapes(module))
    right = unscrambled(state, truth, reference)
    registered = plan(weight_map(model).DIFFUSERS, native, reference).require(name, "mend the registered map")
    expected = registered.convert(right.__getitem__)
    missed = []
    for (key, found), (same, value) in zip(mapped.convert(state.__getitem__), expected, strict=True):
        assert key == same
        if not torch.equal(found, value):
            missed.append(key)
    return missed
