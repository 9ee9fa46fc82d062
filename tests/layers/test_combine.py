"""The combinators: their sums and splits by hand, and the laws for branches of any delay, along every axis."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.layers.laws import assert_needs, assert_streams, cuttings, difference, filled, normal, singles, streamed
from vaeport.layers import (
    HEIGHT,
    SAMPLES,
    TIME,
    WIDTH,
    Add,
    Chain,
    ChannelRMSNorm,
    ChannelsToTime,
    Conv,
    GroupNorm,
    Identity,
    Layer,
    NearestUpsample,
    PerFrame,
    SiLU,
    SplitFirst,
    WeightNormConvTranspose1d,
    attention_block,
    residual_block,
)

VIDEO = (1, 4, 6, 6, 4)
WAVE = (1, 4, 12)


def wave_conv(before: int, after: int, kernel: int = 5, *, stride: int = 1) -> Conv:
    return Conv(4, 4, (kernel,), stride=stride, pad=((before, after),))


def video_conv(channels: int = 4, out_channels: int = 4, kernel: int = 3) -> Conv:
    half = kernel // 2
    return Conv(channels, out_channels, (kernel,) * 3, pad=((kernel - 1, 0), (half, half), (half, half)))


def image_conv(stride: int = 1) -> Conv:
    return Conv(4, 4, (3, 3), stride=stride, pad=((1, 1) if stride == 1 else (0, 1),) * 2)


def time_conv(width: int = 4, *, stride: int = 1, before: int = 0) -> Conv:
    return Conv(4, width, (3, 1, 1), stride=(stride, 1, 1), pad=((before, 0), (0, 0), (0, 0)))


def group_norm(channels: int) -> GroupNorm:
    return GroupNorm(channels, 2)


def doubled() -> Chain:
    return Chain(conv=time_conv(8, before=2), pairs=ChannelsToTime(2))


WAVES: dict[str, Layer] = {
    "chain": Chain(wave_conv(2, 2), SiLU(), wave_conv(1, 3), wave_conv(4, 0, stride=2)),
    "empty chain": Chain(),
    "up and down": Chain(
        WeightNormConvTranspose1d(4, 4, 6, stride=3, crop=1), wave_conv(0, 3), wave_conv(1, 1, stride=3)
    ),
    "main is behind": Add(wave_conv(0, 4), Identity()),
    "shortcut is behind": Add(wave_conv(4, 0), wave_conv(1, 3)),
    "one is ahead and behind": Add(Chain(wave_conv(4, 0), wave_conv(0, 4)), wave_conv(2, 2)),
    "both halve": Add(wave_conv(2, 2, stride=2), wave_conv(0, 0, kernel=1, stride=2)),
    "main waits for all": Add(Chain(group_norm(4), wave_conv(2, 2)), wave_conv(2, 2)),
    "shortcut waits for all": Add(wave_conv(0, 4), group_norm(4)),
    "nested": Add(Add(wave_conv(0, 4), wave_conv(4, 0)), Add(Identity(), Chain(wave_conv(1, 3), wave_conv(0, 4)))),
    "residual": residual_block(4, 4, ChannelRMSNorm, lambda a, b, k: Conv(a, b, (k,), pad=((k // 2, k // 2),))),
}
VIDEOS: dict[str, Layer] = {
    "residual, wider": residual_block(4, 8, ChannelRMSNorm, video_conv),
    "residual, group norm": residual_block(4, 4, group_norm, video_conv),
    "first frame apart": SplitFirst(Identity(), time_conv(before=2)),
    "first frame shared": SplitFirst(Identity(), time_conv(stride=2), shared=True),
    "first frame doubles not": SplitFirst(Identity(), doubled()),
    "first frame sees more": SplitFirst(PerFrame(image_conv()), video_conv()),
    "rest sees more": SplitFirst(Identity(), Chain(video_conv(), video_conv()), shared=False),
    "rest waits for all": SplitFirst(PerFrame(image_conv()), Chain(group_norm(4), video_conv())),
    "split twice": Chain(
        SplitFirst(Identity(), time_conv(stride=2), shared=True), video_conv(), SplitFirst(Identity(), doubled())
    ),
    "per frame": PerFrame(Chain(nearest=NearestUpsample(2), conv=image_conv(), down=image_conv(stride=2))),
    "per frame, halved": Chain(PerFrame(image_conv(stride=2)), video_conv()),
    "attention per frame": PerFrame(attention_block(4, ChannelRMSNorm)),
}
for _catalogue in (WAVES, VIDEOS):
    for _layer in _catalogue.values():
        filled(_layer)

# The hull of a band that has a hole in the middle, or of padding between two layers, is wider than what is used.
LOOSE = {"both halve"}


@pytest.mark.parametrize("name", WAVES)
@given(n=st.integers(4, 12), data=st.data())
@settings(max_examples=15)
def test_waves_stream(name: str, n: int, data: st.DataObject) -> None:
    x = normal(2, 4, n)
    assert_streams(WAVES[name], x, SAMPLES, data.draw(cuttings(n) | st.just(singles(n))))


@pytest.mark.parametrize("axis", [TIME, HEIGHT, WIDTH])
@pytest.mark.parametrize("name", VIDEOS)
@given(frames=st.integers(1, 6), data=st.data())
@settings(max_examples=15)
def test_videos_stream(name: str, axis: int, frames: int, data: st.DataObject) -> None:
    x = normal(2, 4, frames, 6, 4)
    n = x.shape[axis]
    assert_streams(VIDEOS[name], x, axis, data.draw(cuttings(n) | st.just(singles(n))))


@pytest.mark.parametrize("name", WAVES)
def test_waves_know_their_inputs(name: str) -> None:
    assert_needs(WAVES[name], normal(*WAVE), SAMPLES)


@pytest.mark.parametrize("axis", [TIME, HEIGHT, WIDTH])
@pytest.mark.parametrize("name", VIDEOS)
def test_videos_know_their_inputs(name: str, axis: int) -> None:
    assert_needs(VIDEOS[name], normal(*VIDEO), axis)
