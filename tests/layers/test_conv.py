"""Convolutions: the formula, every window in a stream, weight norm."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.layers.laws import assert_needs, assert_streams, cuttings, difference, filled, normal, singles
from vaeport.layers import HEIGHT, SAMPLES, TIME, WIDTH, Conv, WeightNormConv

WINDOWS = st.fixed_dictionaries(
    {
        "kernel": st.integers(1, 5),
        "stride": st.integers(1, 6),
        "dilation": st.integers(1, 4),
        "pad": st.tuples(st.integers(0, 5), st.integers(0, 5)),
    }
)
N = 12


def conv1d(kernel: int, stride: int, dilation: int, pad: tuple[int, int], kind: type[Conv] = Conv) -> Conv:
    return filled(kind(2, 3, (kernel,), stride=stride, dilation=dilation, pad=(pad,)))


def video_conv(stride: int = 1) -> Conv:
    return filled(Conv(2, 3, (3, 2, 3), stride=(stride, 2, 1), dilation=(1, 2, 1), pad=((2, 0), (0, 1), (1, 2))))


@given(WINDOWS, st.integers(1, N), st.data())
@settings(max_examples=300)
def test_any_window_streams(window: dict[str, int], n: int, data: st.DataObject) -> None:
    layer = conv1d(**window)
    if layer.length(n, SAMPLES):
        assert_streams(layer, normal(2, 2, n), SAMPLES, data.draw(cuttings(n) | st.just(singles(n))))


@given(WINDOWS)
@settings(max_examples=100)
def test_any_window_knows_its_inputs(window: dict[str, int]) -> None:
    layer = conv1d(**window)
    if layer.length(N, SAMPLES):
        assert_needs(layer, normal(1, 2, N), SAMPLES, tight=window["dilation"] == 1 and window["pad"] == (0, 0))


@pytest.mark.parametrize("axis", [TIME, HEIGHT, WIDTH])
@pytest.mark.parametrize("stride", [1, 2])
@given(data=st.data())
@settings(max_examples=30)
def test_streams_along_every_axis(axis: int, stride: int, data: st.DataObject) -> None:
    x = normal(2, 2, 6, 7, 8)
    assert_streams(video_conv(stride), x, axis, data.draw(cuttings(x.shape[axis])))


@pytest.mark.parametrize("axis", [TIME, HEIGHT, WIDTH])
def test_needs_along_every_axis(axis: int) -> None:
    assert_needs(video_conv(), normal(1, 2, 5, 6, 6), axis, tight=axis != HEIGHT)  # dilated in height


@pytest.mark.parametrize("n", range(1, N))
def test_too_short_gives_nothing(n: int) -> None:
    layer = conv1d(kernel=4, stride=2, dilation=3, pad=(1, 2))
    outputs = layer.length(n, SAMPLES)
    assert outputs == max(0, (n + 3 - 10) // 2 + 1)
    if outputs == 0:
        for last in (False, True):
            assert layer.step(normal(1, 2, n), None, last, SAMPLES)[0] is None


def test_nothing_in_nothing_out() -> None:
    layer = conv1d(kernel=2, stride=1, dilation=1, pad=(2, 3))
    assert layer.length(0, SAMPLES) == 0
    assert layer.step(None, None, True, SAMPLES) == (None, None)


def test_formula() -> None:
    """y[o] = bias + sum_k weight[k] * x[o * stride - before + k * dilation], written out."""
    layer, x = conv1d(kernel=3, stride=2, dilation=2, pad=(3, 1)), normal(1, 2, 9)
    padded = {i - 3: x[0, :, i - 3] if 0 <= i - 3 < 9 else torch.zeros(2).double() for i in range(13)}
    expected = [layer.bias + sum(layer.weight[:, :, k] @ padded[o * 2 - 3 + k * 2] for k in range(3)) for o in range(5)]
    assert difference(layer(x)[0], torch.stack(expected, 1)) < 1e-14


def test_zeros_on_one_side_only() -> None:
    layer, x = filled(Conv(2, 2, (3, 3), stride=2, pad=((0, 1), (0, 1)))), normal(1, 2, 6, 7)
    expected = F.conv2d(F.pad(x, (0, 1, 0, 1)), layer.weight, layer.bias, 2)
    assert difference(layer(x), expected) < 1e-14


def test_no_bias() -> None:
    layer = filled(Conv(2, 3, (3,), pad=((1, 1),), bias=False))
    assert [name for name, _ in layer.named_parameters()] == ["weight"]
    assert layer(torch.zeros(1, 2, 4).double()).abs().max() == 0
    assert_streams(layer, normal(1, 2, 4), SAMPLES, singles(4))


@given(WINDOWS, st.data())
@settings(max_examples=30)
def test_weight_norm_streams(window: dict[str, int], data: st.DataObject) -> None:
    layer = conv1d(**window, kind=WeightNormConv)
    if layer.length(N, SAMPLES):
        assert_streams(layer, normal(2, 2, N), SAMPLES, data.draw(cuttings(N)))


def test_weight_norm_is_that_of_torch() -> None:
    reference = nn.utils.parametrizations.weight_norm(nn.Conv1d(2, 3, 5, dilation=2, padding=4).double())
    layer = filled(WeightNormConv(2, 3, (5,), dilation=2, pad=((4, 4),)))
    reference.parametrizations.weight.original0.data = layer.weight_g.data
    reference.parametrizations.weight.original1.data = layer.weight_v.data
    reference.bias.data = layer.bias.data
    assert {name: tuple(p.shape) for name, p in layer.named_parameters()} == {
        "weight_g": (3, 1, 1),
        "weight_v": (3, 2, 5),
        "bias": (3,),
    }
    assert difference(layer(normal(2, 2, 11)), reference(normal(2, 2, 11))) < 1e-14


def test_weight_norm_starts_at_its_weight() -> None:
    layer = WeightNormConv(2, 3, (5,))
    assert torch.allclose(layer.kernel_weight(), layer.weight_v, rtol=1e-6)


def test_state_keeps_no_more_than_it_needs() -> None:
    """Neither the piece nor the padded buffer stays alive, whatever the length of the pieces."""
    layer = conv1d(kernel=5, stride=2, dilation=2, pad=(4, 4))
    for n in (200, 201):
        _, (rest, _) = layer.step(normal(1, 2, n), None, False, SAMPLES)
        assert rest.untyped_storage().nbytes() <= 2 * 9 * 8
