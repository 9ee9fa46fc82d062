"""What a GPU runs in place of each operator's definition, where it can; elsewhere the definition itself."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from itertools import product
from typing import Any

import torch
from torch import Tensor

from vaeport.errors import BlockedError
from vaeport.kernels import hopper_conv, moves, norms, ops, selfcheck
from vaeport.kernels.norms import dense


def conv(*given: Any) -> Tensor:
    """On the tensor cores of Hopper."""
    x, past, weight, _, packed, packed_bias, addend, before, after, stride, dilation, repeat, split, _ = given
    out = ops.conv_out(x, past, weight, before, after, stride, dilation, split)
    residual = None if addend is None else dense(addend)
    if residual is not None and residual.stride() != out.stride():
        out = torch.empty_like(residual)
    _run(
        _readable(x), packed, packed_bias, len(weight), weight.shape[2:], out,
        pad=before, stride=stride, dilation=dilation, split=split,
        past=None if past is None else _readable(past), repeat=repeat, residual=residual,
    )  # fmt: skip
    return out


def upsampled_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, packed: Tensor, addend: Tensor | None, frames: bool
) -> Tensor:
    """Each of the 2 x 2 outputs of a position, and each of two frames, is a convolution of fewer taps of its own."""
    y = torch.empty(ops.upsampled_shape(x, weight, frames), dtype=x.dtype, device=x.device).movedim(-1, 1)
    edges = weight.shape[2] > 1
    x = moves.repeated(x, (1, 1, 1), False, (0, 0, 1, 1, 1, 1), "replicate") if edges else _readable(x)
    residual = None if addend is None else dense(addend)
    taps = (weight.shape[2] - 1 if frames else weight.shape[2], 2, 2)
    for i, (time, a, b) in enumerate(product(range(2 if frames else 1), (0, 1), (0, 1))):
        # every second frame begins with the first, which has no past but itself
        at = (slice(None), slice(None), slice(time, None, 2) if frames else slice(None))
        out, under = (t if t is None else t[at][..., a::2, b::2] for t in (y, residual))
        assert out is not None
        if not out.shape[2]:
            continue
        pad = (0 if time else taps[0] - 1, *((-a, -b) if edges else (1 - a, 1 - b)))
        _run(x, packed[i], bias, len(weight), taps, out, pad=pad, repeat=edges, residual=under)
    return y


def _readable(x: Tensor) -> Tensor:
    """x as the copy engine reads it: channels next to each other, all else at multiples of 16 bytes."""
    steps = [s for n, s in zip(x.shape, x.stride(), strict=True) if n > 1 and s != 1]
    if x.stride(1) == 1 and x.shape[1] % 8 == 0 and x.data_ptr() % 16 == 0 and all(s % 8 == 0 for s in steps):
        return x
    channels = -(-x.shape[1] // 8) * 8
    wide = x.new_zeros if channels != x.shape[1] else x.new_empty
    y = wide(len(x), *x.shape[2:], channels).movedim(-1, 1)
    y[:, : x.shape[1]].copy_(x)
    return y


def _run(x: Tensor, *args: Any, **kwargs: Any) -> None:
    """`hopper_conv.run`, of whose variants each is tried on a small input before it is trusted."""
    v = hopper_conv.variant_for(x, *args, **kwargs)
    if (v, x.device) not in _TRIED:
        _TRIED.add((v, x.device))
        _require(f"conv {v}", selfcheck.variant_error(v, x.device), x.dtype)
    hopper_conv.run(x, *args, **kwargs, variant=v)


def _require(what: str, error: float, dtype: torch.dtype) -> None:
    if not error <= selfcheck.LARGEST[dtype]:
        expected = f"at most {selfcheck.LARGEST[dtype]:g}"
        raise BlockedError(f"a kernel gives wrong results: {what}", expected=expected, found=f"{error:.2g}")


def _guarded(name: str, body: Callable[..., Any]) -> Callable[..., Any]:
    """The body; the definition, and a RuntimeWarning, once it was found wrong or would not run."""

    def run(*args: Any) -> Any:
        key = (name, args[0].device, args[0].dtype)
        try:
            if key not in _TRUSTED:
                _TRUSTED[key] = True  # for the check itself, which runs it
                if name not in _BY_VARIANT:
                    _check(name, *key[1:])
            if _TRUSTED[key]:
                with torch.cuda.device(args[0].device) if args[0].is_cuda else nullcontext():
                    return body(*args)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a compiler or a driver raises
            _TRUSTED[key] = False
            said = str(error).strip().splitlines() or [""]
            reason = f"{type(error).__name__}: {said[0]}"
            warnings.warn(
                f"vaeport::{name} runs without its kernel from here on ({reason})", RuntimeWarning, stacklevel=2
            )
        return getattr(ops, name)(*args)

    return run


def _check(name: str, device: torch.device, dtype: torch.dtype) -> None:
    """One case of the operator, where it takes the type."""
    for kind, what, given in selfcheck.cases(dtype if dtype in selfcheck.LARGEST else torch.bfloat16, str(device), 0):
        if kind == name:
            _require(f"{name} {what}", selfcheck.error(name, given), dtype)
            return


_TRUSTED: dict[tuple[Any, ...], bool] = {}
_TRIED: set[tuple[hopper_conv.Variant, torch.device]] = set()
_BY_VARIANT = ("conv", "upsampled_conv")
_BODIES: dict[str, Callable[..., Any]] = {
    "conv": conv,
    "upsampled_conv": upsampled_conv,
    "unit": norms.unit,
    "snake": norms.snake,
    "moments": norms.moments,
    "affine": norms.affine,
    "scaled": norms.scaled,
    "weighted": norms.weighted,
    "shuffled": moves.shuffled,
    "unshuffled": moves.unshuffled,
    "repeated": moves.repeated,
}
BODIES = {name: _guarded(name, body) for name, body in _BODIES.items()}
"""operator -> what runs on a GPU"""
