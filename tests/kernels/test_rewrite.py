"""The fast trees: whole, in streams, in bands and in shards they are the layers whose place they take."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.layers.laws import STREAMED, assert_streams, cuttings, difference, singles
from tests.narrow import half, latent, media, native
from tests.runtime.shards import work
from tests.runtime.shards.pool import Pool
from vaeport.kernels.conv import FastConv, RepeatingConv, UpsampledConv
from vaeport.kernels.moved import ShuffledChannels, UnshuffledChannels
from vaeport.kernels.norm import FastGroupNorm, FastNorm
from vaeport.kernels.rewrite import faster
from vaeport.kernels.waveform import FastSnake, FastWaveConv, FastWaveUp
from vaeport.layers import HEIGHT, SAMPLES, TIME, WIDTH, Layer
from vaeport.runtime.passes import Pass, Passes
from vaeport.runtime.program import steps_of

VIDEO = ("wan", "wan2_2", "magvit", "ltx", "ltx5", "ltx2", "ltx23")
MODELS = ("kl", *VIDEO, "hunyuan_video", "gamecraft", "gamecraft_open", "oobleck8")
SMALL = dict.fromkeys(("ltx", "ltx5", "ltx2", "ltx23"), (1, 3, 9, 64, 96))
HALVES = ("encoder", "decoder")


def case(name: str, of: str) -> tuple[Layer, Layer, Tensor]:
    """A half, its fast tree, and an input."""
    plain = half(name, of)
    x = media(name, SMALL.get(name)) if of == "encoder" else latent(name)
    return plain, faster(plain, "hopper"), x[:1] if name in SMALL else x


@pytest.mark.parametrize("of", HALVES)
@pytest.mark.parametrize("name", MODELS)
def test_the_whole(name: str, of: str) -> None:
    plain, fast, x = case(name, of)
    whole = plain(x)
    assert difference(fast(x), whole) <= STREAMED * max(1.0, float(whole.square().mean().sqrt()))
    assert fast is not plain


@pytest.mark.parametrize("of", HALVES)
@pytest.mark.parametrize("name", [*VIDEO, "oobleck8"])
@given(data=st.data())
@settings(max_examples=2)
def test_streams(name: str, of: str, data: st.DataObject) -> None:
    _, fast, x = case(name, of)
    axis = SAMPLES if name == "oobleck8" else TIME
    assert_streams(fast, x, axis, data.draw(cuttings(x.shape[axis])))


@pytest.mark.parametrize("of", HALVES)
@pytest.mark.parametrize("name", MODELS)
@given(data=st.data())
@settings(max_examples=2)
def test_bands(name: str, of: str, data: st.DataObject) -> None:
    """Cut anywhere, with windows of any height."""
    _, fast, x = case(name, of)
    axis = SAMPLES if name == "oobleck8" else data.draw(st.sampled_from((HEIGHT, WIDTH)))
    ops = steps_of(fast, x.shape[0])
    places = sorted(data.draw(st.sets(st.integers(1, len(ops) - 1), max_size=4)))
    passes = [Pass(a, b, data.draw(st.integers(2, 40))) for a, b in pairwise([0, *places, len(ops)])]
    assert difference(Passes(ops, x, axis).run(passes), fast(x)) <= STREAMED


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(2) as pool:
        yield pool


@pytest.mark.parametrize("name", ["kl", "wan", "wan2_2", "ltx2", "hunyuan_video", "oobleck8"])
def test_shards(pool: Pool, name: str) -> None:
    z = latent(name)[:1]
    axis = None if name == "oobleck8" else HEIGHT
    found = pool.values(work.fast_decode, 2, name, tuple(z.shape), axis)
    assert found[0][1] > 1e-2
    assert max(error for error, _ in found) <= STREAMED


@pytest.mark.parametrize(
    ("name", "of", "kinds"),
    [
        ("wan", "decoder", (FastConv, FastNorm, UpsampledConv)),
        ("wan2_2", "encoder", (UnshuffledChannels,)),
        ("wan2_2", "decoder", (ShuffledChannels,)),
        ("ltx2", "decoder", (RepeatingConv,)),
        ("hunyuan_video", "decoder", (FastGroupNorm, RepeatingConv, UpsampledConv)),
        ("oobleck8", "decoder", (FastSnake, FastWaveConv, FastWaveUp)),
    ],
)
def test_what_is_found_in_a_model(name: str, of: str, kinds: tuple[type[Layer], ...]) -> None:
    """Widths that the kernels take; what they do not take stays as it is."""
    found = {type(layer) for layer in faster(wide(name, of), "hopper").modules()}
    assert set(kinds) <= found


def wide(name: str, of: str) -> Layer:
    """On the meta device, at the published width."""
    model = type(native(name))
    with torch.device("meta"):
        vae = model(next(iter(model.variants.values())))
    return vae.encoder if of == "encoder" else vae.decoder  # type: ignore[return-value]


def test_parameters_are_shared_and_the_half_is_left_alone() -> None:
    plain = half("wan", "decoder")
    before = [id(module) for module in plain.modules()]
    fast = faster(plain, "hopper")
    assert {id(p) for p in fast.parameters()} == {id(p) for p in plain.parameters()}
    assert before == [id(module) for module in plain.modules()]


def test_a_condition_is_bound_to_the_fast_tree() -> None:
    """The timestep's embeddings and noise are where they were."""
    vae = native("ltx1")
    z = latent("ltx1")[:1]
    assert vae.decoder is not None
    twin = type(vae)(vae.arch).double().eval().requires_grad_(False)
    twin.load_state_dict(vae.state_dict())
    twin.decoder = faster(vae.decoder, "hopper")
    outputs = [v.decode(z, timestep=0.3, generator=torch.Generator().manual_seed(4)).sample for v in (vae, twin)]
    assert difference(*outputs) <= STREAMED


@pytest.mark.parametrize("name", ["kl", "wan"])
@pytest.mark.parametrize("of", HALVES)
def test_on_a_cpu(name: str, of: str) -> None:
    """In float32, where it is used, and in float64, where the law shows."""
    plain = half(name, of)
    x = media(name) if of == "encoder" else latent(name)
    fast = faster(plain, "cpu")
    assert difference(fast(x), plain(x)) <= STREAMED
    axis = TIME if name == "wan" else HEIGHT
    assert_streams(fast, x, axis, singles(x.shape[axis]))
