"""Self-attention between the positions of an image or a video."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaeport.layers.layer import TIME, Barrier, Settled


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
        q, k, v = self.qkv(_tokens(x)).chunk(3, dim=-1)
        y: Tensor = self.proj(self.attend(q, k, v, prod(x.shape[-2:])))
        return y.squeeze(1).transpose(1, 2).reshape(x.shape)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, frame: int, whole_frame: int = 0, before: int = 0) -> Tensor:
        """[B, 1, n, C] and twice [B, 1, N, C] -> [B, 1, n, C].

        frame           queries of one frame
        whole_frame     keys of one frame, if they are more
        before          frames before the first query
        """
        return self.weighted(q, k, v)

    @staticmethod
    def weighted(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """softmax(q k^T / sqrt(C)) v, every query with all keys."""
        return F.scaled_dot_product_attention(q, k, v)

    def note(self, x: Tensor) -> Tensor:
        """Keys and values of a piece: [B, *axes, 2C]."""
        channels = x.shape[1]
        return F.linear(x.movedim(1, -1), self.qkv.weight[channels:], self.qkv.bias[channels:])

    def settled(self, notes: Sequence[Tensor], axis: int) -> Settled:
        """With all keys and values."""
        return SettledAttention(self, notes[0] if len(notes) == 1 else torch.cat(tuple(notes), axis - 1), axis)


class SettledAttention(Settled):
    """Attention whose keys and values are known: [B, *axes, 2C]."""

    attention: SelfAttention

    def __init__(self, attention: SelfAttention, keys_values: Tensor, axis: int) -> None:
        super().__init__(axis)
        self.__dict__["attention"] = attention  # no child: its weights are another's
        self.frame = prod(keys_values.shape[-3:-1])
        self.keys, self.values = keys_values.flatten(1, -2).unsqueeze(1).chunk(2, -1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, *axes], same shape."""
        channels, qkv = x.shape[1], self.attention.qkv
        q = F.linear(_tokens(x), qkv.weight[:channels], qkv.bias[:channels])
        before = self.start if self.axis == TIME else 0
        found = self.attention.attend(q, self.keys, self.values, prod(x.shape[-2:]), self.frame, before)
        y: Tensor = self.attention.proj(found)
        return y.squeeze(1).transpose(1, 2).reshape(x.shape)


class FrameCausalAttention(SelfAttention):
    """As above on [B, C, T, H, W], but a position sees its own frame and those before it alone.

    The queries of each frame meet the keys up to its end, so no mask of N x N positions is ever made.
    """

    def attend(self, q: Tensor, k: Tensor, v: Tensor, frame: int, whole_frame: int = 0, before: int = 0) -> Tensor:
        """Frame by frame."""
        frames = []
        for i, queries in enumerate(q.split(frame, 2), before + 1):
            seen = i * (whole_frame or frame)
            frames.append(self.weighted(queries, k[:, :, :seen], v[:, :, :seen]))
        return torch.cat(frames, 2)


def _tokens(x: Tensor) -> Tensor:
    """[B, C, *axes] -> [B, 1, N, C]."""
    return x.flatten(2).transpose(1, 2).unsqueeze(1)
