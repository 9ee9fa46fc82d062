"""Self-attention by its formula, over all positions or frame by frame, and the memory that it takes."""

from __future__ import annotations

import pytest
import torch

from tests.layers.laws import Largest, assert_streams, difference, filled, normal, singles
from vaeport.layers import HEIGHT, TIME, WIDTH, FrameCausalAttention, SelfAttention


def by_formula(layer: SelfAttention, x: torch.Tensor) -> torch.Tensor:
    channels = x.shape[1]
    tokens = x.permute(0, 2, 3, 1).flatten(1, 2)
    q, k, v = (
        tokens @ layer.qkv.weight[i * channels : (i + 1) * channels].T
        + layer.qkv.bias[i * channels : (i + 1) * channels]
        for i in range(3)
    )
    weights = torch.softmax(q @ k.mT / channels**0.5, -1)
    y = weights @ v @ layer.proj.weight.T + layer.proj.bias
    return y.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)


def test_formula() -> None:
    layer, x = filled(SelfAttention(6)), normal(2, 6, 3, 5)
    assert difference(layer(x), by_formula(layer, x)) < 1e-14


def test_memory_format_changes_nothing() -> None:
    layer, x = filled(SelfAttention(6)), normal(2, 6, 3, 5)
    assert difference(layer(x.to(memory_format=torch.channels_last)), layer(x)) < 1e-14


@pytest.mark.parametrize("frames", [1, 2, 4])
def test_frame_causal_formula(frames: int) -> None:
    """Softmax over the keys of a query's own frame and those before it, as a mask would have it."""
    layer, x = filled(FrameCausalAttention(6)), normal(2, 6, frames, 3, 2)
    tokens = x.flatten(2).mT
    q, k, v = (tokens @ layer.qkv.weight.T + layer.qkv.bias).chunk(3, -1)
    frame = torch.arange(frames).repeat_interleave(6)
    hidden = frame[:, None] < frame[None]
    weights = torch.softmax((q @ k.mT / 6**0.5).masked_fill(hidden, -torch.inf), -1)
    y = weights @ v @ layer.proj.weight.T + layer.proj.bias
    assert difference(layer(x), y.mT.view_as(x)) < 1e-14


def test_a_later_frame_changes_nothing_before_it() -> None:
    layer, full = filled(FrameCausalAttention(6)), filled(SelfAttention(6))
    x = normal(1, 6, 4, 2, 3)
    changed = x.clone()
    changed[:, :, 2] += 1
    assert torch.equal(layer(x)[:, :, :2], layer(changed)[:, :, :2])
    assert difference(layer(x)[:, :, 2:], layer(changed)[:, :, 2:]) > 1e-3
    assert difference(full(x)[:, :, :2], full(changed)[:, :, :2]) > 1e-3


def test_one_frame_is_full_attention() -> None:
    x = normal(2, 6, 1, 3, 2)
    assert difference(filled(FrameCausalAttention(6))(x), filled(SelfAttention(6))(x)) < 1e-14


@pytest.mark.parametrize("axis", [TIME, HEIGHT, WIDTH])
def test_frame_causal_waits_for_all(axis: int) -> None:
    layer, x = filled(FrameCausalAttention(4)), normal(1, 4, 3, 4, 2)
    assert_streams(layer, x, axis, singles(x.shape[axis]))
    assert layer.needs((0, 1), axis) is None


@pytest.mark.parametrize("kind", [SelfAttention, FrameCausalAttention])
def test_no_tensor_is_as_large_as_all_pairs(kind: type[SelfAttention]) -> None:
    """What is made grows as the positions do: three times as wide as x, for queries, keys and values."""
    layer = filled(kind(4))
    for frames in (2, 8):
        positions = frames * 12 * 10
        with Largest() as largest:
            layer(normal(1, 4, frames, 12, 10))
        assert largest.elements == 3 * 4 * positions < positions**2 / 10
