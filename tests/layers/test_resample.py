"""Changes of resolution: what goes where, and the laws."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.layers.laws import assert_needs, assert_streams, cuttings, normal, singles
from vaeport.layers import HEIGHT, TIME, WIDTH, ChannelsToTime, Layer, NearestUpsample, RepeatFrames

CASES: list[tuple[Layer, tuple[int, ...], int]] = [
    *((NearestUpsample(factor), (1, 2, 4, 5), axis) for factor in (2, 3) for axis in (HEIGHT, WIDTH)),
    *(
        (NearestUpsample(factors), (1, 2, 3, 4, 2), axis)
        for factors in ((1, 2, 2), (2, 2, 2), (2, 1, 1), (2, 3, 1))
        for axis in (TIME, HEIGHT, WIDTH)
    ),
    *((RepeatFrames(factor), (1, 2, 4, 3, 2), axis) for factor in (2, 3) for axis in (TIME, HEIGHT, WIDTH)),
    *((ChannelsToTime(factor), (1, 12, 4, 3, 2), axis) for factor in (2, 4) for axis in (TIME, HEIGHT, WIDTH)),
]


@pytest.mark.parametrize(("layer", "shape", "axis"), CASES)
@given(data=st.data())
@settings(max_examples=8)
def test_streams(layer: Layer, shape: tuple[int, ...], axis: int, data: st.DataObject) -> None:
    n = shape[axis]
    assert_streams(layer, normal(*shape), axis, data.draw(cuttings(n) | st.just(singles(n))))


@pytest.mark.parametrize(("layer", "shape", "axis"), CASES)
def test_needs(layer: Layer, shape: tuple[int, ...], axis: int) -> None:
    assert_needs(layer, normal(*shape), axis)


def test_nearest_repeats() -> None:
    x = normal(2, 3, 4, 5)
    assert torch.equal(NearestUpsample(2)(x), x.repeat_interleave(2, 2).repeat_interleave(2, 3))


@pytest.mark.parametrize("factors", [(1, 2, 2), (2, 2, 2), (2, 1, 1), (2, 3, 1)])
def test_each_axis_has_its_factor(factors: tuple[int, int, int]) -> None:
    x, y = normal(2, 3, 4, 2, 3), NearestUpsample(factors)
    expected = x
    for axis, factor in zip((TIME, HEIGHT, WIDTH), factors, strict=True):
        expected = expected.repeat_interleave(factor, axis)
    assert torch.equal(y(x), expected)


def test_one_factor_is_that_of_height_and_width() -> None:
    layer = NearestUpsample(3)
    assert [layer.length(2, axis) for axis in (TIME, HEIGHT, WIDTH)] == [2, 6, 6]
    assert layer.needs((3, 4), TIME) == (3, 4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_frames_are_repeated_as_the_nearest(dtype: torch.dtype) -> None:
    x = normal(2, 3, 4, 2, 3).to(dtype)
    assert torch.equal(RepeatFrames(2)(x), F.interpolate(x, scale_factor=(2.0, 1.0, 1.0), mode="nearest"))
    assert torch.equal(RepeatFrames(3)(x)[:, :, 5], x[:, :, 1])


def test_channels_become_frames() -> None:
    """With 2 frames from 6 channels, channel c of frame 2t + i is channel 3i + c of frame t."""
    x = normal(1, 6, 2, 1, 1)
    y = ChannelsToTime(2)(x)
    assert y.shape == (1, 3, 4, 1, 1)
    for t in range(2):
        for i in range(2):
            assert torch.equal(y[:, :, 2 * t + i], x[:, 3 * i : 3 * i + 3, t])
