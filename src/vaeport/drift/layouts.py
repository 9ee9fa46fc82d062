"""The reference's tensors in the native module's layout: calls joined in time, frames in the batch, tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def fitted(calls: Sequence[Tensor], shape: Sequence[int], batch: int, call: int = 0) -> Tensor | None:
    """What the reference had in `calls`, as a tensor of `shape`; None if there is no such reading.

    call    which call of the native module asks, for one that is called as often as the reference's
    batch   samples of the case
    """
    target = tuple(shape)
    if len(calls) > 1 and call < len(calls) and tuple(calls[call].shape) == target:
        return calls[call]
    for whole in _joined(calls, batch):
        rows = target[0] if target else 0
        if rows and rows < whole.shape[0] == batch and tuple(whole.shape[1:]) == target[1:]:
            # sample by sample
            return whole[call * rows : (call + 1) * rows] if (call + 1) * rows <= batch else None
        for view in _readings(whole, batch):
            if tuple(view.shape) == target:
                return view
            flat = min(view.dim(), len(target)) == 3
            if flat and view.shape[:2] == target[:2] and view.numel() == _count(target):
                return view.reshape(target)
        if target[:1] == (1,) and target[1:] == whole.shape[1:] and (whole == whole[:1]).all():
            return whole[:1]
    return None


def _joined(calls: Sequence[Tensor], batch: int) -> Iterator[Tensor]:
    """All calls as one tensor: along time, the last axis, or the batch that frames are folded into."""
    if not calls:
        return
    if len(calls) == 1:
        yield calls[0]
        return
    first = calls[0]
    for axis in (2, first.dim() - 1):
        if all(t.dim() == first.dim() > axis and _others(t, axis) == _others(first, axis) for t in calls):
            yield torch.cat(list(calls), axis)
    if all(t.dim() == first.dim() and t.shape[1:] == first.shape[1:] and t.shape[0] % batch == 0 for t in calls):
        unfolded = [t.unflatten(0, (batch, -1)) for t in calls]
        yield torch.cat(unfolded, 1).flatten(0, 1)
    if len(calls) % 2 == 0:
        # an encoder whose noise was read off was called twice
        yield from _joined(calls[: len(calls) // 2], batch)


def _readings(whole: Tensor, batch: int) -> Iterator[Tensor]:
    """The tensor as it is; with channels moved from or to the end; with frames taken out of the batch, or put in."""
    for view in (whole, whole.movedim(-1, 1) if whole.dim() > 2 else whole):
        yield view
        if view.dim() == 4 and view.shape[0] % batch == 0:
            yield view.unflatten(0, (batch, -1)).transpose(1, 2)
        if view.dim() == 5:
            yield view.transpose(1, 2).flatten(0, 1)
    if whole.dim() > 2:
        yield whole.movedim(1, -1)
        yield whole.flatten(2).transpose(1, 2).unsqueeze(1)
        yield whole.unsqueeze(1)


def _others(tensor: Tensor, axis: int) -> tuple[int, ...]:
    return tuple(tensor.shape[:axis] + tensor.shape[axis + 1 :])


def _count(shape: Sequence[int]) -> int:
    return int(torch.Size(shape).numel())
