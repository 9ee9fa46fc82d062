"""Convolutions on Hopper: `hopper_conv.cu` compiled for a shape of kernel, weights packed for it, and its launch.

y[n, o, t, h, w] = bias[o] + sum x[n, c, t + i - pad_t, h + j - pad_h, w + k - pad_w] weight[o, c, i, j, k] + residual

Tensors are [B, C, T, H, W] in channels-last memory, bfloat16 or float16; sums are float32.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaeport.kernels import driver

SOURCE = Path(__file__).with_name("hopper_conv.cu")
FEW = 136
"""output channels that are written one by one, as media and latents lie"""
_SHARED = 227 * 1024 - 2048
LINE, _LONG = 0, 64
"""in place of patches: positions of one row; and how many are worth a line"""
_RATE = {
    (192, 1): 1.0,
    (192, 2): 0.95,
    (128, 2): 0.98,
    (160, 1): 0.93,
    (160, 2): 0.93,
    (96, 2): 0.95,
    (64, 2): 0.8,
    (32, 2): 0.6,
    (256, LINE): 1.0,
    (128, LINE): 0.8,
    (64, LINE): 0.6,
    (32, LINE): 0.4,
}
"""(channels, patches) of a block -> how fast a busy processor is with it, measured on an H200 (bench/kernels.py)"""
_STAGES = ((3, 6), (3, 4), (2, 6), (2, 4), (2, 3), (2, 2))


@dataclass(frozen=True)
class Variant:
    """What a kernel is compiled for; the names are the source's."""

    half: int
    n: int
    ck: int
    kt: int
    kh: int
    kw: int
    th: int
    tw: int
    tps: int
    patches: int
    a_stages: int
    b_stages: int
    line: int
    dil: int

    @property
    def shared(self) -> int:
        """Bytes of shared memory."""
        return self.a_stages * self._a_stage + self.b_stages * self._b_stage + 1024 + 8 * 2 * 16

    @property
    def _a_stage(self) -> int:
        _, columns, rows = self.box
        rows *= columns
        return -(-rows * self.ck * 2 // 1024) * 1024

    @property
    def _b_stage(self) -> int:
        return self.tps * self.n * self.ck * 2

    @property
    def box(self) -> tuple[int, int, int]:
        """Channels, columns and rows that one copy brings."""
        height, width = self.tile
        return self.ck, width + (self.kw - 1) * self.dil, height + self.kh - 1

    @property
    def tile(self) -> tuple[int, int]:
        """Rows and columns of a block's outputs."""
        return (1, 128 * self.patches) if self.line else (16, 8 * self.patches)


def variant_of(
    half: bool, ck: int, kernel: tuple[int, ...], strided: bool, dilation: int, n: int, patches: int
) -> Variant:
    """The variant with blocks of n channels and as many patches, and with as many stages as fit.

    ck          channels of a chunk
    kernel      of one row that is long, a line: its taps may lie `dilation` positions apart
    """
    line = kernel[:2] == (1, 1) and patches == LINE
    kt, kh, kw = (prod(kernel), 1, 1) if strided else kernel
    th, tw = kernel[1:] if strided else (1, 1)
    tps = kh * kw if n < 32 else kw if n * ck * kw <= 96 * 32 * 3 else 1
    rest = (tps, 1 if line else patches)
    for a, b in _STAGES:
        v = Variant(int(half), n, ck, kt, kh, kw, th, tw, *rest, a, b, int(line), dilation)
        if v.shared <= _SHARED:
            return v
    raise ValueError(f"no stages fit for {kernel}, {ck} channels at once")


@lru_cache(4096)
def choice(channels: int, groups: int, frames: int, height: int, width: int, processors: int) -> tuple[int, int]:
    """Channels and patches of a block: those that leave the fewest processors idle, of the rates measured.

    channels    of a group; frames of one row are lines
    """
    line = height == 1 and width >= _LONG
    fit = [pair for pair in _RATE if channels % pair[0] == 0 and (pair[1] == LINE) == line]
    if not fit:
        some = channels * groups
        return next((n for n in (8, 16, 24, 48, FEW) if n >= some), 8), LINE if line else 1

    def seconds(pair: tuple[int, int]) -> float:
        n, patches = pair
        tiles = -(-width // 128) if line else -(-height // 16) * -(-width // (8 * patches))
        return -(-frames * tiles * (channels // n * groups) // processors) * n * max(patches, 1) / _RATE[pair]

    return min(fit, key=seconds)


def packed(weight: Tensor, strided: bool = False) -> Tensor:
    """[O, C, kt, kh, kw] -> [kt, C / ck, kh * kw, O, ck], swizzled as shared memory holds it; zeros fill up O and C.

    strided     all taps are steps: [kt * kh * kw, C / ck, 1, O, ck]
    """
    if strided:
        weight = weight.flatten(2)[..., None, None]
    out, channels = weight.shape[:2]
    ck = _chunk(channels)
    chunks, units = -(-channels // ck), ck // 8
    rows, taps = -(-out // 8) * 8, weight[0, 0, 0].numel()
    full = weight.new_zeros(rows, chunks * ck, weight.shape[2], taps)
    full[:out, :channels] = weight.reshape(out, channels, -1, taps)
    split = full.view(rows, chunks, units, 8, -1, taps).permute(4, 1, 5, 0, 2, 3)
    row, unit = (torch.arange(n, device=weight.device) for n in (rows, units))
    swapped = (row[:, None] * units // 8 % units) ^ unit
    return split[..., row[:, None], swapped, :].reshape(-1, chunks, taps, rows, ck)


def _chunk(channels: int) -> int:
    return next(size for size in (64, 32, 16) if channels % size == 0 or size == 16)


_STRIDES = ("out_n", "out_t", "out_h", "out_w", "out_c", "group_t", "group_h", "group_w")


class _Args(ctypes.Structure):
    _fields_ = (
        ("x", ctypes.c_uint64 * 16),
        ("past", ctypes.c_uint64 * 16),
        *((name, ctypes.c_void_p) for name in ("weight", "bias", "residual", "out")),
        *(
            (name, ctypes.c_int)
            for name in (
                *("frames_in", "frames_past", "repeat", "pad_t", "pad_h", "pad_w"),
                *("stride_t", "stride_h", "stride_w"),
                *("batch", "frames", "height", "width", "channels", "chunks", "blocks", "blocks_per_group", "rows"),
                *("tiles_h", "tiles_w", "tiles", "groups_h", "groups_w", "group_channels"),
            )
        ),
        *((name, ctypes.c_longlong) for name in _STRIDES),
        ("rest", ctypes.c_char * 64),  # the compiler rounds the structure up to its alignment
    )


def variant_for(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    channels: int,
    kernel: Sequence[int],
    out: Tensor,
    *,
    stride: Sequence[int] = (1, 1, 1),
    dilation: int = 1,
    split: Sequence[int] = (1, 1, 1),
    **others: Any,
) -> Variant:
    """The best by what was measured, of the arguments of `run`."""
    frames, height, width = (n // s for n, s in zip(out.shape[2:], split, strict=True))
    pair = choice(out.shape[1], prod(split), len(out) * frames, height, width, driver.processors(x.device))
    strided = any(s != 1 for s in stride)
    # a convolution reads channels in eights; their chunks are the weight's
    return variant_of(x.dtype is torch.float16, weight.shape[-1], tuple(kernel), strided, dilation, *pair)


def run(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    channels: int,
    kernel: Sequence[int],
    out: Tensor,
    *,
    pad: Sequence[int],
    past: Tensor | None = None,
    repeat: bool = False,
    residual: Tensor | None = None,
    stride: Sequence[int] = (1, 1, 1),
    dilation: int = 1,
    split: Sequence[int] = (1, 1, 1),
    variant: Variant,
) -> None:
    """Writes `out` [B, O, T', H', W'], a view of any strides; of many channels, those lie next to each other.

    weight      as `packed`
    past        frames in front of x
    repeat      frames beyond the ends are the first and the last one, not zeros
    residual    laid out as `out`
    dilation    of a kernel of one row
    split       the channels are that many groups in time, height and width, which become positions
    variant     as `variant_for` gives it for the other arguments
    """
    batch, per_group, *axes = out.shape
    frames, height, width = (n // s for n, s in zip(axes, split, strict=True))
    processors, groups = driver.processors(x.device), prod(split)
    v = variant
    args = _Args()
    args.x = driver.tensor_map(x, v.box, tuple(stride))
    args.past = args.x if past is None else driver.tensor_map(past, v.box, tuple(stride))
    args.weight, args.bias = weight.data_ptr(), 0 if bias is None else bias.data_ptr()
    args.residual, args.out = 0 if residual is None else residual.data_ptr(), out.data_ptr()
    args.frames_in, args.frames_past, args.repeat = x.shape[2], 0 if past is None else past.shape[2], int(repeat)
    # frames are counted from the first of x
    args.pad_t, args.pad_h, args.pad_w = pad[0] + args.frames_past, pad[1], pad[2]
    args.stride_t, args.stride_h, args.stride_w = stride
    args.batch, args.frames, args.height, args.width, args.channels = batch, frames, height, width, channels
    args.chunks, args.blocks, args.rows = weight.shape[1], -(-channels // v.n), weight.shape[3]
    args.blocks_per_group, args.group_channels = max(1, args.blocks // groups), per_group
    args.tiles_h, args.tiles_w = (-(-n // tile) for n, tile in zip((height, width), v.tile, strict=True))
    args.tiles = batch * frames * args.tiles_h * args.tiles_w * args.blocks
    args.out_n, args.out_c, args.group_t, args.group_h, args.group_w = out.stride()
    args.out_t, args.out_h, args.out_w = (n * s for n, s in zip(out.stride()[2:], split, strict=True))
    args.groups_h, args.groups_w = split[1:]
    driver.launch(_kernel(v, x.device), args, min(args.tiles, processors), 384, v.shared, x.device)


@lru_cache(512)
def _kernel(v: Variant, device: torch.device) -> ctypes.c_void_p:
    """Of the current device, which is that one."""
    defines = {field.name.upper(): value for field, value in zip(fields(v), astuple(v), strict=True)}
    return driver.kernel(_wgmma(v.n, bool(v.half)) + SOURCE.read_text(), "conv", defines, v.shared)


def _wgmma(n: int, half: bool) -> str:
    """d [64, n] (+)= a [64, 16] b [n, 16]^T as one instruction; `add` is 0 where d holds nothing yet."""
    count, kind = n // 2, "f16" if half else "bf16"
    names = ", ".join(f"%{i}" for i in range(count))
    operands = ", ".join(f'"+f"(d[{i}])' for i in range(count))
    instruction = f"wgmma.mma_async.sync.aligned.m64n{n}k16.f32.{kind}.{kind}"
    return f"""
__device__ __forceinline__ void wgmma(float* d, unsigned long long a, unsigned long long b, int add) {{
    asm volatile("{{\\n.reg .pred p;\\nsetp.ne.b32 p, %{count + 2}, 0;\\n"
                 "{instruction} {{{names}}}, %{count}, %{count + 1}, p, 1, 1, 0, 0;\\n}}\\n"
                 : {operands} : "l"(a), "l"(b), "r"(add));
}}
"""
