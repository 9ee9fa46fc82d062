"""A first frame alone: the same function with one tap, and the laws."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.layers.laws import (
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
from vaeport.kernels.single_frame import SingleFrame
from vaeport.layers import HEIGHT, TIME, WIDTH, Conv

SAME, CAUSAL = (1, 1), (2, 0)
CONVS = [
    Conv(3, 2, (3, 3, 3), pad=(CAUSAL, SAME, SAME)),
    Conv(3, 2, (2, 3, 1), pad=((1, 0), (0, 1), (0, 0)), bias=False),
    Conv(3, 2, (3, 3, 3), pad=((4, 0), SAME, SAME), dilation=(2, 1, 1), stride=(1, 2, 1)),
]


@pytest.mark.parametrize("conv", CONVS)
@pytest.mark.parametrize("n", [1, 2, 4])
def test_is_the_convolution(conv: Conv, n: int) -> None:
    assert SingleFrame.serves(conv)
    x = normal(2, 3, n, 5, 4)
    assert difference(SingleFrame.of(filled(conv))(x), conv(x)) <= 1e-12
    pieces = streamed(SingleFrame.of(conv), x, TIME, singles(n))
    assert pieces is not None
    assert difference(pieces, conv(x)) <= 1e-12


@pytest.mark.parametrize("conv", CONVS)
@pytest.mark.parametrize("axis", [TIME, HEIGHT, WIDTH])
@pytest.mark.parametrize("frames", [1, 4])
@given(data=st.data())
@settings(max_examples=8)
def test_streams(conv: Conv, axis: int, frames: int, data: st.DataObject) -> None:
    x = normal(1, 3, frames, 5, 4)
    n = x.shape[axis]
    assert_streams(SingleFrame.of(filled(conv)), x, axis, data.draw(cuttings(n) | st.just(singles(n))))


@pytest.mark.parametrize("conv", CONVS)
@pytest.mark.parametrize("axis", [HEIGHT, WIDTH])
def test_needs(conv: Conv, axis: int) -> None:
    assert_needs(SingleFrame.of(filled(conv)), normal(1, 3, 1, 5, 4), axis, tight=conv.stride == (1, 1, 1))


def test_one_tap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole and as the first piece of a stream; the state is as large as the convolution's own."""
    seen: list[int] = []
    flat = torch.nn.functional.conv2d

    def conv2d(x: torch.Tensor, weight: torch.Tensor, *args: Any) -> torch.Tensor:
        seen.append(weight.shape[1])
        return flat(x, weight, *args)

    monkeypatch.setattr("torch.nn.functional.conv2d", conv2d)
    conv = filled(CONVS[0])
    layer, x = SingleFrame.of(conv), normal(1, 3, 1, 5, 4)
    layer(x)
    _, state = layer.step(x, None, False, TIME)
    assert seen == [3, 3]
    assert kept_alive(state) == kept_alive(conv.step(x, None, False, TIME)[1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bits(dtype: torch.dtype) -> None:
    """Nothing is rounded before the products are: within two units of the type, as the convolution itself."""
    conv, x = filled(CONVS[0]), normal(1, 3, 1, 5, 4)
    exact = conv(x)
    found = SingleFrame.of(conv).to(dtype)(x.to(dtype))
    assert found.dtype is dtype
    assert difference(found.double(), exact) <= 4 * torch.finfo(dtype).eps


def test_gradients() -> None:
    conv = filled(CONVS[0])
    found = []
    for layer in (conv, SingleFrame.of(conv)):
        x = normal(1, 3, 1, 4, 5).requires_grad_()
        layer.zero_grad()
        layer.requires_grad_(True)(x).square().sum().backward()
        found.append((x.grad, conv.weight.grad.clone()))
    for a, b in zip(*found, strict=True):
        assert difference(a, b) <= 1e-12


def test_others_are_not_served() -> None:
    for conv in (
        Conv(3, 2, (3, 3), pad=(SAME, SAME)),
        Conv(3, 2, (1, 3, 3), pad=((0, 0), SAME, SAME)),
        Conv(3, 2, (3, 3, 3), pad=(SAME, SAME, SAME)),
        Conv(3, 2, (3, 3, 3), pad=(CAUSAL, SAME, SAME), stride=2),
        Conv(3, 2, (3, 3, 3)),
    ):
        assert not SingleFrame.serves(conv)
