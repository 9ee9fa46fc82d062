"""Layers for the CPU: the same functions as those whose place they take."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.layers.laws import assert_needs, assert_streams, cuttings, difference, filled, normal, singles
from vaeport.kernels.cpu import CausalConv, SummedRMSNorm
from vaeport.layers import HEIGHT, TIME, WIDTH, ChannelRMSNorm, Conv

CAUSAL = ((2, 0), (1, 1), (1, 1))


@pytest.fixture(autouse=True)
def _small_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaeport.kernels.kept.LEAST", 0)


@pytest.mark.parametrize("axis", [TIME, HEIGHT, WIDTH])
@pytest.mark.parametrize("frames", [1, 2, 5])
@given(data=st.data())
@settings(max_examples=8)
def test_convolution_streams(axis: int, frames: int, data: st.DataObject) -> None:
    conv = filled(Conv(3, 2, (3, 3, 3), pad=CAUSAL))
    layer, x = CausalConv.of(conv), normal(1, 3, frames, 5, 4)
    n = x.shape[axis]
    assert_streams(layer, x, axis, data.draw(cuttings(n) | st.just(singles(n))))
    assert difference(layer(x), conv(x)) <= 1e-12


@pytest.mark.parametrize("axis", [TIME, HEIGHT, WIDTH])
def test_convolution_needs(axis: int) -> None:
    assert_needs(CausalConv.of(filled(Conv(3, 2, (3, 3, 3), pad=CAUSAL))), normal(1, 3, 5, 3, 3), axis)


def test_one_frame_takes_one_tap_and_two_take_four(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    flat = F.conv2d
    monkeypatch.setattr(F, "conv2d", lambda *args, **kwargs: calls.append(args[1].shape[1]) or flat(*args, **kwargs))
    layer = CausalConv.of(filled(Conv(3, 2, (3, 3, 3), pad=CAUSAL)))
    for frames, expected in ((1, [3]), (2, [3] * 4), (3, [3] * 4 + [9])):
        calls.clear()
        layer(normal(1, 3, frames, 4, 4))
        assert calls == expected


def test_convolution_serves() -> None:
    assert CausalConv.serves(Conv(32, 32, (3, 3, 3), pad=CAUSAL))
    assert not CausalConv.serves(Conv(32, 32, (3, 3, 3), pad=((1, 1), (1, 1), (1, 1))))
    assert not CausalConv.serves(Conv(32, 3, (3, 3, 3), pad=CAUSAL))


@pytest.mark.parametrize("shape", [(2, 6, 3), (2, 6, 3, 4), (2, 6, 3, 4, 5)])
def test_norm(shape: tuple[int, ...]) -> None:
    norm, x = filled(ChannelRMSNorm(6)), normal(*shape)
    x[0, :, 1] = 0
    before, fast = x.clone(), SummedRMSNorm.of(norm)
    assert SummedRMSNorm.serves(norm)
    assert difference(fast(x), norm(x)) <= 1e-12
    assert torch.equal(x, before)
    assert difference(fast(1e-14 * x), norm(1e-14 * x)) <= 1e-12
    assert_streams(fast, x, -1, singles(shape[-1]))
    assert_needs(fast, x[:1], -1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_norm_leaves_16_bits_alone(dtype: torch.dtype) -> None:
    norm, x = filled(ChannelRMSNorm(6)).to(dtype), normal(2, 6, 3, 4).to(dtype)
    assert torch.equal(SummedRMSNorm.of(norm)(x), norm(x))


def test_norm_gives_gradients() -> None:
    norm = filled(ChannelRMSNorm(6)).requires_grad_(True)
    found = []
    for layer in (norm, SummedRMSNorm.of(norm)):
        norm.zero_grad()
        layer(normal(2, 6, 3, 4)).square().sum().backward()
        assert norm.gain.grad is not None
        found.append(norm.gain.grad.clone())
    assert torch.equal(*found)


def test_norm_rounds_no_worse_in_float32() -> None:
    norm, x = filled(ChannelRMSNorm(96)), normal(1, 96, 4, 16, 16)
    exact, narrow = norm(x), norm.float()
    plain, fast = (difference(layer(x.float()).double(), exact) for layer in (narrow, SummedRMSNorm.of(narrow)))
    assert fast <= 1.1 * plain
