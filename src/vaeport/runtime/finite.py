"""Results that are not finite, and the layer in which they became so.

Whether a result is finite is found out beside the run, and told by `NotFiniteError` with its positions. Then the half
runs once more on what these positions depend on, while every layer's input and output is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vaeport.errors import InputError
from vaeport.layers import Layer, stream
from vaeport.layers.layer import Interval
from vaeport.runtime.passes import is_out_of_memory

_CALLS = ("forward", "step", "plus", "step_plus")
"""how layers are run"""


class NotFiniteError(Exception):
    """Positions [start, stop) along a result's axis 2 hold values that are not finite; `overflow` makes it an error."""

    def __init__(self, positions: Interval) -> None:
        super().__init__(f"positions {positions[0]} to {positions[1] - 1} are not finite")
        self.positions = positions


class _FoundError(Exception):
    """A call of a layer that made of a finite input what is not."""

    def __init__(self, path: str, layer: nn.Module, x: Tensor | None, y: Tensor) -> None:
        super().__init__(path)
        self.path, self.layer, self.x, self.y = path, layer, x, y


def require_finite(y: Tensor, layer: Layer, x: Tensor, *, name: str, where: object = None) -> None:
    """InputError if `y`, which `layer` gave for `x`, is not finite; it names the layer within that made it so.

    name    of `layer`: "encoder" or "decoder"
    where   what the input was
    """
    if not _finite(x):
        raise InputError(f"the input of the {name} is not finite", where=where, found=_told(x))
    if not _finite(y):
        raise overflow(layer, (x,), name=name, where=where)


def overflow(
    layer: Layer,
    pieces: Iterable[Tensor],
    *,
    name: str,
    axis: int | None = None,
    outputs: Interval = (0, 1),
    where: object = None,
) -> InputError:
    """The error for a result of `layer` that is not finite, with the layer within it that made it so.

    pieces      the input again: a stream along `axis`, from its start; with None, inputs that ran whole
    outputs     positions of the result along the axis that are not finite
    """
    why = "all gave finite values when they ran once more, one by one, on what these positions depend on"
    try:
        with torch.no_grad(), _watched(layer, name):
            if axis is None:
                for piece in pieces:
                    layer(piece)
            else:
                for _ in stream(layer, _needed(layer, pieces, axis, outputs), axis):
                    pass
    except _FoundError as found:
        dtype, x = str(found.y.dtype).removeprefix("torch."), found.x
        broken = [key for key, p in found.layer.named_parameters(recurse=False) if not _finite(p)]
        told = _told(found.y) + ("" if x is None else f"; its input goes up to {_largest(x):.4g}")
        if broken:
            told += f"; its {' and '.join(broken)} are not finite in {dtype}"
        largest = torch.finfo(found.y.dtype).max
        fix = f'run the {name} in bfloat16 or float32: load(..., {name}_dtype="bfloat16"), or --dtype bfloat16'
        if largest > 1e30:
            fix = f"check the checkpoint and the input: {dtype} itself goes up to {largest:.2g}"
        expected = f"finite numbers; {dtype} ends at {largest:.6g}"
        return InputError(f"{found.path} overflows in {dtype}", where=where, expected=expected, found=told, fix=fix)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        why = "there was no memory for running it once more"
    fix = f"run the {name} in bfloat16 or float32, and check the checkpoint"
    return InputError(
        f"the result of the {name} is not finite", where=where, found=f"no layer can be told: {why}", fix=fix
    )


@contextmanager
def _watched(layer: Layer, name: str) -> Iterator[None]:
    """A block in which the first call that makes what is not finite of what is ends the run with a `_FoundError`.

    A layer is called before those that it lies in are done, so the first is the innermost.
    """
    before: list[tuple[nn.Module, str, Any]] = []
    try:
        for path, module in layer.named_modules(prefix=name):
            for call in (call for call in _CALLS if hasattr(module, call)):
                before.append((module, call, vars(module).get(call)))
                setattr(module, call, _watching(getattr(module, call), path, module))
        yield
    finally:
        for module, call, own in before:
            delattr(module, call)
            if own is not None:
                setattr(module, call, own)


def _watching(call: Callable[..., Any], path: str, layer: nn.Module) -> Callable[..., Any]:
    def watched(x: Any, *rest: Any, **named: Any) -> Any:
        given = [t for t in (x, *rest) if isinstance(t, Tensor)]
        fine = all(_finite(t) for t in given)  # before the call, which may reuse their memory
        result = call(x, *rest, **named)
        y = result[0] if isinstance(result, tuple) else result
        if fine and isinstance(y, Tensor) and not _finite(y):
            raise _FoundError(path, layer, x if isinstance(x, Tensor) else None, y)
        return result

    return watched


def _needed(layer: Layer, pieces: Iterable[Tensor], axis: int, outputs: Interval) -> Iterator[Tensor]:
    """The first piece, at which a stream's edge rules apply, and those that the outputs depend on, in phase with it."""
    needs, step, at = layer.needs(outputs, axis), layer.rate(axis).denominator, 0
    for piece in pieces:
        n = piece.shape[axis]
        if at == 0:
            first, start = n, 0 if needs is None else max(0, needs[0] - (needs[0] - n) % step)
        if needs is not None and at >= max(needs[1], first):
            return
        if at == 0 or at + n > start:
            yield piece
        at += n


def _finite(x: Tensor) -> bool:
    return bool(x.isfinite().all())


def _told(x: Tensor) -> str:
    bad = int((~x.isfinite()).sum())
    return f"{bad} of {x.numel()} values NaN or infinite, the others up to {_largest(x):.6g}"


def _largest(x: Tensor) -> float:
    """The largest finite magnitude."""
    return float(x.where(x.isfinite(), 0).abs().max())
