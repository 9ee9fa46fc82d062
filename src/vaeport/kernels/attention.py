"""Attention whose heads are wider than fused kernels take: scores in float32, a share of the queries at a time."""

from __future__ import annotations

from copy import copy

import torch
import torch.nn.functional as F
from torch import Tensor

from vaeport.kernels.ops import OPS
from vaeport.layers.attention import SelfAttention

_WIDEST = 256
"""channels of a head that fused attention takes"""
_SCORES = 2**28
"""bytes of scores at once"""


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(C)) v of [B, 1, n, C], [B, 1, N, C] twice; scores and sums are float32."""
    # as well where memory is only counted
    kernels = q.device.type in ("cuda", "meta") and q.dtype in (torch.bfloat16, torch.float16)
    if not kernels or q.shape[-1] <= _WIDEST:
        return F.scaled_dot_product_attention(q, k, v)
    out = torch.empty_like(q)
    keys, values = k.squeeze(1).transpose(1, 2), v.squeeze(1)
    rows = max(64, _SCORES // (4 * len(q) * k.shape[2]) // 64 * 64)
    for start in range(0, q.shape[2], rows):
        part = q[:, 0, start : start + rows]
        scores = torch.bmm(part, keys, out_dtype=torch.float32)
        shares = OPS.weighted(scores, q.shape[-1] ** -0.5, q.dtype)
        out[:, 0, start : start + rows] = torch.bmm(shares, values)
    return out


def fast_attention(layer: SelfAttention) -> SelfAttention:
    """A copy with the same parameters, which weighs values by `attend`."""
    twin = copy(layer)
    twin.__dict__["weighted"] = attend
    return twin
