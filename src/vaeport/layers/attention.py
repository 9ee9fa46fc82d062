"""Self-attention between all positions of an image."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from vaeport.layers.layer import Barrier


class SelfAttention(Barrier):
    """softmax(q k^T / sqrt(C)) v with one head as wide as the image has channels, over its H * W positions.

    x [B, C, H, W]; qkv.weight [3C, C] gives queries, keys, values in this order; proj.weight [C, C].
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W], same shape."""
        tokens = x.flatten(2).transpose(1, 2).unsqueeze(1)
        q, k, v = self.qkv(tokens).chunk(3, dim=-1)
        y: Tensor = self.proj(F.scaled_dot_product_attention(q, k, v))
        return y.squeeze(1).transpose(1, 2).reshape(x.shape)
