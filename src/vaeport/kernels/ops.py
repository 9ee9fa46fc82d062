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

from vaeport.layers import GroupMean, RepeatChannels, Shuffle, TileChannels, Unshuffle

_LIBRARY = torch.library.Library("vaeport", "DEF")  # lives as long as the process
OPS: Any = torch.ops.vaeport
"""What is registered here; imported from here, so that it is"""
Definition = Callable[..., Any]


def operator(schema: str, shapes: Definition) -> Callable[[Definition], Definition]:
    """Registers a definition, which gradients go through; `shapes` gives its outputs without computing them."""
    name = schema.partition("(")[0]

    def register(definition: Definition) -> Definition:
        def on_gpu(*args: Any) -> Any:
            from vaeport.kernels import bodies

            return bodies.BODIES[name](*args)

        def with_gradients(*args: Any) -> Any:
            if torch.is_grad_enabled() and any(isinstance(a, Tensor) and a.requires_grad for a in args):
                return definition(*args)
            with torch._C._AutoDispatchBelowAutograd():
                return getattr(OPS, name)(*args)

        _LIBRARY.define(schema)
        _LIBRARY.impl(name, definition, "CPU")
        _LIBRARY.impl(name, on_gpu, "CUDA")
        _LIBRARY.impl(name, with_gradients, "Autograd")
        torch.library.register_fake(f"vaeport::{name}", shapes, lib=_LIBRARY)
        return definition

    return register


def conv_out(
    x: Tensor,
    past: Tensor | None,
    weight: Tensor,
    before: Sequence[int],
    after: Sequence[int],
    stride: Sequence[int],
    dilation: int,
    split: Sequence[int],
) -> Tensor:
    """An empty output, with channels last where they are many; few lie as media do."""
    sizes = (x.shape[2] + (0 if past is None else past.shape[2]), *x.shape[3:])
    spans = (*weight.shape[2:4], (weight.shape[4] - 1) * dilation + 1)
    rows = zip(sizes, before, after, spans, stride, split, strict=True)
    axes = [((n + a + b - k) // s + 1) * f for n, a, b, k, s, f in rows]
    channels = weight.shape[0] // prod(split)
    if channels % 32:
        return x.new_empty(len(x), channels, *axes)
    y: Tensor = x.new_empty(len(x), *axes, channels).movedim(-1, 1)
    return y


@operator(
    "conv(Tensor x, Tensor? past, Tensor weight, Tensor? bias, Tensor packed, Tensor? packed_bias, Tensor? addend, "
    "int[] before, int[] after, int[] stride, int dilation, bool repeat, int[] split, str order) -> Tensor",
    lambda x, past, weight, bias, packed, packed_bias, addend, before, after, stride, dilation, repeat, split, order: (
        conv_out(x, past, weight, before, after, stride, dilation, split)
    ),
)
def conv(
    x: Tensor,
    past: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    packed: Tensor,
    packed_bias: Tensor | None,
    addend: Tensor | None,
    before: Sequence[int],
    after: Sequence[int],
    stride: Sequence[int],
    dilation: int,
    repeat: bool,
    split: Sequence[int],
    order: str,
) -> Tensor:
    """A convolution over [B, C, T, H, W], plus an addend of its output's shape.

    past            frames in front of x
    packed, packed_bias     both as the kernel reads them, in the order of groups; empty for the definition
    before, after   zeros around time, height, width; with `repeat`, in time, the first and last frame instead
    dilation        along the width
    split, order    factors by which channels become time, height, width: in "groups" one after the other (what
                    `ChannelsToTime` does), or as `Shuffle` has them ("shuffle", "width-first")
    """
    joined = x if past is None else torch.cat((past, x), 2)
    if repeat:
        ends = [joined[:, :, at].unsqueeze(2).expand(-1, -1, n, -1, -1) for at, n in ((0, before[0]), (-1, after[0]))]
        joined = torch.cat((ends[0], joined, ends[1]), 2)
        before, after = (0, *before[1:]), (0, *after[1:])
    padded = F.pad(joined, [n for pair in zip(reversed(before), reversed(after), strict=True) for n in pair])
    y = F.conv3d(padded, weight, bias, stride, 0, (1, 1, dilation))
    if prod(split) > 1:
        y = _groups(y, split) if order == "groups" else Shuffle(tuple(split), width_first=order != "shuffle")(y)  # type: ignore[arg-type]
    return y.clone() if addend is None else addend + y


def _groups(x: Tensor, split: Sequence[int]) -> Tensor:
    """Groups of channels to positions, the group of the last axis the fastest."""
    batch, channels, *axes = x.shape
    y = x.view(batch, *split, channels // prod(split), *axes).permute(0, 4, 5, 1, 6, 2, 7, 3)
    return y.reshape(batch, -1, *(n * f for n, f in zip(axes, split, strict=True)))


@operator(
    "upsampled_conv(Tensor x, Tensor weight, Tensor? bias, Tensor packed, Tensor? addend, bool frames) -> Tensor",
    lambda x, weight, bias, packed, addend, frames: x.new_empty(upsampled_shape(x, weight, frames)).movedim(-1, 1),
)
def upsampled_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, packed: Tensor, addend: Tensor | None, frames: bool
) -> Tensor:
    """A convolution of [B, C, T, H, W] whose positions are repeated to 2 x 2, plus an addend of its output's shape.

    weight  [O, C, 1, 3, 3]: zeros around a frame. [O, C, 3, 3, 3]: its edges again, in time frame 0 and the past;
            with `frames` all but the first are repeated too
    """
    size = (2 if frames else 1, 2, 2)
    many = x if not frames else torch.cat((x[:, :, :1], x[:, :, 1:].repeat_interleave(2, 2)), 2)
    many = F.interpolate(many, scale_factor=[1.0, *map(float, size[1:])], mode="nearest")
    if weight.shape[2] == 3:
        many = F.pad(many, (1, 1, 1, 1, 2, 0), mode="replicate")
    y = F.conv3d(many, weight, bias, padding=(0, 1, 1) if weight.shape[2] == 1 else 0)
    return y if addend is None else addend + y


def upsampled_shape(x: Tensor, weight: Tensor, frames: bool) -> tuple[int, ...]:
    """[B, T', 2H, 2W, O]."""
    return len(x), 2 * x.shape[2] - 1 if frames else x.shape[2], 2 * x.shape[3], 2 * x.shape[4], len(weight)


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
    "snake(Tensor x, Tensor log_alpha, Tensor log_beta) -> Tensor", lambda x, log_alpha, log_beta: _edged_shape(x, [])
)
def snake(x: Tensor, log_alpha: Tensor, log_beta: Tensor) -> Tensor:
    """x + sin(exp(log_alpha) x)^2 / (exp(log_beta) + 1e-9), per channel of [B, C, L]."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    alpha, beta = (torch.exp(p.to(wide.dtype)).unsqueeze(-1) for p in (log_alpha, log_beta))
    return (wide + torch.sin(alpha * wide).square() / (beta + 1e-9)).to(x.dtype)


@operator(
    "moments(Tensor x, int groups) -> Tensor",
    lambda x, groups: x.new_empty((x.shape[0], 1, groups, 3), dtype=torch.promote_types(x.dtype, torch.float32)),
)
def moments(x: Tensor, groups: int) -> Tensor:
    """Count, mean and sum of squared deviations of parts of each sample's groups: [B, parts, groups, 3]."""
    flat = x.to(torch.promote_types(x.dtype, torch.float32)).reshape(x.shape[0], groups, -1)
    var, mean = torch.var_mean(flat, 2, correction=0)
    count = torch.full_like(mean, flat.shape[2])
    return torch.stack((count, mean, var * flat.shape[2]), 2).unsqueeze(1)


def merged(notes: Tensor) -> Tensor:
    """Count, mean and sum of squared deviations of all parts together: [B, groups, 3], float64."""
    count, mean, squares = notes.double().unbind(3)
    total = count.sum(1, keepdim=True)
    centre = (count * mean).sum(1, keepdim=True) / total
    squares = (squares + count * (mean - centre).square()).sum(1, keepdim=True)
    return torch.stack((total, centre, squares), 3).squeeze(1)


@operator(
    "affine(Tensor notes, Tensor weight, Tensor bias, float eps) -> (Tensor, Tensor)",
    lambda notes, weight, bias, eps: tuple(notes.new_empty(len(notes), weight.numel()) for _ in range(2)),
)
def affine(notes: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Slope and offset [B, C] with which y = x * slope + offset is the group norm of these moments."""
    total, centre, squares = merged(notes).unbind(2)
    var = squares / total
    per = weight.numel() // notes.shape[2]
    inverse, centre = (t.repeat_interleave(per, 1) for t in ((var + eps).rsqrt(), centre))
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


@operator(
    "weighted(Tensor scores, float scale, ScalarType dtype) -> Tensor",
    lambda scores, scale, dtype: scores.new_empty(scores.shape, dtype=dtype),
)
def weighted(scores: Tensor, scale: float, dtype: torch.dtype) -> Tensor:
    """softmax(scores * scale) over the last axis, in `dtype`."""
    return torch.softmax(scores * scale, -1).to(dtype)


def _last(x: Tensor) -> Tensor:
    """A copy with channels last in memory."""
    y: Tensor = x.movedim(1, -1).clone(memory_format=torch.contiguous_format).movedim(-1, 1)
    return y


def edged(x: Tensor, pad: Sequence[int], mode: str) -> Tensor:
    """[..., H, W] with (top, bottom, left, right) positions more."""
    if not any(pad):
        return x
    top, bottom, left, right = pad
    if x.dim() == 4:
        return F.pad(x, (left, right, top, bottom), mode=mode)
    return F.pad(x, (left, right, top, bottom, 0, 0), mode=mode)


def _edged_shape(x: Tensor, pad: Sequence[int]) -> Tensor:
    top, bottom, left, right = pad or (0, 0, 0, 0)
    axes = (*x.shape[2:-2], x.shape[-2] + top + bottom, x.shape[-1] + left + right) if x.dim() > 3 else x.shape[2:]
    y: Tensor = x.new_empty(len(x), *axes, x.shape[1]).movedim(-1, 1)
    return y


@operator(
    "shuffled(Tensor x, int[] factors, bool width_first, int repeat, int tile) -> Tensor",
    lambda x, factors, width_first, repeat, tile: x.new_empty(
        len(x), *(n * f for n, f in zip(x.shape[2:], factors, strict=True)), x.shape[1] * repeat // prod(factors) * tile
    ).movedim(-1, 1),
)
def shuffled(x: Tensor, factors: Sequence[int], width_first: bool, repeat: int, tile: int) -> Tensor:
    """`RepeatChannels`, `Shuffle`, `TileChannels`, one after the other."""
    t, h, w = factors
    y: Tensor = TileChannels(tile)(Shuffle((t, h, w), width_first=width_first)(RepeatChannels(repeat)(x)))
    return _last(y)


@operator(
    "unshuffled(Tensor x, int[] factors, bool width_first, int groups) -> Tensor",
    lambda x, factors, width_first, groups: x.new_empty(
        len(x), *(n // f for n, f in zip(x.shape[2:], factors, strict=True)), groups or x.shape[1] * prod(factors)
    ).movedim(-1, 1),
)
def unshuffled(x: Tensor, factors: Sequence[int], width_first: bool, groups: int) -> Tensor:
    """`Unshuffle`, and if there are groups, `GroupMean`."""
    t, h, w = factors
    y: Tensor = Unshuffle((t, h, w), width_first=width_first)(x)
    return _last(GroupMean(groups)(y) if groups else y)


@operator(
    "repeated(Tensor x, int[] factors, bool once, int[] pad, str mode) -> Tensor",
    lambda x, factors, once, pad, mode: x.new_empty(
        len(x),
        x.shape[2] * factors[0] - (factors[0] - 1 if once else 0) + sum(pad[:2]),
        x.shape[3] * factors[1] + sum(pad[2:4]),
        x.shape[4] * factors[2] + sum(pad[4:]),
        x.shape[1],
    ).movedim(-1, 1),
)
def repeated(x: Tensor, factors: Sequence[int], once: bool, pad: Sequence[int], mode: str) -> Tensor:
    """Each position of [B, C, T, H, W] as many times as the factors say, then its edges (front, back, top, ..., right).

    once    frame 0 is not repeated in time; nothing is in front of it then
    mode    of the edges of frames: "replicate" or "reflect"; time is replicated
    """
    y = x
    for axis, factor in zip((2, 3, 4), factors, strict=True):
        y = y.repeat_interleave(factor, axis)
    y = y[:, :, factors[0] - 1 if once else 0 :].clone()
    y = F.pad(y, (0, 0, 0, 0, *pad[:2]), mode="replicate")
    return _last(F.pad(y, (*pad[4:], *pad[2:4], 0, 0), mode=mode))


@register_flop_formula(torch.ops.vaeport.conv, get_raw=True)
def _conv_flops(x: Tensor, past: Any, weight: Tensor, *args: Any, out_val: Tensor, **kwargs: Any) -> int:
    places: int = out_val.numel() // out_val.shape[1] // prod(args[-2])
    return 2 * places * weight.numel()


@register_flop_formula(torch.ops.vaeport.upsampled_conv, get_raw=True)
def _upsampled_conv_flops(x: Tensor, weight: Tensor, *args: Any, out_val: Tensor, **kwargs: Any) -> int:
    return 2 * out_val.numel() * x.shape[1] * 4 * (1 if weight.shape[2] == 1 else 2 if args[-1] else 3)
