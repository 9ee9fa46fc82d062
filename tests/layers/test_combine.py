"""The combinators: their sums and splits by hand, and the laws for branches of any delay, along every axis."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.layers.laws import (
    STREAMED,
    assert_needs,
    assert_streams,
    cuttings,
    difference,
    filled,
    kept_alive,
    normal,
    singles,
    streamed,
)
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
    stream,
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

# `needs` has one answer for "all inputs", also where frame 0 is not among them: sound, wider than what is used.
LOOSE = {("rest waits for all", TIME)}


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


@st.composite
def time_convs(draw: st.DrawFn) -> Conv:
    """Keeps the number of frames, with any delay."""
    kernel, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    before = draw(st.integers(0, (kernel - 1) * dilation))
    pad = (before, (kernel - 1) * dilation - before)
    conv = Conv(2, 2, (kernel, 1, 1), dilation=(dilation, 1, 1), pad=(pad, (0, 0), (0, 0)))
    return filled(conv, seed=draw(st.integers(0, 9)))


TREES = st.recursive(
    time_convs() | st.builds(SiLU) | st.just(filled(GroupNorm(2, 1))),
    lambda trees: (
        st.builds(Chain, trees, trees)
        | st.builds(Add, trees, trees)
        | st.builds(SplitFirst, trees, trees)
        | st.builds(PerFrame, st.builds(Identity))
    ),
    max_leaves=8,
)


@given(layer=TREES, frames=st.integers(1, 8), data=st.data())
@settings(max_examples=150)
def test_any_tree_streams(layer: Layer, frames: int, data: st.DataObject) -> None:
    assert_streams(layer, normal(1, 2, frames, 1, 1), TIME, data.draw(cuttings(frames) | st.just(singles(frames))))


@given(layer=TREES, frames=st.integers(1, 8), data=st.data())
@settings(max_examples=40)
def test_any_tree_gives_the_rest_in_parts(layer: Layer, frames: int, data: st.DataObject) -> None:
    x, cutting = normal(1, 2, frames, 1, 1), data.draw(cuttings(frames))
    whole = layer(x)
    parts = list(stream(layer, x.split(cutting.sizes, TIME), TIME))
    assert all(part.shape[TIME] > 0 for part in parts)
    assert difference(torch.cat(parts, TIME), whole) <= STREAMED


def test_the_rest_comes_in_parts_no_longer_than_a_layer_holds() -> None:
    layer, x = filled(Chain(*(wave_conv(0, 4) for _ in range(5)))), normal(1, 4, 40)
    y, state = layer.step(x, None, False, SAMPLES)
    parts = list(layer.flush(state, SAMPLES))
    assert [part.shape[2] for part in parts] == [4] * 5
    assert difference(torch.cat((y, *parts), 2), layer(x)) <= STREAMED
    assert list(layer.flush(None, SAMPLES)) == []


@given(layer=TREES)
@settings(max_examples=60)
def test_any_tree_knows_its_inputs(layer: Layer) -> None:
    """Perhaps a few too many: dilated windows have gaps, branches different holes."""
    assert_needs(layer, normal(1, 2, 7, 1, 1), TIME, tight=False)


@pytest.mark.parametrize("name", WAVES)
def test_waves_know_their_inputs(name: str) -> None:
    assert_needs(WAVES[name], normal(*WAVE), SAMPLES)


@pytest.mark.parametrize("axis", [TIME, HEIGHT, WIDTH])
@pytest.mark.parametrize("name", VIDEOS)
def test_videos_know_their_inputs(name: str, axis: int) -> None:
    assert_needs(VIDEOS[name], normal(*VIDEO), axis, tight=(name, axis) not in LOOSE)


def test_chain_is_named_or_numbered() -> None:
    assert [name for name, _ in Chain(SiLU(), Identity()).named_children()] == ["0", "1"]
    named = Chain(act=SiLU(), nothing=None, last=Identity())
    assert [name for name, _ in named.named_children()] == ["act", "last"]
    assert [type(layer) for layer in named.layers] == [SiLU, Identity]


def test_chain_applies_its_layers_in_order() -> None:
    first, second, x = filled(wave_conv(0, 0)), filled(wave_conv(2, 2, stride=2), seed=1), normal(*WAVE)
    assert torch.equal(Chain(first, second)(x), second(first(x)))


def test_add_is_the_sum() -> None:
    main, shortcut, x = filled(wave_conv(2, 2)), filled(wave_conv(0, 0, kernel=1), seed=1), normal(*WAVE)
    assert torch.equal(Add(main, shortcut)(x), main(x) + shortcut(x))


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("frames", range(1, 7))
def test_split_first_by_hand(frames: int, shared: bool) -> None:
    rest, x = filled(time_conv(stride=2)), normal(1, 4, frames, 2, 2)
    seen = x if shared else x[:, :, 1:]
    expected = [-x[:, :, :1]] + ([rest(seen)] if seen.shape[2] >= 3 else [])
    layer = SplitFirst(Negative(), rest, shared=shared)
    assert torch.equal(layer(x), torch.cat(expected, 2))
    assert layer.length(frames, TIME) == sum(y.shape[2] for y in expected)


def test_split_first_of_nothing() -> None:
    layer = SplitFirst(Identity(), filled(time_conv(before=2)))
    assert layer.length(0, TIME) == 0
    assert layer.step(None, None, True, TIME) == (None, None)


def test_rest_of_one_frame_is_nothing() -> None:
    """Padding alone makes no frames, though this window would fit into it."""
    rest = filled(Conv(4, 4, (3, 1, 1), pad=((2, 1), (0, 0), (0, 0))))
    x = normal(1, 4, 1, 2, 2)
    assert torch.equal(SplitFirst(Identity(), rest)(x), x)
    assert_streams(SplitFirst(Identity(), rest), x, TIME, singles(1))


def test_per_frame_is_each_frame_alone() -> None:
    layer, x = filled(Chain(norm=group_norm(4), conv=image_conv())), normal(2, 4, 3, 4, 5)
    expected = torch.stack([layer(x[:, :, t]) for t in range(3)], 2)
    assert difference(PerFrame(layer)(x), expected) < 1e-14


def test_per_frame_lets_frames_go_at_once() -> None:
    """Attention over a frame waits for bands of it, not for other frames."""
    layer, x = VIDEOS["attention per frame"], normal(1, 4, 2, 4, 4)
    y, _ = layer.step(x, None, False, TIME)
    assert y is not None
    assert y.shape == x.shape
    assert layer.step(x, None, False, HEIGHT)[0] is None


@pytest.mark.parametrize("name", ["nested", "chain", "one is ahead and behind"])
def test_steps_leave_their_input_and_each_other_alone(name: str) -> None:
    """Two streams of one layer do not meet: nothing is stored in it, and no input is written to."""
    layer, x = WAVES[name], normal(*WAVE)
    again = x.clone()
    _, one = layer.step(x[:, :, :7], None, False, SAMPLES)
    _, other = layer.step(x[:, :, :7], None, False, SAMPLES)
    streamed(layer, normal(1, 4, 9, seed=5), SAMPLES, singles(9))
    y1, _ = layer.step(x[:, :, 7:], one, True, SAMPLES)
    y2, _ = layer.step(x[:, :, 7:], other, True, SAMPLES)
    assert torch.equal(y1, y2)
    assert torch.equal(x, again)


def test_a_stream_replaces_its_states_one_by_one() -> None:
    """All old states next to all new ones would double the memory of a stream."""
    layer, x = WAVES["chain"], normal(*WAVE)
    _, state = layer.step(x[:, :, :7], None, False, SAMPLES)
    assert layer.step(x[:, :, 7:], state, False, SAMPLES)[1] is state


@pytest.mark.parametrize("name", ["main is behind", "shortcut is behind", "nested", "residual"])
def test_state_does_not_grow_with_the_pieces(name: str) -> None:
    """The branch that waits keeps what it waits with, not the piece it was cut from."""
    sizes = [kept_alive(WAVES[name].step(normal(1, 4, n), None, False, SAMPLES)[1]) for n in (100, 1000)]
    assert sizes[0] == sizes[1] > 0


class Negative(Layer):
    """y = -x, to tell frame 0 from the others."""

    def forward(self, x: Tensor) -> Tensor:
        return -x
