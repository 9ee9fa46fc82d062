"""What a GPU runs in place of each operator's definition, where it can; elsewhere the definition itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vaeport.kernels import hopper_conv, norms, ops
from vaeport.kernels.norms import dense


def conv(
    x: Tensor,
    past: Tensor | None,
    weight: Tensor,
    packed: Tensor,
    bias: Tensor | None,
    addend: Tensor | None,
    before: Sequence[int],
    after: Sequence[int],
    repeat: bool,
    split: int,
) -> Tensor:
    """On the tensor cores of Hopper."""
    x, past = dense(x), None if past is None else dense(past)
    out = _conv_out(x, past, weight, before, after, split)
    hopper_conv.run(
        x, packed, bias, weight.shape[0], weight.shape[2:], out, pad=before, past=past, repeat=repeat,
        residual=None if addend is None else dense(addend), split=split,
    )  # fmt: skip
    return out


def upsampled_conv(x: Tensor, weight: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    """Each of the 2 x 2 outputs of a position is a convolution of 2 x 2 taps of its own."""
    x = dense(x).unsqueeze(2)
    n, _, _, h, w = x.shape
    y = torch.empty(n, 2 * h, 2 * w, len(weight), dtype=x.dtype, device=x.device).movedim(-1, 1)
    for a in (0, 1):
        for b in (0, 1):
            out = y[:, :, a::2, b::2].unsqueeze(2)
            hopper_conv.run(x, packed[a, b], bias, len(weight), (1, 2, 2), out, pad=(0, 1 - a, 1 - b))
    return y


def _conv_out(
    x: Tensor, past: Tensor | None, weight: Tensor, before: Sequence[int], after: Sequence[int], split: int
) -> Tensor:
    frames = x.shape[2] + (0 if past is None else past.shape[2])
    lengths = [
        n + a + b - k + 1 for n, a, b, k in zip((frames, *x.shape[3:]), before, after, weight.shape[2:], strict=True)
    ]
    channels = weight.shape[0] // split
    if channels % 32:  # few: as media lie
        return torch.empty(len(x), channels, split * lengths[0], *lengths[1:], dtype=x.dtype, device=x.device)
    shape = len(x), split * lengths[0], *lengths[1:], channels
    return torch.empty(shape, dtype=x.dtype, device=x.device).movedim(-1, 1)


BODIES: dict[str, Callable[..., Any]] = {
    "conv": conv,
    "upsampled_conv": upsampled_conv,
    "unit": norms.unit,
    "moments": norms.moments,
    "affine": norms.affine,
    "scaled": norms.scaled,
}
