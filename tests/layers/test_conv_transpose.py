"""The transposed convolution: torch's own, for even and odd strides, whole and in a stream."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.layers.laws import assert_needs, assert_streams, cuttings, difference, filled, normal, singles
from vaeport.layers import SAMPLES, WeightNormConvTranspose1d

STRIDES = [1, 2, 3, 4, 8]
SHAPES = [
    *((2 * s, s, (s + 1) // 2) for s in STRIDES),
    (3, 3, 0),
    (5, 2, 0),
    (7, 2, 2),
    (8, 3, 1),
    (4, 4, 0),
    (5, 4, 1),
]
"""kernel, stride, crop: those of the published decoders, then others"""


def upsampler(kernel: int, stride: int, crop: int) -> WeightNormConvTranspose1d:
    return filled(WeightNormConvTranspose1d(2, 3, kernel, stride=stride, crop=crop))


@pytest.mark.parametrize("shape", SHAPES)
@given(n=st.integers(1, 9), data=st.data())
@settings(max_examples=12)
def test_streams(shape: tuple[int, int, int], n: int, data: st.DataObject) -> None:
    layer = upsampler(*shape)
    if layer.length(n, SAMPLES):
        assert_streams(layer, normal(2, 2, n), SAMPLES, data.draw(cuttings(n) | st.just(singles(n))))


@pytest.mark.parametrize("shape", SHAPES)
def test_needs(shape: tuple[int, int, int]) -> None:
    assert_needs(upsampler(*shape), normal(1, 2, 6), SAMPLES)


@pytest.mark.parametrize("stride", STRIDES)
def test_odd_strides_lose_a_sample(stride: int) -> None:
    layer = upsampler(2 * stride, stride, (stride + 1) // 2)
    assert [layer.length(n, SAMPLES) for n in range(5)] == [max(0, n * stride - stride % 2) for n in range(5)]


def test_one_latent_at_stride_one_gives_nothing() -> None:
    """The crop takes the only sample away, and a stream says so with None."""
    layer = upsampler(2, 1, 1)
    y, state = layer.step(normal(1, 2, 1), None, False, SAMPLES)
    assert y is None
    assert layer.step(None, state, True, SAMPLES)[0] is None


@pytest.mark.parametrize("shape", SHAPES)
def test_is_that_of_torch(shape: tuple[int, int, int]) -> None:
    kernel, stride, crop = shape
    layer, x = upsampler(*shape), normal(2, 2, 5)
    reference = nn.utils.parametrizations.weight_norm(nn.ConvTranspose1d(2, 3, kernel, stride, crop).double())
    reference.parametrizations.weight.original0.data = layer.weight_g.data
    reference.parametrizations.weight.original1.data = layer.weight_v.data
    reference.bias.data = layer.bias.data
    assert layer.weight_g.shape == (2, 1, 1), "the norm is taken per input channel"
    assert difference(layer(x), reference(x)) < 1e-14


@pytest.mark.parametrize(("kernel", "stride", "crop"), [(8, 4, 5), (4, 4, 1), (3, 4, 0)])
def test_crops_that_no_stream_can_keep_are_refused(kernel: int, stride: int, crop: int) -> None:
    with pytest.raises(ValueError, match=rf"crop \(={crop}\) must be at most stride"):
        WeightNormConvTranspose1d(2, 3, kernel, stride=stride, crop=crop)


def test_nothing_in_nothing_out() -> None:
    assert upsampler(4, 2, 1).step(None, None, True, SAMPLES) == (None, None)


def test_state_keeps_no_more_than_it_needs() -> None:
    y, (rest, _) = upsampler(8, 4, 2).step(normal(1, 2, 100), None, False, SAMPLES)
    assert y is not None
    assert rest.untyped_storage().nbytes() == 2 * 1 * 8
