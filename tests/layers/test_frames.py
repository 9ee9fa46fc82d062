"""The start of a video: frames that are left out, and the laws."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.layers.laws import assert_needs, assert_streams, cuttings, kept_alive, normal, singles
from vaeport.layers import HEIGHT, TIME, WIDTH, Chain, DropFrames, Shuffle

AXES = [TIME, HEIGHT, WIDTH]


@pytest.mark.parametrize("count", [0, 1, 3, 5, 9])
def test_the_first_frames_are_left_out(count: int) -> None:
    x, layer = normal(2, 2, 5, 2, 2), DropFrames(count)
    assert torch.equal(layer(x), x[:, :, count:])
    assert [layer.length(n, TIME) for n in range(7)] == [max(0, n - count) for n in range(7)]
    assert layer.length(5, WIDTH) == 5


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("count", [0, 1, 3])
@given(n=st.integers(1, 6), data=st.data())
@settings(max_examples=8)
def test_streams(count: int, axis: int, n: int, data: st.DataObject) -> None:
    """Down to videos that have no more frames than are left out."""
    shape = [2, 2, 5, 2, 2]
    shape[axis] = n
    assert_streams(DropFrames(count), normal(*shape), axis, data.draw(cuttings(n) | st.just(singles(n))))


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("count", [0, 1, 3])
def test_needs(count: int, axis: int) -> None:
    assert_needs(DropFrames(count), normal(1, 2, 5, 3, 2), axis)


@given(data=st.data())
@settings(max_examples=8)
def test_behind_a_way_up(data: st.DataObject) -> None:
    """1 + 2 (n - 1) frames of n latents."""
    layer, n = Chain(unfold=Shuffle((2, 1, 1)), drop=DropFrames(1)), data.draw(st.integers(1, 5))
    assert layer.length(n, TIME) == 2 * n - 1
    assert_streams(layer, normal(1, 4, n, 1, 2), TIME, data.draw(cuttings(n) | st.just(singles(n))))


def test_nothing_is_kept_but_a_number() -> None:
    layer, state = DropFrames(2), None
    for _ in range(3):
        _, state = layer.step(normal(1, 2, 4, 2, 2), state, False, TIME)
        assert (state, kept_alive(state)) == (2, 0)
    assert layer.step(None, None, True, TIME) == (None, None)
