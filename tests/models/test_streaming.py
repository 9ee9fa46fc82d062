"""Whole models: streamed equals whole along every axis, and memory follows the reach, not the length."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.layers.laws import (
    STREAMED,
    Cutting,
    assert_streams,
    cuttings,
    difference,
    kept_alive,
    normal,
    singles,
    streamed,
)
from tests.narrow import decoder, half, latent, media, native
from vaeport.errors import InputError
from vaeport.layers import HEIGHT, SAMPLES, TIME, WIDTH
from vaeport.vae import VAE

VIDEO = ("wan", "wan2_2", "ltx", "ltx1", "ltx5", "ltx2", "ltx23")
AXIS = {**dict.fromkeys(VIDEO, TIME), "oobleck": SAMPLES, "oobleck8": SAMPLES}
PIXELS = {"wan": (8, 16), "wan2_2": (16, 32), **dict.fromkeys(VIDEO[2:], (32, 64))}
VIDEO_LENGTHS = [
    *(("wan", n) for n in (1, 2, 4, 5, 6, 7, 9)),
    *(("wan2_2", n) for n in (1, 4, 5, 9)),
    *(("ltx", n) for n in (1, 8, 9, 17)),
    *((name, n) for name in ("ltx5", "ltx2") for n in (1, 9, 17)),
]
AUDIO_LENGTHS = [("oobleck8", n) for n in (8, 61, 95)]
LATENT_LENGTHS = [
    *(("wan", n) for n in (1, 2, 4)),
    *((name, n) for name in ("wan2_2", "ltx", "ltx1", "ltx5", "ltx2", "ltx23") for n in (1, 3)),
    *(("oobleck8", n) for n in (1, 2, 12)),
]


def inputs(name: str, of: str, n: int) -> Tensor:
    """Of length n along the streamed axis, with a second sample, small along the other axes."""
    if of == "encoder":
        return media(name, (2, 3, n, *PIXELS[name]) if name in VIDEO else (2, 2, n))
    # a mirror at the edge needs two positions
    return normal(2, 4, n, 2, 2) if name in VIDEO[2:] else normal(2, 4, n, 1, 2) if name in VIDEO else normal(2, 8, n)


def reused(x: Tensor, cutting: Cutting) -> Iterator[Tensor]:
    """Pieces from one buffer that is overwritten once a piece was taken, as a file reader's may be."""
    buffer = torch.empty_like(x)
    for piece in x.split(cutting.sizes, 2):
        yield buffer[:, :, : piece.shape[2]].copy_(piece)
        buffer.fill_(torch.nan)


def streamed_moments(vae: VAE, x: Tensor, cutting: Cutting) -> Tensor:
    return torch.cat([posterior.parameters for posterior in vae.stream_encode(reused(x, cutting))], 2)


def whole_sample(name: str, z: Tensor) -> Tensor:
    y, clamp = decoder(name)(z), native(name).contract.clamp
    return y if clamp is None else y.clamp(*clamp)


@pytest.mark.parametrize(("name", "n"), VIDEO_LENGTHS + AUDIO_LENGTHS)
@given(data=st.data())
@settings(max_examples=4)
def test_stream_encode(name: str, n: int, data: st.DataObject) -> None:
    vae, x = native(name), inputs(name, "encoder", n)
    found = streamed_moments(vae, x, data.draw(cuttings(n) | st.just(singles(n))))
    assert difference(found, vae.encoder(x)) <= STREAMED


@pytest.mark.parametrize(("name", "n"), LATENT_LENGTHS)
@given(data=st.data())
@settings(max_examples=4)
def test_stream_decode(name: str, n: int, data: st.DataObject) -> None:
    vae, z = native(name), inputs(name, "decoder", n)
    pieces = reused(z, data.draw(cuttings(n) | st.just(singles(n))))
    found = torch.cat(list(vae.stream_decode(pieces, generator=torch.Generator().manual_seed(0))), 2)
    assert difference(found, whole_sample(name, z)) <= STREAMED


@given(cutting=cuttings(2 * 2048 + 1234))
@settings(max_examples=4)
def test_stable_audios_strides_stream(cutting: Cutting) -> None:
    """Pieces know nothing of 2048."""
    vae, x = native("oobleck"), inputs("oobleck", "encoder", 2 * 2048 + 1234)
    assert difference(streamed_moments(vae, x, cutting), vae.encoder(x)) <= STREAMED


def test_stable_audios_strides_stream_back() -> None:
    vae, z = native("oobleck"), inputs("oobleck", "decoder", 3)
    found = torch.cat(list(vae.stream_decode(z.split([1, 0, 2], 2))), 2)
    assert difference(found, vae.decoder(z)) <= STREAMED


@pytest.mark.parametrize("name", ["wan", "wan2_2", "oobleck", "oobleck8", "kl"])
def test_default_pieces_give_the_whole(name: str) -> None:
    vae, x, z = native(name), media(name), latent(name)
    assert difference(vae.encode(x).latent_dist.parameters, vae.encoder(x)) <= STREAMED
    assert difference(vae.decode(z).sample, whole_sample(name, z)) <= STREAMED


@pytest.mark.parametrize("axis", [HEIGHT, WIDTH])
@pytest.mark.parametrize("name", ["kl", "wan"])
@pytest.mark.parametrize("of", ["encoder", "decoder"])
@given(data=st.data())
@settings(max_examples=3)
def test_bands(name: str, of: str, axis: int, data: st.DataObject) -> None:
    """The same law on another axis: bands of rows or columns, of odd height too."""
    media_shape, latent_shape = ((17, 23), (2, 3)) if name == "kl" else ((5, 17, 23), (2, 2, 3))
    x = media(name, (1, 3, *media_shape)) if of == "encoder" else normal(1, 4, *latent_shape)
    n = x.shape[axis]
    assert_streams(half(name, of), x, axis, data.draw(cuttings(n) | st.just(singles(n))))


@pytest.mark.parametrize("axis", [HEIGHT, WIDTH])
@pytest.mark.parametrize("name", ["wan2_2", "hunyuan_video", "gamecraft_open", "ltx", "ltx1", "ltx5", "ltx2"])
@pytest.mark.parametrize("of", ["encoder", "decoder"])
def test_bands_of_few_rows(name: str, of: str, axis: int) -> None:
    """Mirrored and repeated edges too; with noise, which is drawn for whole frames, bands wait for the last."""
    shape = (3, 17, 9) if name in ("hunyuan_video", "gamecraft_open") else (1, *PIXELS["ltx"])
    x = media(name, (1, 3, *shape)) if of == "encoder" else normal(1, 4, 2, 3, 2)
    n = x.shape[axis]
    sizes = (1, 0, 5, 2, n - 8) if of == "encoder" else (1, 0, n - 1)
    found = streamed(half(name, of), x, axis, Cutting(sizes, flush=True))
    assert found is not None
    assert difference(found, half(name, of)(x)) <= STREAMED


@pytest.mark.parametrize("name", ["hunyuan_video", "gamecraft_open"])
@pytest.mark.parametrize("of", ["encoder", "decoder"])
def test_what_sees_all_frames_waits_for_all(name: str, of: str) -> None:
    """Group norms see all of time: pieces are collected, run layer by layer, and give the whole."""
    layer = half(name, of)
    x = media(name, (1, 3, 5, 8, 16)) if of == "encoder" else normal(1, 4, 3, 1, 2)
    state = None
    for piece in x.split(2, TIME):
        y, state = layer.step(piece, state, False, TIME)
        assert y is None
    y, _ = layer.step(None, state, True, TIME)
    assert difference(y, layer(x)) <= STREAMED
    assert layer.needs((0, 1), TIME) is None


@pytest.mark.parametrize("name", ["wan", "wan2_2", "ltx", "oobleck8"])
@pytest.mark.parametrize("of", ["encoder", "decoder"])
def test_length_is_the_length(name: str, of: str) -> None:
    layer, axis = half(name, of), AXIS[name]
    x = inputs(name, of, (9 if name in VIDEO else 13) if of == "encoder" else 4)[:1]
    for n in range(1 if name in VIDEO or of == "decoder" else 8, x.shape[axis] + 1):
        assert layer(x.narrow(axis, 0, n)).shape[axis] == layer.length(n, axis)


@pytest.mark.parametrize("of", ["encoder", "decoder"])
@pytest.mark.parametrize(
    ("name", "enough"), [*((name, 16 if name == "ltx" else 8) for name in VIDEO), ("oobleck8", 256)]
)
def test_state_does_not_grow(name: str, enough: int, of: str) -> None:
    """Not with the length of the stream, and not with the length of its pieces."""
    layer, axis = half(name, of), AXIS[name]
    x = inputs(name, of, enough)[:1]
    sizes = []
    for pieces in ([x], [x] * 3, [torch.cat([x] * 3, axis)]):
        state = None
        for piece in pieces:
            _, state = layer.step(piece, state, False, axis)
        sizes.append(kept_alive(state))
    assert 0 < max(sizes) <= 1.1 * sizes[0]


@pytest.mark.parametrize(
    ("name", "n", "first"),
    [("wan", 9, [1, 5, 9]), ("wan2_2", 9, [1, 5, 9]), ("ltx5", 17, [1, 9, 17]), ("oobleck8", 400, [141, 149, 157])],
)
def test_latents_come_as_soon_as_they_are_known(name: str, n: int, first: list[int]) -> None:
    """Each with the last input that it needs: a causal video's with frames 0, 4, 8, Oobleck's after a lag."""
    vae, x, axis = native(name), inputs(name, "encoder", n), AXIS[name]
    read = []

    def pieces() -> Iterator[Tensor]:
        for piece in x.split(1, 2):
            read.append(piece)
            yield piece

    came = [len(read) for posterior in vae.stream_encode(pieces()) for _ in range(posterior.mean.shape[2])]
    known = [vae.encoder.needs((k, k + 1), axis)[1] for k in range(vae.encoder.length(n, axis))]
    assert came == [min(k, n) for k in known]
    assert came[:3] == first


@pytest.mark.parametrize("name", ["ltx5", "ltx1"])
def test_frames_come_as_soon_as_they_are_known(name: str) -> None:
    """LTX's decoder looks ahead: frames come with the last latent that they need, noise or not."""
    layer, z = decoder(name), inputs(name, "decoder", 12)[:1]
    state, released, need = None, 0, layer.needs
    for n, piece in enumerate(z.split(1, 2), 1):
        y, state = layer.step(piece, state, False, TIME)
        released += 0 if y is None else y.shape[TIME]
        known = [f for f in range(layer.length(12, TIME)) if need((f, f + 1), TIME)[1] <= n]  # type: ignore[index]
        assert released == len(known)
    assert 0 < released < layer.length(12, TIME)


def test_streams_run_side_by_side() -> None:
    """Two streams of one model, taking turns, do not know of each other."""
    vae, both = native("oobleck8"), [media("oobleck8", seed=seed) for seed in (1, 2)]
    streams = [vae.stream_encode(iter(x.split(7, 2))) for x in both]
    outputs: list[list[Tensor]] = [[], []]
    while any(streams):
        for i, running in enumerate(streams):
            posterior = next(running, None) if running else None
            if posterior is None:
                streams[i] = None
            else:
                outputs[i].append(posterior.parameters)
    for x, found in zip(both, outputs, strict=True):
        assert difference(torch.cat(found, 2), vae.encoder(x)) <= STREAMED


def test_pieces_must_fit_together() -> None:
    vae, x = native("wan"), media("wan")
    for other in (x[..., :16], x[..., :8, :], x[:1]):
        with pytest.raises(InputError, match="the pieces of a stream differ along time alone") as refused:
            list(vae.stream_encode([x, other]))
        assert refused.value.found == list(other.shape)


@pytest.mark.parametrize("lengths", [[], [0], [4, 3]])
def test_a_stream_too_short_for_a_latent_says_so(lengths: list[int]) -> None:
    with pytest.raises(InputError, match="too short") as refused:
        list(native("oobleck8").stream_encode(inputs("oobleck8", "encoder", n) for n in lengths))
    assert (refused.value.expected, refused.value.found) == ("at least 8", sum(lengths))


def test_images_are_not_streamed() -> None:
    for start in (native("kl").stream_encode, native("kl").stream_decode):
        with pytest.raises(InputError, match="no axis to stream along"):
            start([])
