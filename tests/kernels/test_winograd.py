"""Minimal filtering: the same function as the convolution, and the laws."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.layers.laws import assert_local, assert_needs, assert_streams, cuttings, difference, filled, normal, singles
from vaeport.kernels.winograd import MinimalConv
from vaeport.layers import HEIGHT, TIME, WIDTH, Conv, WeightNormConv

SAME, CAUSAL = (1, 1), (2, 0)
CASES: list[tuple[Conv, tuple[int, ...], int]] = [
    *((Conv(3, 2, (3, 3), pad=(SAME, SAME)), (1, 3, 5, 4), axis) for axis in (HEIGHT, WIDTH)),
    *((Conv(3, 2, (3, 2), pad=((0, 1), (1, 0)), bias=False), (1, 3, 6, 4), axis) for axis in (HEIGHT, WIDTH)),
    *((Conv(3, 2, (3, 3, 3), pad=(CAUSAL, SAME, SAME)), (1, 3, 5, 3, 2), axis) for axis in (TIME, HEIGHT, WIDTH)),
    *((Conv(3, 2, (3, 1, 1), pad=(SAME, (0, 0), (0, 0))), (1, 3, 4, 3, 2), axis) for axis in (TIME, HEIGHT, WIDTH)),
    *((Conv(3, 2, (3, 3, 2), pad=((0, 0), (0, 1), SAME)), (1, 3, 6, 3, 3), axis) for axis in (TIME, HEIGHT, WIDTH)),
]


@pytest.fixture(autouse=True)
def _small_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaeport.kernels.kept.LEAST", 0)


@pytest.mark.parametrize(("conv", "shape", "axis"), CASES)
@pytest.mark.parametrize("n", [2, 3, 4, 7])
def test_is_the_convolution(conv: Conv, shape: tuple[int, ...], axis: int, n: int) -> None:
    x = normal(2, *shape[1 : axis + len(shape)], n, *shape[axis + len(shape) + 1 :])
    if conv.length(n, axis):
        assert difference(MinimalConv.of(filled(conv))(x), conv(x)) <= 1e-12


@pytest.mark.parametrize(("conv", "shape", "axis"), CASES)
@given(data=st.data())
@settings(max_examples=8)
def test_streams(conv: Conv, shape: tuple[int, ...], axis: int, data: st.DataObject) -> None:
    n = shape[axis]
    assert_streams(MinimalConv.of(filled(conv)), normal(*shape), axis, data.draw(cuttings(n) | st.just(singles(n))))


@pytest.mark.parametrize(("conv", "shape", "axis"), CASES)
def test_needs(conv: Conv, shape: tuple[int, ...], axis: int) -> None:
    layer = MinimalConv.of(filled(conv))
    assert_needs(layer, normal(*shape), axis)
    if not (axis == -len(conv.kernel) and conv.pad[axis][0] == 0):
        assert_local(layer, normal(*shape), axis)


@pytest.mark.parametrize(
    ("conv", "shape", "expected"),
    [
        (Conv(3, 2, (3, 3, 3), pad=(CAUSAL, SAME, SAME)), (1, 3, 9, 5, 6), [(4, 3, 5, 6)] * 4 + [(1, 9, 5, 6)]),
        (Conv(3, 2, (3, 3), pad=(SAME, SAME)), (1, 3, 10, 6), [(1, 3, 2, 6)] * 6 + [(1, 3, 1, 6)] * 4),
    ],
)
def test_it_multiplies_less(
    conv: Conv, shape: tuple[int, ...], expected: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four products for two frames, six for four rows."""
    seen: list[tuple[int, ...]] = []
    flat = torch.nn.functional.conv2d

    def conv2d(x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        seen.append(tuple(x.shape))
        return flat(x, *args, **kwargs)

    monkeypatch.setattr("torch.nn.functional.conv2d", conv2d)
    MinimalConv.of(filled(conv))(normal(*shape))
    assert seen == expected


@pytest.mark.parametrize("shape", [(1, 3, 6, 4, 4), (1, 3, 1, 4, 4)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bits_are_left_alone(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    conv = filled(Conv(3, 2, (3, 3, 3), pad=(CAUSAL, SAME, SAME))).to(dtype)
    assert torch.equal(MinimalConv.of(conv)(normal(*shape).to(dtype)), conv(normal(*shape).to(dtype)))


def test_gradients() -> None:
    conv = filled(Conv(3, 2, (3, 3), pad=(SAME, SAME)))
    found = []
    for layer in (conv, MinimalConv.of(conv)):
        x = normal(1, 3, 4, 5).requires_grad_()
        layer(x).square().sum().backward()
        found.append(x.grad)
    assert torch.equal(*found)


def test_the_weights_are_the_convolution_s() -> None:
    conv = filled(Conv(3, 2, (3, 3), pad=(SAME, SAME)))
    layer, x = MinimalConv.of(conv), normal(1, 3, 4, 5)
    layer(x)
    assert layer.state_dict().keys() == conv.state_dict().keys()
    for assign in (False, True):
        conv.load_state_dict({name: value + 1 for name, value in conv.state_dict().items()}, assign=assign)
        assert difference(layer(x), conv(x)) <= 1e-12


@pytest.mark.parametrize(
    ("conv", "shape", "limit"),
    [
        (Conv(64, 64, (3, 3, 3), pad=(CAUSAL, SAME, SAME)), (1, 64, 4, 32, 32), 3),
        (Conv(128, 128, (3, 3), pad=(SAME, SAME)), (1, 128, 32, 32), 5),
    ],
)
def test_rounding_in_float32(conv: Conv, shape: tuple[int, ...], limit: int) -> None:
    """Against float64 on the same numbers; the order of the plain sum differs between processors, and its error too."""
    x, narrow = normal(*shape).float(), filled(conv).float()
    plain, fast = narrow(x), MinimalConv.of(narrow)(x)
    exact = conv.double()(x.double())
    assert difference(fast.double(), exact) <= limit * difference(plain.double(), exact)


def test_serves() -> None:
    assert MinimalConv.serves(Conv(128, 128, (3, 3)))
    assert MinimalConv.serves(Conv(96, 96, (3, 3, 3)))
    assert not MinimalConv.serves(Conv(96, 96, (3, 3)))
    assert not MinimalConv.serves(Conv(96, 3, (3, 3, 3)))
    assert not MinimalConv.serves(Conv(96, 96, (3, 3, 3), stride=(1, 2, 2)))
    assert not MinimalConv.serves(Conv(96, 96, (3, 3, 3), dilation=(2, 1, 1)))
    assert not MinimalConv.serves(Conv(96, 96, (1, 3, 3)))
    assert not MinimalConv.serves(WeightNormConv(128, 128, (3, 3)))
