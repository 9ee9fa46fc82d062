"""Pixels (uint8, channels last) to the values a model works on (floats in [-1, 1], channels first), and back."""

from __future__ import annotations

import torch
from torch import Tensor

from vaeport.errors import InputError


def to_model(pixels: Tensor, *, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None) -> Tensor:
    """Image `[H, W, 3]` to `[3, H, W]`, video `[T, H, W, 3]` to `[3, T, H, W]`; 0..255 becomes -1..1.

    Every value is the one of `dtype` nearest to `pixel / 127.5 - 1`, so `to_pixels` returns all 256 exactly, in
    bfloat16 and float16 too. Pixels travel to `device` as bytes and are converted there.

    Raises:
        InputError: not uint8, not of one of the two shapes, or `dtype` is not a floating type.
    """
    if pixels.dtype != torch.uint8 or pixels.ndim not in (3, 4) or pixels.shape[-1] != 3:
        raise InputError(
            "these are not pixels",
            expected="uint8 of shape [H, W, 3] or [T, H, W, 3]",
            found=f"{pixels.dtype} of shape {list(pixels.shape)}",
        )
    if not dtype.is_floating_point:
        raise InputError("models work on floating types", expected="float32, bfloat16, ...", found=dtype)
    channels_first = pixels.to(device).movedim(-1, 0)
    values = torch.empty(channels_first.shape, dtype=dtype, device=channels_first.device)
    # p - 127.5 is exact in eight bits of mantissa, which leaves the division as the only rounding. Told a number, CUDA
    # would multiply with its reciprocal, which is rounded too; by a tensor, it divides.
    return values.copy_(channels_first).sub_(127.5).div_(values.new_full((), 127.5))


def to_pixels(values: Tensor, *, check: bool = True) -> Tensor:
    """Image `[3, H, W]` to `[H, W, 3]`, video `[3, T, H, W]` to `[T, H, W, 3]`; -1..1 becomes 0..255, uint8.

    Values outside [-1, 1] are clamped. The result stays on the device of `values`; `check` waits for that device, and
    without it nobody tells of values that are not finite, which become any pixels.

    Raises:
        InputError: not a floating type, not of one of the two shapes, or a value that is not finite.
    """
    if not values.is_floating_point() or values.ndim not in (3, 4) or values.shape[0] != 3:
        raise InputError(
            "these are not image or video values",
            expected="a floating type of shape [3, H, W] or [3, T, H, W]",
            found=f"{values.dtype} of shape {list(values.shape)}",
        )
    if check and not torch.isfinite(values).all():
        bad = int((~torch.isfinite(values)).sum())
        raise InputError(
            "the values are not finite",
            expected="finite numbers",
            found=f"{bad} of {values.numel()} are NaN or infinite",
            fix="the model overflowed or its weights are damaged: try float32, and check the checkpoint",
        )
    channels_last = values.detach().movedim(0, -1)
    wide = torch.promote_types(values.dtype, torch.float32)
    pixels = torch.empty(channels_last.shape, dtype=wide, device=values.device)
    return pixels.copy_(channels_last).add_(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
