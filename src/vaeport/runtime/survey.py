"""What every step of a half costs on one shape: the table that plans are made from, filled without any memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from vaeport.layers.layer import TIME, Barrier, Identity, Interval
from vaeport.runtime.profile import Kernel, Profile
from vaeport.runtime.program import Apply, Fork, Op, depth_after, grains, is_barrier, lengths, needed, run, touched
from vaeport.runtime.rehearsal import Rehearsal


@dataclass(frozen=True)
class Row:
    """One step, on all rows at once.

    stack       bytes of each tensor on the stack before it
    beside      bytes that it needs at its peak, more than those; its output is among them
    seconds     by the profile
    notes       of a barrier: the bytes of its notes
    note_seconds
                and how long they take
    """

    stack: tuple[int, ...]
    beside: int
    seconds: float
    notes: int = 0
    note_seconds: float = 0.0


class Survey:
    """The steps of a half on an input like x, a tensor on the meta device; layers too."""

    def __init__(self, ops: Sequence[Op], x: Tensor, axis: int, profile: Profile) -> None:
        self.ops, self.axis, self.profile = tuple(ops), axis, profile
        # where rows are cut, a barrier is settled, and local
        self.local = tuple(
            Apply(Identity(), op.name) if isinstance(op, Apply) and is_barrier(op, axis) else op for op in ops
        )
        self.rows: list[Row] = []
        self._overlaps: dict[tuple[int, int, int], float] = {}
        self.kernels: set[Kernel] = set()
        stack = [(x, 0)]
        with torch.no_grad():
            for op in ops:
                sizes = tuple(t.nbytes for t, _ in stack)
                with Rehearsal(profile) as counted:
                    after = run([op], stack, axis)
                notes = self._notes(op, stack[-1][0])
                self.rows.append(Row(sizes, counted.peak, counted.seconds, *notes))
                self.kernels |= counted.kernels
                stack = after
        ((self.out, _),) = stack
        self.input = x

    def _notes(self, op: Op, x: Tensor) -> tuple[int, float]:
        if not (isinstance(op, Apply) and isinstance(op.layer, Barrier) and is_barrier(op, self.axis)):
            return 0, 0.0
        with Rehearsal(self.profile) as counted:
            note = op.layer.note(x)
        return note.nbytes, counted.seconds

    def stack(self, i: int) -> tuple[int, ...]:
        """Bytes of each tensor on the stack before step i."""
        return self.rows[i].stack if i < len(self.rows) else (self.out.nbytes,)

    @cached_property
    def barriers(self) -> tuple[int, ...]:
        """The steps that wait for all rows and can be settled."""
        return tuple(i for i, row in enumerate(self.rows) if row.notes)

    @cached_property
    def places(self) -> tuple[int, ...]:
        """Where a pass may begin or end: before barriers, and wherever one tensor is all there is."""
        found = {0, len(self.ops)}
        depth = 1
        for i, op in enumerate(self.ops):
            if depth == 1:
                found.add(i)
            depth += depth_after(op)
        for i in self.barriers:
            while i and isinstance(self.ops[i - 1], Fork):
                i -= 1
            found.add(i)
        return tuple(sorted(found))

    def rows_after(self, i: int) -> int:
        """Rows of the last tensor before step i."""
        return self._lengths[i]

    @cached_property
    def _lengths(self) -> list[int]:
        stack = [self.input.shape[self.axis]]
        found = stack[:]
        for op in self.local:
            stack = lengths([op], stack, self.axis)
            found.append(stack[-1])
        return found

    def frames(self, i: int) -> int:
        """Frames of the last tensor before step i, 1 of an image."""
        return 1 if self.input.dim() < 5 else lengths(self.local[:i], [self.input.shape[TIME]], TIME)[-1]

    @staticmethod
    def is_local_in_time(op: Apply) -> bool:
        """Whether every frame goes through the step alone, or a barrier keeps it from being asked."""
        return op.layer.needs((8, 9), TIME) in (None, (8, 9))

    def overlap(self, i: int, j: int, rows: int) -> float:
        """How many times as many rows as it gives a window of a pass works on, at worst."""
        key = (i, j, rows)
        if key not in self._overlaps:
            self._overlaps[key] = self._overlap(i, j, rows)
        return self._overlaps[key]

    def _overlap(self, i: int, j: int, rows: int) -> float:
        total = self.rows_after(j)
        if rows >= total:
            return 1.0
        middle: Interval = (rows * (total // rows // 2), min(rows * (total // rows // 2) + rows, total))
        depth = len(self.stack(i))
        ops = self.local[i:j]
        wanted = needed(ops, [middle] * (len(self.stack(j)) - touched(ops, depth)), self.axis)
        first, last = wanted[-1]
        first -= first % grains(ops, self.axis, len(wanted))[-1]
        share = (middle[1] - middle[0]) / total
        return min((last - first) / self.rows_after(i), 1.0) / share
