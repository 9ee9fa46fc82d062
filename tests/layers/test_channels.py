"""Shortcuts between numbers of channels: by hand, and the laws."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings

from tests.layers.laws import Cutting, assert_needs, assert_streams, cuttings, difference, normal
from vaeport.layers import HEIGHT, TIME, WIDTH, GroupMean, Layer, RepeatChannels, SharedLogvar, TileChannels

CASES: dict[str, Layer] = {
    "mean": GroupMean(3),
    "repeat": RepeatChannels(2),
    "tile": TileChannels(2),
    "moments": SharedLogvar(5),
}


def numbered(channels: int, *axes: int) -> torch.Tensor:
    """Channel c is c everywhere."""
    return torch.arange(channels, dtype=torch.float64).view(1, -1, *(1,) * len(axes)).expand(2, channels, *axes)


def channels_of(y: torch.Tensor) -> list[float]:
    """The number in each channel of the first sample, at its first position."""
    return y[0].flatten(1)[:, 0].tolist()


@pytest.mark.parametrize("axes", [(7,), (3, 4), (2, 3, 4)])
def test_by_hand(axes: tuple[int, ...]) -> None:
    x = numbered(6, *axes)
    assert channels_of(GroupMean(3)(x)) == [0.5, 2.5, 4.5], "neighbours"
    assert channels_of(RepeatChannels(2)(x)) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert channels_of(TileChannels(2)(x)) == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5]
    assert channels_of(SharedLogvar(5)(x)) == [0, 1, 2, 3, 4, 5, 5, 5, 5, 5]
    assert {layer(x).shape for layer in CASES.values()} == {(2, n, *axes) for n in (3, 12, 10)}


def test_the_mean_is_taken_position_by_position() -> None:
    x = normal(2, 6, 3, 2, 2)
    assert difference(GroupMean(2)(x)[:, 1], (x[:, 3] + x[:, 4] + x[:, 5]) / 3) < 1e-15


def test_nothing_to_do() -> None:
    x = normal(2, 6, 3, 2, 2)
    for layer in (GroupMean(6), RepeatChannels(1), TileChannels(1)):
        assert layer(x) is x


def test_channels_that_make_no_groups() -> None:
    with pytest.raises(RuntimeError, match="don't multiply up"):
        GroupMean(4)(normal(1, 6, 2, 2, 2))
    with pytest.raises(RuntimeError, match="split_with_sizes"):
        SharedLogvar(4)(normal(1, 6, 2, 2, 2))


@pytest.mark.parametrize("axis", [TIME, HEIGHT, WIDTH])
@pytest.mark.parametrize("name", CASES)
@given(cutting=cuttings(4))
@settings(max_examples=4)
def test_streams(name: str, axis: int, cutting: Cutting) -> None:
    assert_streams(CASES[name], normal(2, 6, 4, 4, 4), axis, cutting)


@pytest.mark.parametrize("axis", [TIME, HEIGHT, WIDTH])
@pytest.mark.parametrize("name", CASES)
def test_needs(name: str, axis: int) -> None:
    assert_needs(CASES[name], normal(1, 6, 3, 4, 2), axis)
    assert CASES[name].length(5, axis) == 5
