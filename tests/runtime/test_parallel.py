"""`ParallelTiledVAE`: the VAE's own results within a budget, and what it does when memory is less than planned."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy, deepcopy
from fractions import Fraction

import pytest
import torch
from torch import Tensor

import vaeport
from tests.layers.laws import STREAMED, difference
from tests.narrow import decoded, latent, media, native
from vaeport.configs import VideoVAEConfig
from vaeport.errors import BlockedError, ConfigError, InputError
from vaeport.layers import Chain, Layer
from vaeport.layers.layer import Chunk, Interval, State
from vaeport.runtime.parallel import ParallelTiledVAE, bytes_of
from vaeport.vae import VAE

NAMES = ("kl", "wan", "wan2_2", "magvit", "hunyuan_video", "ltx5", "ltx2", "oobleck8")


@pytest.mark.parametrize("name", NAMES)
def test_encode_and_decode(name: str) -> None:
    vae, x, z = native(name), media(name), latent(name)
    ours = ParallelTiledVAE(vae, budget="1GiB")
    assert difference(ours.encode(x).latent_dist.parameters, vae.encode(x).latent_dist.parameters) <= STREAMED
    whole = vae.decode(z).sample
    assert difference(ours.decode(z).sample, whole) <= STREAMED
    assert difference(ours.decode(z, False)[0], whole) <= STREAMED
    assert difference(torch.cat(list(ours.stream_decode(z)), 2), whole) <= STREAMED
    assert ours.contract is vae.contract
    assert ours.normalize(z).shape == z.shape


def test_within_a_budget() -> None:
    vae, z = native("kl"), latent("kl").repeat(1, 1, 8, 4)
    ours = ParallelTiledVAE(vae, budget=vae.plan(tuple(z.shape), budget="1GiB").whole.peak // 2)
    assert ours.plan(tuple(z.shape)).kind == "bands"
    out = torch.empty(vae.contract.decoded_shape(tuple(z.shape)), dtype=z.dtype)
    assert ours.decode(z, out=out).sample is out
    assert difference(out, vae.decode(z).sample) <= STREAMED
    with pytest.raises(InputError, match="no plan fits"):
        ParallelTiledVAE(vae, budget="1KiB").decode(z)


def test_noise_is_drawn_once_for_all_windows() -> None:
    vae, z = native("ltx1"), latent("ltx1")
    generators = [torch.Generator().manual_seed(5) for _ in range(2)]
    ours = ParallelTiledVAE(vae, budget="1GiB").decode(z, timestep=0.05, generator=generators[0]).sample
    assert difference(ours, vae.decode(z, timestep=0.05, generator=generators[1]).sample) <= STREAMED


class Tight(Layer):
    """The last layer of a decoder, which has no memory for so many numbers from some piece on."""

    def __init__(self, leaf: Layer, most: int, after: int) -> None:
        super().__init__()
        self.leaf, self.most, self.after = leaf, most, after
        self.pieces: list[int] = []
        self.refused: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.leaf(x)
        return y

    def step(self, x: Chunk, state: State, last: bool, axis: int) -> tuple[Chunk, State]:
        if x is not None:
            self.pieces.append(x.numel())
            if len(self.pieces) > self.after and x.numel() > self.most:
                self.refused.append(x.numel())
                raise torch.OutOfMemoryError("no memory for so many numbers")
        return self.leaf.step(x, state, last, axis)

    def length(self, n: int, axis: int) -> int:
        return self.leaf.length(n, axis)

    def needs(self, outputs: Interval, axis: int) -> Interval | None:
        return self.leaf.needs(outputs, axis)

    def rate(self, axis: int) -> Fraction:
        return self.leaf.rate(axis)


def with_last(vae: VAE, make: Callable[[Layer], Layer]) -> VAE:
    """A VAE whose decoder's last layer is another; its steps are as many as before."""
    twin, decoder = copy(vae), copy(vae.decoder)
    assert decoder is not None
    name, last = list(decoder._modules.items())[-1]
    assert isinstance(last, Layer)
    assert not isinstance(last, Chain)
    decoder._modules = {**decoder._modules, name: make(last)}
    twin._modules = {**vae._modules, "decoder": decoder}
    return twin


@pytest.mark.parametrize(
    ("name", "repeats", "most", "after"),
    [
        pytest.param("wan", (1, 1, 3, 16, 1), 175_000, 6, marks=pytest.mark.full),
        pytest.param("ltx2", (1, 1, 16, 2, 1), 1_000_000, 2, marks=pytest.mark.full),
        ("ltx1", (1, 1, 8, 1, 1), 400_000, 1),
    ],
)
def test_it_goes_on_from_the_last_finished_frame(name: str, repeats: tuple[int, ...], most: int, after: int) -> None:
    """A clip whose pieces turn out too large halfway ends in smaller ones, with the same noise."""
    vae, z = native(name), latent(name)[:1].repeat(*repeats)
    budget, whole = int(0.9 * vae.plan(tuple(z.shape), budget="8GiB").whole.peak), decoded(vae, z)
    for out in (None, torch.full_like(whole, torch.nan)):
        made: list[Tight] = []

        def tight(last: Layer, made: list[Tight] = made) -> Layer:
            made.append(Tight(last, most, after))
            return made[-1]

        beside = budget - (0 if out is None else out.nbytes)
        ours = (
            ParallelTiledVAE(with_last(vae, tight), budget=beside)
            .decode(z, out=out, generator=torch.Generator().manual_seed(0))
            .sample
        )
        assert difference(ours, whole) <= STREAMED
        assert made[0].refused
        assert made[0].refused[0] == made[0].pieces[after]
        assert max(made[0].pieces[-3:]) <= most
        assert out is None or ours is out


def test_no_smaller_plan_is_left() -> None:
    vae = native("kl")
    twin = with_last(vae, lambda last: Refuses())
    with pytest.raises(BlockedError, match="out of memory") as refused:
        ParallelTiledVAE(twin, budget="1GiB").decode(latent("kl"))
    assert "latents" in str(refused.value.fix)


class Refuses(Layer):
    """Never has memory."""

    def forward(self, x: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("none left")


def test_what_is_refused() -> None:
    vae = native("wan")
    named = type(vae)(vae.arch, VideoVAEConfig(tiling="diffusers"))
    with pytest.raises(ConfigError, match="plans are exact, this tiling is not"):
        ParallelTiledVAE(named)
    with pytest.raises(ConfigError, match="does not fit the media"):
        ParallelTiledVAE(vae, budget="1GiB").decode(latent("wan"), out=torch.empty(1, 3, 2, 2, 2))
    with pytest.raises(InputError, match="knows no timestep"):
        ParallelTiledVAE(vae, budget="1GiB").decode(latent("wan"), timestep=0.1)
    with pytest.raises(InputError, match="another shape"):
        vae.plan((1, 3, 8, 8))


@pytest.mark.parametrize(
    ("text", "found"),
    [("6GiB", 6 << 30), ("1.5 GiB", 3 << 29), ("500MB", 500 << 20), ("12k", 12 << 10), ("7", 7), (9, 9)],
)
def test_amounts(text: str | int, found: int) -> None:
    assert bytes_of(text) == found


@pytest.mark.parametrize("text", ["", "much", "-1GiB", "3 XiB", "1e9"])
def test_no_amounts(text: str) -> None:
    with pytest.raises(ConfigError, match="not an amount of memory"):
        bytes_of(text)


def test_public_name() -> None:
    assert vaeport.ParallelTiledVAE is ParallelTiledVAE


def test_halves_of_different_types() -> None:
    """The encoder in float64, the decoder in float32: each plan is made, and each input taken, in its half's type."""
    vae = copy(native("kl"))
    vae._modules = {**vae._modules, "decoder": deepcopy(vae.decoder).float()}
    ours, z = ParallelTiledVAE(vae, budget="1GiB"), latent("kl").float()
    assert (
        difference(ours.encode(media("kl")).latent_dist.parameters, vae.encode(media("kl")).latent_dist.parameters) == 0
    )
    assert torch.equal(ours.decode(z).sample, vae.decode(z).sample)
    assert (ours.plan(tuple(z.shape)).dtype, ours.plan((1, 3, 16, 16), "encoder").dtype) == ("float32", "float64")
    with pytest.raises(InputError, match="differ in type"):
        ours.decode(z.double())
