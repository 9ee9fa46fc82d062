"""Scrambled references by import path: `tests.port.scrambled:kl` with {"seed": 1}, at published width unless told.

Keywords other than `seed` and `hard` replace those of the published configuration. Weights are drawn from the seed
under their original names; on the meta device there are none.
"""

from __future__ import annotations

from typing import Any

import diffusers

from tests.port.scramble import Pair, Scrambled, scramble
from vaeport.models.autoencoder_kl import AutoencoderKL
from vaeport.models.oobleck import Oobleck
from vaeport.models.wan import Wan
from vaeport.proof.draw import draw_state

PUBLISHED = {"kl": (AutoencoderKL, "sd1"), "wan": (Wan, "wan2.1"), "oobleck": (Oobleck, "stable-audio-open-1.0")}


def kl(seed: int = 0, *, hard: bool = False, **config: Any) -> Scrambled:
    """Diffusers' AutoencoderKL, by default Stable Diffusion 1's."""
    return build("kl", seed, hard=hard, **config)[0]


def wan(seed: int = 0, *, hard: bool = False, **config: Any) -> Scrambled:
    """Diffusers' AutoencoderKLWan, by default Wan 2.1's."""
    return build("wan", seed, hard=hard, **config)[0]


def oobleck(seed: int = 0, *, hard: bool = False, **config: Any) -> Scrambled:
    """Diffusers' AutoencoderOobleck, by default Stable Audio Open's."""
    return build("oobleck", seed, hard=hard, **config)[0]


def build(name: str, seed: int = 0, *, hard: bool = False, **config: Any) -> tuple[Scrambled, tuple[Pair, ...]]:
    """What the function of that name returns, and the truth that it keeps to itself."""
    return scramble(original(name, seed, **config), seed, hard=hard)


def original(name: str, seed: int = 0, **config: Any) -> Any:
    """The module before it is scrambled, with drawn weights."""
    model, variant = PUBLISHED[name]
    published = {**model.variants[variant].to_published(), **config}
    module = getattr(diffusers, published["_class_name"]).from_config(published).eval().requires_grad_(False)
    state = module.state_dict()
    if not any(tensor.is_meta for tensor in state.values()):
        module.load_state_dict(draw_state({key: tuple(value.shape) for key, value in state.items()}, seed))
    return module
