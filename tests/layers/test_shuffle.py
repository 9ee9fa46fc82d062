"""Positions to channels and back: which goes where, index by index, and the laws."""

from __future__ import annotations

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.layers.laws import assert_needs, assert_streams, cuttings, kept_alive, normal, singles
from vaeport.layers import HEIGHT, TIME, WIDTH, Layer, Shuffle, Unshuffle

AXES = [TIME, HEIGHT, WIDTH]
FACTORS = [(1, 2, 2), (2, 1, 1), (2, 2, 2), (1, 3, 2), (2, 3, 1), (1, 1, 1)]


@pytest.mark.parametrize("factors", FACTORS)
@pytest.mark.parametrize("width_first", [False, True])
def test_every_position(factors: tuple[int, int, int], width_first: bool) -> None:
    t, h, w = factors
    x = normal(2, 3, 2 * t, 2 * h, 2 * w)
    y = Unshuffle(factors, width_first=width_first)(x)
    assert y.shape == (2, 3 * t * h * w, 2, 2, 2)
    for c, i, j, k in product(range(3), range(t), range(h), range(w)):
        inner = k * h + j if width_first else j * w + k
        assert torch.equal(y[:, (c * t + i) * h * w + inner], x[:, c, i::t, j::h, k::w]), (c, i, j, k)
    assert torch.equal(Shuffle(factors, width_first=width_first)(y), x)


def test_in_space_it_is_torchs() -> None:
    x = normal(2, 3, 1, 4, 6)
    assert torch.equal(Unshuffle((1, 2, 2))(x)[:, :, 0], F.pixel_unshuffle(x[:, :, 0], 2))
    y = normal(2, 12, 1, 4, 6)
    assert torch.equal(Shuffle((1, 2, 2))(y)[:, :, 0], F.pixel_shuffle(y[:, :, 0], 2))


def test_the_two_orders_differ() -> None:
    x = normal(1, 1, 1, 2, 2)
    assert not torch.equal(Unshuffle((1, 2, 2))(x), Unshuffle((1, 2, 2), width_first=True)(x))


@pytest.mark.parametrize("axis", AXES)
def test_what_fills_no_block_is_dropped(axis: int) -> None:
    x, layer = normal(1, 2, 5, 7, 5), Unshuffle((2, 3, 2))
    n = x.shape[axis] // layer.factors[axis] * layer.factors[axis]
    assert torch.equal(layer(x), layer(x.narrow(axis, 0, n)))
    assert [layer.length(i, axis) for i in range(7)] == [i // layer.factors[axis] for i in range(7)]


def test_any_memory_format() -> None:
    x = normal(2, 8, 2, 4, 4)
    last = x.to(memory_format=torch.channels_last_3d)
    for layer in (Unshuffle((2, 2, 2)), Shuffle((2, 2, 2))):
        assert torch.equal(layer(last), layer(x))


CASES: list[tuple[Layer, tuple[int, ...]]] = [
    *((Unshuffle(factors, width_first=True), (1, 2, 5, 6, 4)) for factors in ((2, 2, 2), (1, 4, 4), (2, 3, 1))),
    *((Shuffle(factors, width_first=True), (1, 24, 3, 4, 2)) for factors in ((2, 2, 2), (1, 2, 2), (2, 3, 1))),
]


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize(("layer", "shape"), CASES)
@given(data=st.data())
@settings(max_examples=6)
def test_streams(layer: Layer, shape: tuple[int, ...], axis: int, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, shape[axis]))
    assert_streams(layer, normal(*shape).narrow(axis, 0, n), axis, data.draw(cuttings(n) | st.just(singles(n))))


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize(("layer", "shape"), CASES)
def test_needs(layer: Layer, shape: tuple[int, ...], axis: int) -> None:
    assert_needs(layer, normal(*shape), axis)


def test_nothing_in_nothing_out() -> None:
    for layer in (Unshuffle((2, 2, 2)), Shuffle((2, 2, 2))):
        assert layer.step(None, None, False, TIME) == (None, None)
        assert layer.step(None, None, True, TIME) == (None, None)
        assert layer.length(0, TIME) == 0


def test_the_state_is_what_fills_no_block_yet() -> None:
    layer, x = Unshuffle((2, 1, 1)), normal(1, 3, 51, 2, 2)
    frame = x[:, :, :1].numel() * 8
    _, state = layer.step(x, None, False, TIME)
    assert kept_alive(state) == frame
    _, state = layer.step(x, state, False, TIME)
    assert kept_alive(state) == 0
