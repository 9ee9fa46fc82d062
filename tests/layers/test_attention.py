"""Self-attention by its formula."""

from __future__ import annotations

import torch

from tests.layers.laws import difference, filled, normal
from vaeport.layers import SelfAttention


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
