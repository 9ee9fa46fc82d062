"""The two blocks that most VAEs are made of, for any norm and any convolution."""

from __future__ import annotations

from collections.abc import Callable

from vaeport.layers.activation import SiLU
from vaeport.layers.attention import SelfAttention
from vaeport.layers.combine import Add, Chain
from vaeport.layers.layer import Identity, Layer

Norm = Callable[[int], Layer]
"""channels -> layer"""
Convolution = Callable[[int, int, int], Layer]
"""channels, out_channels, kernel size -> layer that keeps the resolution"""


def residual_block(channels: int, out_channels: int, norm: Norm, conv: Convolution) -> Add:
    """conv(silu(norm(conv(silu(norm(x)))))) + x, the shortcut a 1-wide convolution where the width changes."""
    return Add(
        main=Chain(
            norm1=norm(channels),
            act1=SiLU(),
            conv1=conv(channels, out_channels, 3),
            norm2=norm(out_channels),
            act2=SiLU(),
            conv2=conv(out_channels, out_channels, 3),
        ),
        shortcut=Identity() if channels == out_channels else conv(channels, out_channels, 1),
    )


def attention_block(channels: int, norm: Norm, attention: Callable[[int], Layer] = SelfAttention) -> Add:
    """attention(norm(x)) + x."""
    return Add(main=Chain(norm=norm(channels), attention=attention(channels)), shortcut=Identity())
