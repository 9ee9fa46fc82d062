"""Weights and inputs that depend on nothing but a seed and their names.

Every tensor has a random stream of its own, seeded by a hash of (seed, key), so neither the order of the keys nor the
presence of other keys changes it. A tensor's last name and shape say what it is and hence how it is drawn:

| kind    | keys                                                             | values                           |
|---------|------------------------------------------------------------------|----------------------------------|
| fixed   | `timestep_scale_multiplier`, a weight that no training moves     | 1000                             |
| spread  | a word of the name is `std` or `var` (`running_var`)             | uniform in [0.5, 2]              |
| centre  | a word of the name is `mean` (`running_mean`)                    | 0.5 N                            |
| shift   | `bias`, the Snake log scales `alpha`, `beta`, modulation tables  | 0.2 N                            |
|         | (`scale_shift_table`), strengths of noise (`per_channel_scale1`) |                                  |
| size    | `weight_g`, `original0`: the lengths of weight norm              | abs(1 + 0.2 N)                   |
| gain    | `gamma`, and a `weight` with at most one dimension above 1       | 1 + 0.2 N                        |
| matrix  | `weight_v`, `original1`, and every other `weight`                | N / sqrt(numel / shape[0])       |

N is the standard normal. Any other name is refused: a tensor that keeps its initial value is not proved.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray

from vaeport.errors import ProofError

_UNSCALED: Mapping[str, float] = MappingProxyType({})
_FIXED: Mapping[str, float] = MappingProxyType({"timestep_scale_multiplier": 1000})
_SHIFTS = re.compile(r"bias|alpha|beta|(last_)?scale_shift_table|per_channel_scale[12]")
_SIZES = frozenset({"weight_g", "original0"})
_MATRICES = frozenset({"weight", "weight_v", "original1"})
_WAVES = 6


def draw_state(
    shapes: Mapping[str, Sequence[int]], seed: int, *, scale: Mapping[str, float] = _UNSCALED
) -> dict[str, torch.Tensor]:
    """Draw a float32 state dict with the keys and shapes of `shapes`, on the CPU.

    `scale` multiplies every tensor whose key equals or matches (as a glob: `decoder.head.*`) one of its names.

    Raises ProofError for a key whose kind is unknown, a dimension below 1, and a scale that matches no key.
    """
    for pattern in scale:
        if not any(_matches(key, pattern) for key in shapes):
            raise ProofError("a scale matches no weight", where=pattern, fix="name a key or a glob over the keys drawn")
    state = {}
    for key, shape in shapes.items():
        values = _draw(key, tuple(shape), _stream("state", key, seed))
        for pattern, factor in scale.items():
            if _matches(key, pattern):
                values *= np.float32(factor)
        state[key] = torch.from_numpy(values)
    return state


def draw_input(name: str, shape: Sequence[int], seed: int) -> torch.Tensor:
    """Draw a float64 tensor of standard normal values: a latent, or noise."""
    return torch.from_numpy(_stream("input", name, seed).standard_normal(_checked(name, tuple(shape))))


def draw_media(name: str, shape: Sequence[int], seed: int) -> torch.Tensor:
    """Draw a float64 image [B,C,H,W], video [B,C,T,H,W] or waveform [B,C,L] with all values in (-0.95, 0.95).

    Each sample is a sum of plane waves under uniform noise of amplitude 0.15. Wavelengths lie between twice an axis and
    8 elements; phases differ between channels.
    """
    if len(shape) < 3:
        raise ProofError("media has a batch, a channel and at least one more axis", where=name, found=tuple(shape))
    batch, channels, *axes = _checked(name, tuple(shape))
    rng = _stream("media", name, seed)
    field = rng.uniform(-0.15, 0.15, size=(batch, channels, *axes))
    positions = np.meshgrid(*(np.arange(size) / size for size in axes), indexing="ij")
    highest = np.maximum(0.5, np.array(axes) / 8)
    loudness = 1 / np.arange(1, _WAVES + 1)
    loudness *= 0.8 / loudness.sum()
    for sample in field:
        start = rng.uniform(size=(_WAVES, 1)) + rng.uniform(0, 0.3, size=(_WAVES, channels))
        for wave in range(_WAVES):
            cycles = 0.5 * (2 * highest) ** rng.uniform(size=len(axes)) * rng.choice((-1, 1), size=len(axes))
            turns = sum(count * position for count, position in zip(cycles, positions, strict=True))
            for channel, shift in enumerate(start[wave]):
                sample[channel] += loudness[wave] * np.cos(2 * np.pi * (turns + shift))
    return torch.from_numpy(field)


def _draw(key: str, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    name = key.rpartition(".")[2]
    words = set(re.split("[_-]", name))
    shape = _checked(key, shape)
    if name in _FIXED:
        return np.full(shape, _FIXED[name], dtype=np.float32)
    if words & {"std", "var"}:
        return np.asarray(rng.random(shape, dtype=np.float32) * np.float32(1.5) + np.float32(0.5))
    normal = np.asarray(rng.standard_normal(shape, dtype=np.float32))
    if "mean" in words:
        normal *= np.float32(0.5)
    elif _SHIFTS.fullmatch(name):
        normal *= np.float32(0.2)
    elif name in _SIZES:
        np.abs(_around_one(normal), out=normal)
    elif name == "gamma" or (name == "weight" and sum(size > 1 for size in shape) <= 1):
        _around_one(normal)
    elif name in _MATRICES:
        normal *= np.float32(math.sqrt(shape[0] / math.prod(shape)))
    else:
        raise ProofError(
            "cannot tell what kind of weight this is, so it cannot be drawn",
            where=key,
            expected="a name from the table in vaeport.proof.draw",
            found=f"{name} {list(shape)}",
            fix="add its kind to the table",
        )
    return normal


def _around_one(normal: NDArray[np.float32]) -> NDArray[np.float32]:
    normal *= np.float32(0.2)
    normal += np.float32(1)
    return normal


def _stream(kind: str, name: str, seed: int) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed}/{kind}/{name}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))


def _matches(key: str, pattern: str) -> bool:
    return key == pattern or fnmatchcase(key, pattern)


def _checked(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if any(size < 1 for size in shape):
        raise ProofError("nothing can be drawn for an empty tensor", where=name, found=list(shape))
    return shape
