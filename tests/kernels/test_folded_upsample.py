"""Upsampling and convolution in one: the same function as the two, and the laws."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.layers.laws import assert_local, assert_needs, assert_streams, cuttings, difference, filled, normal, singles
from vaeport.kernels.folded_upsample import FoldedUpsample
from vaeport.layers import HEIGHT, WIDTH, Chain, Conv, NearestUpsample, PerFrame

ROUND = ((1, 1), (1, 1))


@pytest.fixture(autouse=True)
def _small_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaeport.kernels.kept.LEAST", 0)


def pair(channels: int, out_channels: int, bias: bool = True) -> tuple[FoldedUpsample, Chain]:
    """The layer, and the two whose place it takes."""
    apart = filled(Chain(nearest=NearestUpsample(2), conv=Conv(channels, out_channels, (3, 3), pad=ROUND, bias=bias)))
    assert FoldedUpsample.serves(*apart.layers)
    return FoldedUpsample.of(*apart.layers), apart  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (5, 1), (4, 7)])
@pytest.mark.parametrize("bias", [True, False])
def test_is_the_two_layers(size: tuple[int, int], bias: bool) -> None:
    one, two = pair(5, 3, bias)
    x = normal(2, 5, *size)
    assert difference(one(x), two(x)) <= 1e-12
    assert difference(one(x.to(memory_format=torch.channels_last)), two(x)) <= 1e-12


@pytest.mark.parametrize("axis", [HEIGHT, WIDTH])
@given(data=st.data())
@settings(max_examples=10)
def test_streams(axis: int, data: st.DataObject) -> None:
    x = normal(1, 3, 4, 6)
    n = x.shape[axis]
    assert_streams(pair(3, 2)[0], x, axis, data.draw(cuttings(n) | st.just(singles(n))))


@pytest.mark.parametrize("axis", [HEIGHT, WIDTH])
def test_needs(axis: int) -> None:
    one, two = pair(3, 2)
    assert_needs(one, normal(1, 3, 4, 5), axis)
    assert_local(one, normal(1, 3, 4, 5), axis)
    assert all(one.needs((a, b), axis) == two.needs((a, b), axis) for a in range(6) for b in range(a + 1, 7))
    assert one.rate(axis) == two.rate(axis) == 2


def test_in_each_frame() -> None:
    one, two = (PerFrame(layer) for layer in pair(3, 2))
    x = normal(2, 3, 4, 3, 2)
    assert difference(one(x), two(x)) <= 1e-12


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bits_are_left_alone(dtype: torch.dtype) -> None:
    one, two = pair(3, 2)
    x = normal(1, 3, 4, 5).to(dtype)
    assert torch.equal(one.to(dtype)(x), two.to(dtype)(x))


def test_gradients() -> None:
    one, two = pair(3, 2)
    found = []
    for layer in (one, two):
        x = normal(1, 3, 4, 5).requires_grad_()
        layer.requires_grad_(True).zero_grad()
        layer(x).square().sum().backward()
        conv = layer.get_submodule("conv")
        found.append((x.grad, conv.weight.grad.clone()))
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


def test_the_weights_are_the_convolution_s() -> None:
    one, two = pair(3, 2)
    x = normal(1, 3, 4, 5)
    one(x)
    assert one.state_dict().keys() == two.state_dict().keys()
    two.load_state_dict({name: value + 1 for name, value in two.state_dict().items()})
    assert difference(one(x), two(x)) <= 1e-12
    one.float()
    assert one(x.float()).dtype is torch.float32
    assert difference(one(x.float()), two(x.float())) <= 1e-5


@pytest.mark.parametrize(
    ("upsample", "conv"),
    [
        (NearestUpsample(3), Conv(4, 4, (3, 3), pad=ROUND)),
        (NearestUpsample((1, 2, 2)), Conv(4, 4, (3, 3), pad=ROUND)),
        (NearestUpsample(2), Conv(4, 4, (3, 3))),
        (NearestUpsample(2), Conv(4, 4, (3, 3), pad=ROUND, stride=2)),
        (NearestUpsample(2), Conv(4, 4, (3, 3), pad=((2, 2), (2, 2)), dilation=2)),
        (NearestUpsample(2), Conv(4, 4, (1, 1))),
    ],
)
def test_others_are_not_served(upsample: NearestUpsample, conv: Conv) -> None:
    assert not FoldedUpsample.serves(upsample, conv)
