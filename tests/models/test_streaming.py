"""Whole models: streamed equals whole along every axis, and memory follows the reach, not the length."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.layers.laws import STREAMED, Cutting, assert_streams, cuttings, difference, kept_alive, normal, singles
from tests.narrow import latent, media, native
from vaeport.errors import InputError
from vaeport.layers import HEIGHT, SAMPLES, TIME, WIDTH
from vaeport.vae import VAE

AXIS = {"wan": TIME, "oobleck": SAMPLES, "oobleck8": SAMPLES}
VIDEO_LENGTHS = [("wan", n) for n in (1, 2, 4, 5, 6, 7, 9)]
AUDIO_LENGTHS = [("oobleck8", n) for n in (8, 61, 95)]
LATENT_LENGTHS = [("wan", 1), ("wan", 2), ("wan", 4), ("oobleck8", 1), ("oobleck8", 2), ("oobleck8", 12)]


def inputs(name: str, half: str, n: int) -> Tensor:
    """Of length n along the streamed axis, with a second sample, small along the other axes."""
    if half == "encoder":
        return media(name, (2, 3, n, 8, 16) if name == "wan" else (2, 2, n))
    return normal(2, 4, n, 1, 2) if name == "wan" else normal(2, 8, n)


def reused(x: Tensor, cutting: Cutting) -> Iterator[Tensor]:
    """Pieces from one buffer that is overwritten once a piece was taken, as a file reader's may be."""
    buffer = torch.empty_like(x)
    for piece in x.split(cutting.sizes, 2):
        yield buffer[:, :, : piece.shape[2]].copy_(piece)
        buffer.fill_(torch.nan)


def streamed_moments(vae: VAE, x: Tensor, cutting: Cutting) -> Tensor:
    return torch.cat([posterior.parameters for posterior in vae.stream_encode(reused(x, cutting))], 2)


def whole_sample(vae: VAE, z: Tensor) -> Tensor:
    y = vae.decoder(z)
    return y if vae.contract.clamp is None else y.clamp(*vae.contract.clamp)


@pytest.mark.parametrize(("name", "n"), VIDEO_LENGTHS + AUDIO_LENGTHS)
@given(data=st.data())
@settings(max_examples=6)
def test_stream_encode(name: str, n: int, data: st.DataObject) -> None:
    vae, x = native(name), inputs(name, "encoder", n)
    found = streamed_moments(vae, x, data.draw(cuttings(n) | st.just(singles(n))))
    assert difference(found, vae.encoder(x)) <= STREAMED


@pytest.mark.parametrize(("name", "n"), LATENT_LENGTHS)
@given(data=st.data())
@settings(max_examples=6)
def test_stream_decode(name: str, n: int, data: st.DataObject) -> None:
    vae, z = native(name), inputs(name, "decoder", n)
    pieces = reused(z, data.draw(cuttings(n) | st.just(singles(n))))
    found = torch.cat(list(vae.stream_decode(pieces)), 2)
    assert difference(found, whole_sample(vae, z)) <= STREAMED


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


@pytest.mark.parametrize("name", ["wan", "oobleck", "oobleck8", "kl"])
def test_default_pieces_give_the_whole(name: str) -> None:
    vae, x, z = native(name), media(name), latent(name)
    assert difference(vae.encode(x).latent_dist.parameters, vae.encoder(x)) <= STREAMED
    assert difference(vae.decode(z).sample, whole_sample(vae, z)) <= STREAMED


@pytest.mark.parametrize("axis", [HEIGHT, WIDTH])
@pytest.mark.parametrize("name", ["kl", "wan"])
@pytest.mark.parametrize("half", ["encoder", "decoder"])
@given(data=st.data())
@settings(max_examples=3)
def test_bands(name: str, half: str, axis: int, data: st.DataObject) -> None:
    """The same law on another axis: bands of rows or columns, of odd height too."""
    media_shape, latent_shape = ((17, 23), (2, 3)) if name == "kl" else ((5, 17, 23), (2, 2, 3))
    x = media(name, (1, 3, *media_shape)) if half == "encoder" else normal(1, 4, *latent_shape)
    n = x.shape[axis]
    assert_streams(getattr(native(name), half), x, axis, data.draw(cuttings(n) | st.just(singles(n))))


@pytest.mark.parametrize("name", ["wan", "oobleck8"])
@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_length_is_the_length(name: str, half: str) -> None:
    layer, axis = getattr(native(name), half), AXIS[name]
    x = inputs(name, half, 13 if half == "encoder" else 4)
    for n in range(1 if name == "wan" or half == "decoder" else 8, x.shape[axis] + 1):
        assert layer(x.narrow(axis, 0, n)).shape[axis] == layer.length(n, axis)


@pytest.mark.parametrize("half", ["encoder", "decoder"])
@pytest.mark.parametrize(("name", "enough"), [("wan", 8), ("oobleck8", 256)])
def test_state_does_not_grow(name: str, enough: int, half: str) -> None:
    """Not with the length of the stream, and not with the length of its pieces."""
    layer, axis = getattr(native(name), half), AXIS[name]
    x = inputs(name, half, enough)
    sizes = []
    for pieces in ([x], [x] * 3, [torch.cat([x] * 3, axis)]):
        state = None
        for piece in pieces:
            _, state = layer.step(piece, state, False, axis)
        sizes.append(kept_alive(state))
    assert max(sizes) <= 1.1 * sizes[0]


@pytest.mark.parametrize(("name", "n"), [("wan", 9), ("oobleck8", 400)])
def test_latents_come_as_soon_as_they_are_known(name: str, n: int) -> None:
    """Each with the last input that it needs: Wan's with frames 0, 4, 8, Oobleck's after a lag."""
    vae, x, axis = native(name), inputs(name, "encoder", n), AXIS[name]
    read = []

    def pieces() -> Iterator[Tensor]:
        for piece in x.split(1, 2):
            read.append(piece)
            yield piece

    came = [len(read) for posterior in vae.stream_encode(pieces()) for _ in range(posterior.mean.shape[2])]
    known = [vae.encoder.needs((k, k + 1), axis)[1] for k in range(vae.encoder.length(n, axis))]
    assert came == [min(k, n) for k in known]
    assert came[:3] == ([1, 5, 9] if name == "wan" else [141, 149, 157])


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
