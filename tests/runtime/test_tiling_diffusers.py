"""Native models, tiled, against Diffusers' classes with their tiling on.

Tiles are small and differ per axis, so that axes, units and remainders cannot be mistaken for each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from tests.layers.laws import difference, normal
from tests.narrow import both
from vaeport.proof.precision import Float64Mode
from vaeport.runtime.tiling import Axes, Axis, Ramps, tiled
from vaeport.runtime.tiling.ramps import faded
from vaeport.vae import VAE

SAME = 1e-12
"""relative to the rms, in float64"""
SPACE = ("height", "width")
ALL = ("time", *SPACE)


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """The sizes that a class is set to; the same as a policy.

    longest     media that every axis of which is longer than its tile, and the last tile short
    encoded     what Diffusers' numbers mean in encoding, as multiples of what they say
    """

    longest: tuple[int, ...]
    tiles: dict[str, tuple[int, int]]
    drops: str = "first"
    crops: bool = True
    encoded: int = 1
    grain: int = 1

    def policy(self, parts: tuple[str, ...]) -> Ramps:
        """For the axes that are on."""
        cut = {name: sizes for name, sizes in self.tiles.items() if name in parts}
        more = self.encoded
        encode = Axes(**{name: Axis(tile=more * t, stride=more * s, above=t) for name, (t, s) in cut.items()})
        decode = Axes(**{name: Axis(tile=t, stride=s, grain=self.grain) for name, (t, s) in cut.items()})
        return Ramps(source="diffusers", encode=encode, decode=decode, drops=self.drops, crops=self.crops)

    def set(self, parts: tuple[str, ...], named: Any) -> dict[str, Any]:
        """Attributes of the class."""
        if named == "AutoencoderKL":
            size, _ = self.tiles["height"]
            return {"use_tiling": True, "tile_sample_min_size": size, "tile_latent_min_size": size // 8}
        values: dict[str, Any] = {"use_tiling": "height" in parts}
        values |= dict.fromkeys(("use_framewise_encoding", "use_framewise_decoding"), "time" in parts)
        for axis, (tile, stride) in self.tiles.items():
            word = "num_frames" if axis == "time" else axis
            values |= {f"tile_sample_min_{word}": tile, f"tile_sample_stride_{word}": stride}
        return values


_LTX = Tiling(longest=(25, 96, 128), tiles={"time": (16, 8), "height": (64, 32), "width": (96, 64)}, drops="last")
TILINGS = {
    "kl": Tiling(longest=(88, 56), tiles=dict.fromkeys(SPACE, (32, 24)), crops=False),
    "wan": Tiling(longest=(5, 56, 88), tiles={"height": (32, 24), "width": (48, 32)}),
    "wan2_2": Tiling(longest=(5, 96, 112), tiles={"height": (32, 16), "width": (48, 32)}, encoded=2, grain=2),
    "hunyuan_video": Tiling(longest=(13, 36, 56), tiles={"time": (8, 4), "height": (32, 24), "width": (48, 32)}),
    **dict.fromkeys(("ltx", "ltx1", "ltx23"), _LTX),
}


def cases() -> Iterator[tuple[str, tuple[str, ...], tuple[int, ...]]]:
    """Space, time, both; what is longer along one axis alone, and what is nowhere longer."""
    for name, tiling in TILINGS.items():
        *time, height, width = tiling.longest
        high, wide = (tiling.tiles[axis][0] for axis in SPACE)
        if not time:
            yield from ((name, SPACE, n) for n in ((height, width), (height, wide), (high, width), (high, wide)))
        elif "time" not in tiling.tiles:
            yield name, SPACE, tiling.longest
            yield name, SPACE, (1, tiling.encoded * high, wide)
            yield name, SPACE, (1, high, width)
        else:
            yield name, ALL, tiling.longest
            yield name, ("time",), (*time, high, wide)
            yield name, SPACE, (1, height, width)
    *_, high, wide = (tile for tile, _ in TILINGS["hunyuan_video"].tiles.values())
    yield "hunyuan_video", ALL, (5, high, wide)


CASES = list(cases())


@contextmanager
def switched(theirs: Any, values: dict[str, Any]) -> Iterator[None]:
    """The class with its tiling on; as before behind."""
    before = {key: vars(theirs).get(key) for key in values}
    vars(theirs).update(values)
    try:
        yield
    finally:
        vars(theirs).update(before)


def pair(name: str, parts: tuple[str, ...]) -> tuple[VAE, VAE, Any, dict[str, Any]]:
    """The native model whole and tiled, Diffusers', and what turns its tiling on."""
    whole, theirs = both(name, torch.float64)
    on = TILINGS[name].set(parts, type(theirs).__name__)
    if name == "ltx23":  # published configurations state these; without them the class counts levels
        on |= {"spatial_compression_ratio": 32, "temporal_compression_ratio": 8}
    return whole, tiled(whole, TILINGS[name].policy(parts)), theirs, on


def is_cut(name: str, parts: tuple[str, ...], n: tuple[int, ...], more: int = 1) -> bool:
    """Whether an axis that is on is longer than it may be, and a second tile changes something.

    The first line that is faded over is still the first tile's, so a second tile of one latent changes nothing.
    """
    sizes, tiles = dict(zip(ALL if len(n) == 3 else SPACE, n, strict=True)), TILINGS[name].tiles
    seen = {axis: more * tiles[axis][1] + (16 if more > 1 else 0) for axis in parts}
    return any(sizes[axis] > max(tiles[axis][0], seen[axis]) for axis in parts)


def assert_same(found: Tensor, expected: Tensor, whole: Tensor, cut: bool) -> None:
    """As the reference; and tiled is not whole, unless nothing is cut."""
    rms = float(expected.square().mean().sqrt())
    assert difference(found, expected) <= SAME * rms
    whole = whole[..., : found.shape[-2], : found.shape[-1]]
    assert (difference(found, whole) > 1e-3 * rms) == cut


@pytest.mark.parametrize(("name", "parts", "n"), CASES)
def test_encode(name: str, parts: tuple[str, ...], n: tuple[int, ...]) -> None:
    whole, ours, theirs, on = pair(name, parts)
    x = normal(1, 3, *n).tanh()
    with switched(theirs, on), Float64Mode():
        expected = theirs.encode(x).latent_dist.parameters
    found, untiled = (vae.encode(x).latent_dist.parameters for vae in (ours, whole))
    assert_same(found, expected, untiled, is_cut(name, parts, n, TILINGS[name].encoded))


@pytest.mark.parametrize(("name", "parts", "n"), CASES)
def test_decode(name: str, parts: tuple[str, ...], n: tuple[int, ...]) -> None:
    whole, ours, theirs, on = pair(name, parts)
    z = normal(*whole.contract.latent_shape((1, 3, *n)))
    temb = {"temb": torch.tensor([0.05], dtype=z.dtype)} if ours.contract.decode_timestep else {}
    with switched(theirs, on), Float64Mode():
        torch.manual_seed(0)
        expected = theirs.decode(z, **temb).sample
    outputs = []
    for vae in (ours, whole):
        torch.manual_seed(0)
        outputs.append(vae.decode(z).sample)
    assert_same(outputs[0], expected, outputs[1], is_cut(name, parts, n))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("axis", "word"), [(-3, "t"), (-2, "v"), (-1, "h")])
def test_ramps_are_those_of_diffusers_in_bits(axis: int, word: str, dtype: torch.dtype) -> None:
    blend = getattr(diffusers.AutoencoderKLHunyuanVideo, f"blend_{word}")
    for n, m, extent in ((12, 12, 7), (12, 3, 7), (5, 12, 7), (12, 12, 0)):
        shapes = [[1, 2, 6, 6, 6], [1, 2, 6, 6, 6]]
        for shape, k in zip(shapes, (n, m), strict=True):
            shape[axis] = k
        a, b = (normal(*shape, seed=i).to(dtype) for i, shape in enumerate(shapes))
        found = faded(a, b.clone(), extent, axis)
        assert torch.equal(found, blend(None, a, b.clone(), extent))
        assert torch.equal(found, b) == (extent == 0)
