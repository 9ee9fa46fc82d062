"""Norms and activations in one pass over channels-last memory, in Triton.

Tensors are [B, C, *axes] whose memory is [B, *axes, C]; sums are float32, statistics of groups are merged in float64.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

_ELEMENTS, _HELD = 8192, 4096
"""that a program reads at once, and that it sums up in place"""
_ROW, _PART = 16384, 4096
"""scores of a query that a program holds at once, and how many of more"""
EDGES = {"replicate": 1, "reflect": 2}


@triton.jit
def _silu(x):
    # 1 / (1 + e) without a division; exp may overflow, of which the root is 0
    root = tl.rsqrt(1.0 + tl.exp(-x))
    return x * root * root


@triton.jit
def _inside(at, before, size, EDGE: tl.constexpr):
    """The position under position `at` of an axis of `size` with `before` more in front."""
    at = at - before
    if EDGE == 2:
        at = tl.where(at < 0, -at, at)
        at = tl.where(at >= size, 2 * size - 2 - at, at)
    else:
        at = tl.minimum(tl.maximum(at, 0), size - 1)
    return at


@triton.jit
def _source(row, top, left, height, width, full_height, full_width, EDGE: tl.constexpr):
    """The row of [frames, height, width] under a row of [frames, full_height, full_width]."""
    if EDGE:
        w = _inside(row % full_width, left, width, EDGE)
        rest = row // full_width
        h = _inside(rest % full_height, top, height, EDGE)
        row = (rest // full_height * height + h) * width + w
    return row


@triton.jit
def _unit_kernel(
    x, y, gain, rows, scale, eps, least, top, left, height, width, full_height, full_width,
    channels: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, SILU: tl.constexpr, GAIN: tl.constexpr,
    EDGE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    part = tl.arange(0, BLOCK)
    inside = (row < rows)[:, None] & (part >= 0)[None, :]
    source = _source(row, top, left, height, width, full_height, full_width, EDGE)
    at = x + source[:, None] * channels + part[None, :]
    to = y + row[:, None] * channels + part[None, :]
    squares = tl.zeros([ROWS], tl.float32)
    for start in tl.static_range(0, channels, BLOCK):
        v = tl.load(at + start, mask=inside, other=0.0).to(tl.float32)
        squares += tl.sum(v * v, 1)
    inverse = tl.rsqrt(tl.maximum(squares * scale + eps, least))
    for start in tl.static_range(0, channels, BLOCK):
        v = tl.load(at + start, mask=inside, other=0.0).to(tl.float32) * inverse[:, None]
        if GAIN:
            v = v * tl.load(gain + start + part)[None, :]
        if SILU:
            v = _silu(v)
        tl.store(to + start, v.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _scaled_kernel(
    x, y, slope, offset, rows, source_rows, top, left, height, width, full_height, full_width,
    channels: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, SILU: tl.constexpr, EDGE: tl.constexpr,
):  # fmt: skip
    sample = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, BLOCK)
    known = channel < channels
    inside = (row < rows)[:, None] & known[None, :]
    source = _source(row, top, left, height, width, full_height, full_width, EDGE)
    at = (sample * source_rows + source[:, None]) * channels + channel[None, :]
    v = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    a = tl.load(slope + sample * channels + channel, mask=known, other=0.0)
    b = tl.load(offset + sample * channels + channel, mask=known, other=0.0)
    v = v * a[None, :] + b[None, :]
    if SILU:
        v = _silu(v)
    to = (sample * rows + row[:, None]) * channels + channel[None, :]
    tl.store(y + to, v.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _moments_kernel(
    x, notes, rows, span, channels: tl.constexpr, groups: tl.constexpr, ROWS: tl.constexpr
):  # fmt: skip
    part, sample = tl.program_id(0), tl.program_id(1)
    channel = tl.arange(0, channels)
    start = part.to(tl.int64) * span
    stop = tl.minimum(start + span, rows)
    base = x + sample.to(tl.int64) * rows * channels
    # sums of what is left of a first value lose nothing where the mean is far from zero
    first = tl.load(base + start * channels + channel).to(tl.float32)
    totals = tl.zeros([ROWS, channels], tl.float32)
    spreads = tl.zeros([ROWS, channels], tl.float32)
    for row in range(start, stop, ROWS):
        at = row + tl.arange(0, ROWS)
        inside = (at < stop)[:, None] & (channel >= 0)[None, :]
        v = tl.load(base + at[:, None] * channels + channel[None, :], mask=inside, other=0.0).to(tl.float32)
        v = tl.where(inside, v - first[None, :], 0.0)
        totals += v
        spreads += v * v
    total = tl.sum(totals, 0)
    squares = tl.sum(spreads, 0)
    count = (stop - start).to(tl.float32)
    mean = first + total / count
    spread = squares - total * total / count
    width: tl.constexpr = channels // groups
    means = tl.sum(tl.reshape(mean, [groups, width]), 1) / width
    away = tl.reshape(mean, [groups, width]) - means[:, None]
    spread = tl.sum(tl.reshape(spread, [groups, width]) + count * away * away, 1)
    group = tl.arange(0, groups)
    to = notes + ((sample * tl.num_programs(0) + part) * groups + group) * 3
    tl.store(to, tl.zeros([groups], tl.float32) + count * width)
    tl.store(to + 1, means)
    tl.store(to + 2, spread)


@triton.jit
def _affine_kernel(
    notes, weight, bias, slope, offset, parts, eps, channels: tl.constexpr, groups: tl.constexpr, PARTS: tl.constexpr
):  # fmt: skip
    group, sample = tl.program_id(0), tl.program_id(1)
    part = tl.arange(0, PARTS)
    at = notes + ((sample * parts + part) * groups + group) * 3
    count = tl.load(at, mask=part < parts, other=0.0).to(tl.float64)
    mean = tl.load(at + 1, mask=part < parts, other=0.0).to(tl.float64)
    spread = tl.load(at + 2, mask=part < parts, other=0.0).to(tl.float64)
    total = tl.sum(count, 0)
    centre = tl.sum(count * mean, 0) / total
    away = mean - centre
    var = tl.sum(spread + count * away * away, 0) / total
    inverse = (1.0 / tl.sqrt(var + eps)).to(tl.float32)
    width: tl.constexpr = channels // groups
    channel = group * width + tl.arange(0, width)
    a = tl.load(weight + channel).to(tl.float32) * inverse
    tl.store(slope + sample * channels + channel, a)
    tl.store(offset + sample * channels + channel, tl.load(bias + channel).to(tl.float32) - centre.to(tl.float32) * a)


@triton.jit
def _snake_kernel(x, y, log_alpha, log_beta, rows, channels: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    known = channel < channels
    inside = (row < rows)[:, None] & known[None, :]
    at = row[:, None] * channels + channel[None, :]
    alpha = tl.exp(tl.load(log_alpha + channel, mask=known, other=0.0).to(tl.float32))
    share = 1.0 / (tl.exp(tl.load(log_beta + channel, mask=known, other=0.0).to(tl.float32)) + 1e-9)
    v = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    wave = tl.sin(v * alpha[None, :])
    tl.store(y + at, (v + wave * wave * share[None, :]).to(y.dtype.element_ty), mask=inside)


def snake(x: Tensor, log_alpha: Tensor, log_beta: Tensor) -> Tensor:
    """As the operator."""
    x = dense(x)
    y, _ = _edged(x, ())
    channels = x.shape[1]
    rows = x.numel() // channels
    block = min(triton.next_power_of_2(channels), 256)
    per = _ELEMENTS // 2 // block
    grid = triton.cdiv(rows, per), triton.cdiv(channels, block)
    _snake_kernel[grid](x, y, log_alpha, log_beta, rows, channels, block, per, num_warps=8)
    return y


@triton.jit
def _weighted_kernel(scores, shares, columns, scale, BLOCK: tl.constexpr, ONE: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    source = scores + row * columns
    target = shares + row * columns
    if ONE:
        v = tl.load(source + at, mask=at < columns, other=float("-inf")) * scale
        e = tl.exp(v - tl.max(v, 0))
        tl.store(target + at, (e / tl.sum(e, 0)).to(shares.dtype.element_ty), mask=at < columns)
    else:
        most = tl.full([BLOCK], float("-inf"), tl.float32)
        total = tl.zeros([BLOCK], tl.float32)
        for start in range(0, columns, BLOCK):
            v = tl.load(source + start + at, mask=start + at < columns, other=float("-inf")) * scale
            above = tl.maximum(most, v)
            # a place that has met no column yet is minus infinity on both sides
            old = tl.where(most == float("-inf"), 0.0, total * tl.exp(most - above))
            total = old + tl.where(v == float("-inf"), 0.0, tl.exp(v - above))
            most = above
        top = tl.max(most, 0)
        whole = tl.sum(tl.where(most == float("-inf"), 0.0, total * tl.exp(most - top)), 0)
        for start in range(0, columns, BLOCK):
            v = tl.load(source + start + at, mask=start + at < columns, other=0.0) * scale
            share = tl.exp(v - top) / whole
            tl.store(target + start + at, share.to(shares.dtype.element_ty), mask=start + at < columns)


def weighted(scores: Tensor, scale: float, dtype: torch.dtype) -> Tensor:
    """As the operator, of float32 scores."""
    scores = scores.contiguous()
    columns = scores.shape[-1]
    shares = torch.empty(scores.shape, dtype=dtype, device=scores.device)
    block = triton.next_power_of_2(columns)
    one = block <= _ROW
    _weighted_kernel[(scores.numel() // columns,)](
        scores, shares, columns, scale, block if one else _PART, one, num_warps=8
    )
    return shares


def unit(
    x: Tensor, gain: Tensor | None, scale: float, eps: float, least: float, silu: bool, pad: Sequence[int], mode: str
) -> Tensor:
    """As the operator."""
    x = dense(x)
    y, edges = _edged(x, pad)
    channels = x.shape[1]
    rows = y.numel() // channels
    block = min(channels & -channels, 256)  # the largest power of two that divides them
    per = max(1, _ELEMENTS // triton.next_power_of_2(channels))
    grid = (triton.cdiv(rows, per),)
    flags = silu, gain is not None, EDGES[mode] if any(pad) else 0
    _unit_kernel[grid](x, y, gain, rows, scale, eps, least, *edges, channels, block, per, *flags, num_warps=8)
    return y


def scaled(x: Tensor, slope: Tensor, offset: Tensor, silu: bool, pad: Sequence[int], mode: str) -> Tensor:
    """As the operator."""
    x = dense(x)
    y, edges = _edged(x, pad)
    batch, channels = x.shape[:2]
    rows, source_rows = y[0, 0].numel(), x[0, 0].numel()
    block = triton.next_power_of_2(channels)
    per = max(1, _ELEMENTS // block)
    grid = triton.cdiv(rows, per), batch
    flags = silu, EDGES[mode] if any(pad) else 0
    _scaled_kernel[grid](x, y, slope, offset, rows, source_rows, *edges, channels, block, per, *flags, num_warps=8)
    return y


def moments(x: Tensor, groups: int) -> Tensor:
    """As the operator; channels and groups are powers of two."""
    x = dense(x)
    batch, channels = x.shape[:2]
    rows = x[0, 0].numel()
    per = max(1, _HELD // channels)
    parts = min(triton.cdiv(rows, 4 * per), 8 * _processors(x))
    span = triton.cdiv(triton.cdiv(rows, parts), per) * per
    parts = triton.cdiv(rows, span)
    notes = torch.empty(batch, parts, groups, 3, device=x.device)
    _moments_kernel[(parts, batch)](x, notes, rows, span, channels, groups, per, num_warps=4)
    return notes


def affine(notes: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """As the operator."""
    batch, parts, groups, _ = notes.shape
    channels = weight.numel()
    slope = torch.empty(batch, channels, device=notes.device)
    offset = torch.empty_like(slope)
    block = triton.next_power_of_2(parts)
    _affine_kernel[(groups, batch)](notes, weight, bias, slope, offset, parts, eps, channels, groups, block)
    return slope, offset


def dense(x: Tensor) -> Tensor:
    """x in channels-last memory, copied only if it is not."""
    moved = x.movedim(1, -1)
    return x if moved.is_contiguous() else moved.contiguous().movedim(-1, 1)


def _edged(x: Tensor, pad: Sequence[int]) -> tuple[Tensor, tuple[int, ...]]:
    """An empty output and what a kernel must know of its edges."""
    top, bottom, left, right = pad or (0, 0, 0, 0)
    height, width = (1, x.shape[-1]) if x.dim() == 3 else x.shape[-2:]
    full = height + top + bottom, width + left + right
    shape = x.shape if x.dim() == 3 else (*x.shape[:-2], *full)
    y = torch.empty((shape[0], *shape[2:], shape[1]), dtype=x.dtype, device=x.device).movedim(-1, 1)
    return y, (top, left, height, width, *full)


def _processors(x: Tensor) -> int:
    return torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 4
