"""The blocks by hand, and the names by which maps find their weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.layers.laws import difference, filled, normal
from vaeport.layers import Conv, GroupNorm, Identity, attention_block, residual_block


def norm(channels: int) -> GroupNorm:
    return GroupNorm(channels, 2)


def conv(channels: int, out_channels: int, kernel: int) -> Conv:
    return Conv(channels, out_channels, (kernel, kernel), pad=((kernel // 2, kernel // 2),) * 2)


def test_residual_block() -> None:
    block, x = filled(residual_block(4, 6, norm, conv)), normal(2, 4, 5, 3)
    main = block.main
    h = main.conv1(F.silu(main.norm1(x)))
    expected = main.conv2(F.silu(main.norm2(h))) + F.conv2d(x, block.shortcut.weight, block.shortcut.bias)
    assert difference(block(x), expected) < 1e-14


def test_shortcut_is_a_convolution_only_where_the_width_changes() -> None:
    assert isinstance(residual_block(4, 4, norm, conv).shortcut, Identity)
    assert {name for name, _ in residual_block(4, 6, norm, conv).named_parameters()} == {
        f"{layer}.{kind}"
        for layer in ("main.norm1", "main.conv1", "main.norm2", "main.conv2", "shortcut")
        for kind in ("weight", "bias")
    }


def test_attention_block() -> None:
    block, x = filled(attention_block(4, norm)), normal(2, 4, 5, 3)
    assert torch.equal(block(x), x + block.main.attention(block.main.norm(x)))
