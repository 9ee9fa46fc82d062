"""What a layer is by default, barriers, and the two ways to run a layer in pieces."""

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
    assert_local,
    assert_needs,
    assert_settles,
    assert_streams,
    cuttings,
    difference,
    filled,
    normal,
    singles,
)
from vaeport.layers import (
    HEIGHT,
    SAMPLES,
    TIME,
    WIDTH,
    Barrier,
    Chain,
    ChannelRMSNorm,
    Conv,
    FrameCausalAttention,
    GroupNorm,
    Identity,
    Layer,
    SelfAttention,
    SiLU,
    Snake,
    WeightNormConvTranspose1d,
    run_in_pieces,
    stream,
)


class Mean(Barrier):
    """A barrier that knows no shorter note than the piece."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean()


LAYERS: list[tuple[Layer, tuple[int, ...], int]] = [
    *((layer, (1, 4, 5, 4, 6), axis) for axis in (TIME, HEIGHT, WIDTH) for layer in (Identity(), SiLU())),
    *((ChannelRMSNorm(4), (1, 4, 5, 4, 6), axis) for axis in (TIME, HEIGHT, WIDTH)),
    *((GroupNorm(4, 2), (1, 4, 5, 4, 6), axis) for axis in (TIME, HEIGHT, WIDTH)),
    *((GroupNorm(4, 2), (1, 4, 5, 4), axis) for axis in (HEIGHT, WIDTH)),
    *((SelfAttention(4), (1, 4, 5, 4), axis) for axis in (HEIGHT, WIDTH)),
    (Snake(4), (1, 4, 9), SAMPLES),
    (GroupNorm(4, 2), (1, 4, 9), SAMPLES),
]
BARRIERS: list[tuple[Barrier, tuple[int, ...], int]] = [
    *((layer, shape, axis) for layer, shape, axis in LAYERS if isinstance(layer, Barrier)),
    *((FrameCausalAttention(4), (1, 4, 3, 4, 6), axis) for axis in (TIME, HEIGHT, WIDTH)),
    (Mean(), (1, 4, 5, 4), HEIGHT),
]
for _layer, _, _ in (*LAYERS, *BARRIERS):
    filled(_layer)


@pytest.mark.parametrize(("layer", "shape", "axis"), LAYERS)
@given(data=st.data())
@settings(max_examples=12)
def test_streams(layer: Layer, shape: tuple[int, ...], axis: int, data: st.DataObject) -> None:
    n = shape[axis]
    assert_streams(layer, normal(2, *shape[1:]), axis, data.draw(cuttings(n) | st.just(singles(n))))


@pytest.mark.parametrize(("layer", "shape", "axis"), LAYERS)
def test_needs(layer: Layer, shape: tuple[int, ...], axis: int) -> None:
    assert_needs(layer, normal(*shape), axis)


@pytest.mark.parametrize(("layer", "shape", "axis"), [case for case in LAYERS if not isinstance(case[0], Barrier)])
def test_is_local(layer: Layer, shape: tuple[int, ...], axis: int) -> None:
    assert_local(layer, normal(*shape), axis)


@pytest.mark.parametrize(("layer", "shape", "axis"), BARRIERS)
@given(data=st.data())
@settings(max_examples=8)
def test_barriers_settle(layer: Barrier, shape: tuple[int, ...], axis: int, data: st.DataObject) -> None:
    assert_settles(layer, normal(2, *shape[1:]), axis, data.draw(cuttings(shape[axis]) | st.just(singles(shape[axis]))))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_settled_norm_is_as_exact_as_the_norm(dtype: torch.dtype) -> None:
    """Also far from zero, where sums of squares would cancel."""
    layer = GroupNorm(64).requires_grad_(False)
    x = (normal(2, 64, 24, 16) + 30).to(dtype)
    truth = layer.double()(x.double())
    layer = layer.to(dtype)
    pieces = x.split((7, 9, 8), HEIGHT)
    found = layer.settled([layer.note(piece) for piece in pieces], HEIGHT)(x)
    assert found.dtype is dtype
    assert difference(found, truth) <= 1.5 * difference(layer(x), truth)


def test_barrier_waits_for_the_last_piece() -> None:
    layer, x = filled(GroupNorm(4, 2)), normal(1, 4, 8)
    y, state = layer.step(x[:, :, :6], None, False, SAMPLES)
    assert y is None
    y, _ = layer.step(x[:, :, 6:], state, True, SAMPLES)
    assert torch.equal(y, layer(x))
    assert layer.step(None, None, True, SAMPLES)[0] is None
    assert isinstance(layer, Barrier)
    assert layer.needs((0, 1), SAMPLES) is None


def wave() -> Chain:
    up = WeightNormConvTranspose1d(2, 3, 8, stride=4, crop=2)
    return filled(Chain(up=up, conv=Conv(3, 2, (5,), stride=2, pad=((2, 2),))))


@given(cutting=cuttings(9))
@settings(max_examples=40)
def test_stream_yields_what_is_known(cutting: Cutting) -> None:
    layer, x = wave(), normal(2, 2, 9)
    outputs = list(stream(layer, x.split(cutting.sizes, SAMPLES), SAMPLES))  # empty pieces too
    assert difference(torch.cat(outputs, SAMPLES), layer(x)) <= STREAMED


def test_stream_reads_no_further_than_it_must() -> None:
    read = []

    def pieces() -> Iterator[Tensor]:
        for i in range(6):
            read.append(i)
            yield normal(1, 2, 4, seed=i)

    outputs = stream(wave(), pieces(), SAMPLES)
    next(outputs)
    assert read == [0]


def test_stream_of_nothing() -> None:
    assert list(stream(wave(), [], SAMPLES)) == []
    assert list(stream(wave(), [normal(1, 2, 0)] * 3, SAMPLES)) == []


@given(n=st.integers(1, 30), first=st.integers(1, 35), rest=st.integers(1, 35))
@settings(max_examples=60)
def test_run_in_pieces(n: int, first: int, rest: int) -> None:
    layer, x = wave(), normal(2, 2, n)
    whole = layer(x)
    y = run_in_pieces(layer, x, SAMPLES, first, rest)
    assert difference(y, whole) <= STREAMED
    assert y.shape == whole.shape


class Liar(Layer):
    """Gives fewer outputs than it says."""

    def forward(self, x: Tensor) -> Tensor:
        return x[..., ::2]


def test_wrong_length_is_seen() -> None:
    with pytest.raises(RuntimeError, match="Liar gave 4 outputs for 8 inputs, not 8"):
        run_in_pieces(Liar(), normal(1, 1, 8), SAMPLES, 2, 2)
    with pytest.raises(RuntimeError, match="Identity gave 0 outputs for 0 inputs"):
        run_in_pieces(Identity(), normal(1, 1, 0), SAMPLES, 2, 2)
