"""Positions that become channels, channels that become positions, and positions repeated, in channels-last memory."""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
import triton
import triton.language as tl
from torch import Tensor

from vaeport.kernels.norms import EDGES, _inside, dense

_ELEMENTS = 4096
"""that a program moves"""


@triton.jit
def _spread_kernel(
    x, y, rows, frames, height, width, out_frames, out_height, out_width, shift, top, left,
    in_channels: tl.constexpr, channels: tl.constexpr, FT: tl.constexpr, FH: tl.constexpr, FW: tl.constexpr,
    FROM_CHANNELS: tl.constexpr, WIDTH_FIRST: tl.constexpr, REPEAT: tl.constexpr, DISTINCT: tl.constexpr,
    EDGE: tl.constexpr,    BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = (row < rows)[:, None] & (channel < channels)[None, :]
    w = _inside(row % out_width, left, width * FW, EDGE)
    rest = row // out_width
    h = _inside(rest % out_height, top, height * FH, EDGE)
    rest = rest // out_height
    t = _inside(rest % out_frames, -shift, frames * FT, 1)
    sample = rest // out_frames
    source = ((sample * frames + t // FT) * height + h // FH) * width + w // FW
    at = source[:, None] * in_channels
    if FROM_CHANNELS:
        if WIDTH_FIRST:  # noqa: SIM108 - a constant of the compiler
            phase = (t % FT * FW + w % FW) * FH + h % FH
        else:
            phase = (t % FT * FH + h % FH) * FW + w % FW
        at = at + ((channel % DISTINCT)[None, :] * (FT * FH * FW) + phase[:, None]) // REPEAT
    else:
        at = at + channel[None, :]
    v = tl.load(x + at, mask=inside, other=0.0)
    tl.store(y + row[:, None] * channels + channel[None, :], v, mask=inside)


def _spread(
    x: Tensor, channels: int, factors: Sequence[int], shift: int, pad: Sequence[int], *flags: int, frames: int
) -> Tensor:
    x = dense(x)
    batch, in_channels, *axes = x.shape
    top, bottom, left, right = pad or (0, 0, 0, 0)
    height, width = axes[1] * factors[1] + top + bottom, axes[2] * factors[2] + left + right
    y = torch.empty(batch, frames, height, width, channels, dtype=x.dtype, device=x.device).movedim(-1, 1)
    rows = batch * frames * height * width
    block = min(triton.next_power_of_2(channels), 256)
    per = max(1, _ELEMENTS // block)
    _spread_kernel[(triton.cdiv(rows, per), triton.cdiv(channels, block))](
        x, y, rows, *axes, frames, height, width, shift, top, left, in_channels, channels, *factors, *flags, block, per
    )
    return y


def shuffled(x: Tensor, factors: Sequence[int], width_first: bool, repeat: int, tile: int) -> Tensor:
    """As the operator."""
    distinct = x.shape[1] * repeat // prod(factors)
    flags = 1, int(width_first), repeat, distinct, 1
    return _spread(x, distinct * tile, factors, 0, (), *flags, frames=x.shape[2] * factors[0])


def repeated(x: Tensor, factors: Sequence[int], once: bool, pad: Sequence[int], mode: str) -> Tensor:
    """As the operator."""
    left_out = factors[0] - 1 if once else 0
    frames = x.shape[2] * factors[0] - left_out + pad[0] + pad[1]
    return _spread(x, x.shape[1], factors, left_out - pad[0], pad[2:], 0, 0, 1, 1, EDGES[mode], frames=frames)


@triton.jit
def _fold_kernel(
    x, y, rows, frames, height, width, out_frames, out_height, out_width, in_channels: tl.constexpr,
    channels: tl.constexpr, FT: tl.constexpr, FH: tl.constexpr, FW: tl.constexpr, WIDTH_FIRST: tl.constexpr,
    MEAN: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = (row < rows)[:, None] & (channel < channels)[None, :]
    w = row % out_width
    rest = row // out_width
    h = rest % out_height
    rest = rest // out_height
    t = rest % out_frames
    sample = rest // out_frames
    total = tl.zeros([ROWS, BLOCK], tl.float32)
    for k in tl.static_range(MEAN):
        folded = channel * MEAN + k
        phase = folded % (FT * FH * FW)
        if WIDTH_FIRST:
            dt, dw, dh = phase // (FH * FW), phase // FH % FW, phase % FH
        else:
            dt, dh, dw = phase // (FH * FW), phase // FW % FH, phase % FW
        at = (sample * frames + t * FT)[:, None] + dt[None, :]
        at = (at * height + (h * FH)[:, None] + dh[None, :]) * width + (w * FW)[:, None] + dw[None, :]
        at = at * in_channels + (folded // (FT * FH * FW))[None, :]
        total += tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + row[:, None] * channels + channel[None, :], (total / MEAN).to(y.dtype.element_ty), mask=inside)


def unshuffled(x: Tensor, factors: Sequence[int], width_first: bool, groups: int) -> Tensor:
    """As the operator."""
    x = dense(x)
    batch, in_channels, *axes = x.shape
    folded = in_channels * prod(factors)
    channels = groups or folded
    counts = [n // f for n, f in zip(axes, factors, strict=True)]
    y = torch.empty(batch, *counts, channels, dtype=x.dtype, device=x.device).movedim(-1, 1)
    rows = batch * prod(counts)
    block = min(triton.next_power_of_2(channels), 256)
    per = max(1, _ELEMENTS // block)
    _fold_kernel[(triton.cdiv(rows, per), triton.cdiv(channels, block))](
        x, y, rows, *axes, *counts, in_channels, channels, *factors, width_first, folded // channels, block, per
    )
    return y
