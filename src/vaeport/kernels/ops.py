"""The operators: each with its definition in torch, the kernel that a GPU runs instead, and what torch.compile needs.

`torch.ops.vaeport.*`. Tensors are [B, C, *axes]; the kernels take and give channels-last memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

_LIBRARY = torch.library.Library("vaeport", "DEF")  # noqa: TOR901 - it lives as long as the process
Definition = Callable[..., Any]
BODIES: dict[str, Callable[..., Any]] = {}
"""operator -> what runs on a GPU in place of its definition; `bodies.py` fills it when the first one is wanted"""


def operator(schema: str, shapes: Definition) -> Callable[[Definition], Definition]:
    """Registers a definition; `shapes` gives its outputs without computing them."""
    name = schema.partition("(")[0]

    def register(definition: Definition) -> Definition:
        def on_gpu(*args: Any) -> Any:
            from vaeport.kernels import bodies

            return bodies.BODIES[name](*args)

        _LIBRARY.define(schema)
        _LIBRARY.impl(name, definition, "CPU")
        _LIBRARY.impl(name, on_gpu, "CUDA")
        torch.library.register_fake(f"vaeport::{name}", shapes, lib=_LIBRARY)
        return definition

    return register


def _conv_shape(
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
    lengths = [n + a + b - k + 1 for n, a, b, k in zip(x.shape[2:], before, after, weight.shape[2:], strict=True)]
    lengths[0] += 0 if past is None else past.shape[2]
    shape = x.shape[0], weight.shape[0] // split, lengths[0] * split, *lengths[1:]
    return x.new_empty(shape, memory_format=torch.channels_last_3d)


@operator(
    "conv(Tensor x, Tensor? past, Tensor weight, Tensor packed, Tensor? bias, Tensor? addend, "
    "int[] before, int[] after, bool repeat, int split) -> Tensor",
    _conv_shape,
)
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
    """A convolution of stride 1 over [B, C, T, H, W], plus an addend of its output's shape.

    past            frames in front of x
    packed          the weight as the kernel reads it, empty for the definition
    before, after   zeros around time, height, width; with `repeat`, in time, the first and last frame instead
    split           the i-th share of the output channels is frame i of as many frames
    """
    joined = x if past is None else torch.cat((past, x), 2)
    if repeat:
        ends = [joined[:, :, at].unsqueeze(2).expand(-1, -1, n, -1, -1) for at, n in ((0, before[0]), (-1, after[0]))]
        joined = torch.cat((ends[0], joined, ends[1]), 2)
        before, after = (0, *before[1:]), (0, *after[1:])
    padded = F.pad(joined, [n for pair in zip(reversed(before), reversed(after), strict=True) for n in pair])
    y = F.conv3d(padded, weight, bias)
    if split > 1:
        b, c, t, h, w = y.shape
        y = y.view(b, split, c // split, t, h, w).permute(0, 2, 3, 1, 4, 5).reshape(b, c // split, t * split, h, w)
    return y.clone() if addend is None else addend + y


@operator(
    "upsampled_conv(Tensor x, Tensor weight, Tensor packed, Tensor? bias) -> Tensor",
    lambda x, weight, packed, bias: x.new_empty(
        (x.shape[0], weight.shape[0], 2 * x.shape[2], 2 * x.shape[3]), memory_format=torch.channels_last
    ),
)
def upsampled_conv(x: Tensor, weight: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    """A 3 x 3 convolution, zeros around, of [N, C, H, W] with each position repeated to 2 x 2."""
    return F.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), weight, bias, padding=1)


@operator(
    "unit(Tensor x, Tensor? gain, float scale, float eps, float least, bool silu, int[] pad, str mode) -> Tensor",
    lambda x, gain, scale, eps, least, silu, pad, mode: _edged_shape(x, pad),
)
def unit(
    x: Tensor, gain: Tensor | None, scale: float, eps: float, least: float, silu: bool, pad: Sequence[int], mode: str
) -> Tensor:
    """silu(x * rsqrt(max(scale * |x|^2 + eps, least)) * gain), |x| over the channels of a position; gain [C].

    pad, mode   (top, bottom, left, right) positions around: "replicate" or "reflect"
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    y = wide * torch.rsqrt((wide.square().sum(1, keepdim=True) * scale + eps).clamp_min(least))
    y = y if gain is None else y * gain.view(-1, *(1,) * (x.dim() - 2))
    return edged((F.silu(y) if silu else y).to(x.dtype), pad, mode)


@operator(
    "moments(Tensor x, int groups) -> Tensor",
    lambda x, groups: x.new_empty((x.shape[0], 1, groups, 3), dtype=torch.float32),
)
def moments(x: Tensor, groups: int) -> Tensor:
    """Count, mean and sum of squared deviations of parts of each sample's groups: [B, parts, groups, 3]."""
    flat = x.to(torch.promote_types(x.dtype, torch.float32)).reshape(x.shape[0], groups, -1)
    var, mean = torch.var_mean(flat, 2, correction=0)
    count = torch.full_like(mean, flat.shape[2])
    return torch.stack((count, mean, var * flat.shape[2]), 2).unsqueeze(1)


@operator(
    "affine(Tensor notes, Tensor weight, Tensor bias, float eps) -> (Tensor, Tensor)",
    lambda notes, weight, bias, eps: tuple(notes.new_empty(len(notes), weight.numel()) for _ in range(2)),
)
def affine(notes: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Slope and offset [B, C] with which y = x * slope + offset is the group norm of these moments."""
    count, mean, squares = notes.double().unbind(3)
    total = count.sum(1, keepdim=True)
    centre = (count * mean).sum(1, keepdim=True) / total
    var = (squares + count * (mean - centre).square()).sum(1, keepdim=True) / total
    per = weight.numel() // notes.shape[2]
    inverse, centre = (t.squeeze(1).repeat_interleave(per, 1) for t in ((var + eps).rsqrt(), centre))
    slope = weight.double() * inverse
    return slope.to(notes.dtype), (bias.double() - centre * slope).to(notes.dtype)


@operator(
    "scaled(Tensor x, Tensor slope, Tensor offset, bool silu, int[] pad, str mode) -> Tensor",
    lambda x, slope, offset, silu, pad, mode: _edged_shape(x, pad),
)
def scaled(x: Tensor, slope: Tensor, offset: Tensor, silu: bool, pad: Sequence[int], mode: str) -> Tensor:
    """silu(x * slope + offset), slope and offset [B, C]; pad and mode as for `unit`."""
    shape = (*slope.shape, *(1,) * (x.dim() - 2))
    y = x.to(torch.promote_types(x.dtype, torch.float32)) * slope.view(shape) + offset.view(shape)
    return edged((F.silu(y) if silu else y).to(x.dtype), pad, mode)


def edged(x: Tensor, pad: Sequence[int], mode: str) -> Tensor:
    """[..., H, W] with (top, bottom, left, right) positions more."""
    if not any(pad):
        return x
    top, bottom, left, right = pad
    if x.dim() == 4:
        return F.pad(x, (left, right, top, bottom), mode=mode)
    return F.pad(x, (left, right, top, bottom, 0, 0), mode=mode)


def _edged_shape(x: Tensor, pad: Sequence[int]) -> Tensor:
    height, width = (n + a + b for n, a, b in zip(x.shape[-2:], pad[::2], pad[1::2], strict=True)) if pad else x.shape[-2:]
    last = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
    return x.new_empty((*x.shape[:-2], height, width), memory_format=last)


@register_flop_formula(torch.ops.vaeport.conv, get_raw=True)
def _conv_flops(x: Tensor, past: Any, weight: Tensor, *args: Any, out_val: Tensor, **kwargs: Any) -> int:
    return 2 * (out_val.numel() // out_val.shape[1]) * weight.shape[0] // args[-1] * prod(weight.shape[1:])


@register_flop_formula(torch.ops.vaeport.upsampled_conv, get_raw=True)
def _upsampled_conv_flops(x: Tensor, weight: Tensor, *args: Any, out_val: Tensor, **kwargs: Any) -> int:
    return 2 * out_val.numel() * x.shape[1] * 4
