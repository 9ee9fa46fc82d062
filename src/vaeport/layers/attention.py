"""Self-attention between the positions of an image or a video."""

from __future__ import annotations

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaeport.layers.layer import Barrier


class SelfAttention(Barrier):
    """softmax(q k^T / sqrt(C)) v with one head as wide as x has channels, over all its positions.

    x [B, C, *axes]; qkv.weight [3C, C] gives queries, keys, values in this order; proj.weight [C, C].
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, *axes], same shape."""
        tokens = x.flatten(2).transpose(1, 2).unsqueeze(1)
        q, k, v = self.qkv(tokens).chunk(3, dim=-1)
        y: Tensor = self.proj(self.attend(q, k, v, prod(x.shape[-2:])))
        return y.squeeze(1).transpose(1, 2).reshape(x.shape)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, frame: int) -> Tensor:
        """[B, 1, N, C] each -> [B, 1, N, C]; `frame` positions are one frame."""
        return F.scaled_dot_product_attention(q, k, v)


class FrameCausalAttention(SelfAttention):
    """As above on [B, C, T, H, W], but a position sees its own frame and those before it alone.

    The queries of each frame meet the keys up to its end, so no mask of N x N positions is ever made.
    """

    def attend(self, q: Tensor, k: Tensor, v: Tensor, frame: int) -> Tensor:
        """Frame by frame."""
        stops = range(frame, q.shape[2] + 1, frame)
        frames = [F.scaled_dot_product_attention(q[:, :, n - frame : n], k[:, :, :n], v[:, :, :n]) for n in stops]
        return torch.cat(frames, 2)
