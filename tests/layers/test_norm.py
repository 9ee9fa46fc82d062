"""Norms by their formulas, and the precision in which they are done."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.normalization import RMSNorm

from tests.layers.laws import assert_needs, assert_streams, difference, filled, normal, singles
from vaeport.layers import HEIGHT, TIME, ChannelLayerNorm, ChannelRMSNorm, GroupNorm, Layer, PixelNorm


@pytest.mark.parametrize("axes", [(7,), (5, 4), (3, 5, 4)])
def test_group_norm(axes: tuple[int, ...]) -> None:
    layer, x = filled(GroupNorm(6, groups=3)), normal(2, 6, *axes)
    groups = x.view(2, 3, -1)
    unit = (groups - groups.mean(2, keepdim=True)) / (groups.var(2, correction=0, keepdim=True) + 1e-6).sqrt()
    shape = (1, 6, *(1,) * len(axes))
    expected = unit.view_as(x) * layer.weight.view(shape) + layer.bias.view(shape)
    assert difference(layer(x), expected) < 1e-13


def test_group_norm_eps_counts() -> None:
    x = 1e-3 * normal(1, 4, 9)
    assert difference(filled(GroupNorm(4, 2))(x), filled(GroupNorm(4, 2, eps=1e-5))(x)) > 1e-3


@pytest.mark.parametrize("axes", [(7,), (5, 4), (3, 5, 4)])
def test_rms_norm(axes: tuple[int, ...]) -> None:
    layer, x = filled(ChannelRMSNorm(6)), normal(2, 6, *axes)
    expected = x / x.norm(dim=1, keepdim=True) * 6**0.5 * layer.gain.view(1, 6, *(1,) * len(axes))
    assert difference(layer(x), expected) < 1e-14


def test_rms_norm_of_zeros_is_zero() -> None:
    assert filled(ChannelRMSNorm(4))(torch.zeros(1, 4, 3).double()).abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rms_norm_divides_in_float32(dtype: torch.dtype) -> None:
    """Squares of 300 overflow in half precision, and the quotient is rounded to 16 bits once."""
    layer = filled(ChannelRMSNorm(16)).to(dtype)
    x = (300 * normal(2, 16, 9)).to(dtype)
    y = layer(x)
    assert y.dtype == dtype
    unit = F.normalize(x.float(), dim=1).to(dtype)
    assert torch.equal(y, unit * (layer.gain * 4.0).view(1, -1, 1))
    assert torch.isfinite(y).all()


@pytest.mark.parametrize("axes", [(7,), (5, 4), (3, 5, 4)])
@pytest.mark.parametrize("eps", [1e-8, 0.1])
def test_pixel_norm(eps: float, axes: tuple[int, ...]) -> None:
    x = normal(2, 6, *axes)
    expected = x / (x.square().mean(1, keepdim=True) + eps).sqrt()
    assert difference(PixelNorm(eps)(x), expected) < 1e-14


def test_pixel_norm_of_zeros_is_zero() -> None:
    assert PixelNorm()(torch.zeros(1, 4, 3, dtype=torch.float64)).abs().max() == 0
    assert PixelNorm().eps == 1e-8
    assert not list(PixelNorm().parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_pixel_norm_is_that_of_diffusers_in_16_bits(dtype: torch.dtype) -> None:
    """Squares of 300 overflow in half precision; the mean is float32, and is rounded once."""
    x = (300 * normal(2, 16, 9)).to(dtype)
    y = PixelNorm()(x)
    assert y.dtype == dtype
    assert torch.isfinite(y).all()
    theirs = RMSNorm(16, eps=1e-8, elementwise_affine=False)(x.movedim(1, -1)).movedim(-1, 1)
    # theirs rounds the quotient alone, ours the divisor too
    assert (y.double() - theirs.double()).abs().max() <= 2 * torch.finfo(dtype).eps * theirs.abs().max()


@pytest.mark.parametrize("axes", [(7,), (5, 4), (3, 5, 4)])
@pytest.mark.parametrize("eps", [1e-6, 0.1])
def test_layer_norm(eps: float, axes: tuple[int, ...]) -> None:
    layer, x = filled(ChannelLayerNorm(6, eps)), normal(2, 6, *axes)
    unit = (x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + eps).sqrt()
    shape = (1, 6, *(1,) * len(axes))
    assert difference(layer(x), unit * layer.weight.view(shape) + layer.bias.view(shape)) < 1e-14


@pytest.mark.parametrize("layer", [PixelNorm(), filled(ChannelLayerNorm(4))], ids=["pixel", "layer"])
@pytest.mark.parametrize("axis", [TIME, HEIGHT])
def test_norms_of_single_positions_stream(layer: Layer, axis: int) -> None:
    x = normal(1, 4, 3, 4, 2)
    assert_streams(layer, x, axis, singles(x.shape[axis]))
    assert_needs(layer, x, axis)
