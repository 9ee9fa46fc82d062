"""The executor of plans: an encoder or decoder in passes over bands, exactly.

A pass runs some steps window by window: it reads the rows that a window of its outputs needs, of everything on the
stack, and appends its outputs to bands. Barriers inside a pass are settled first, each by going over the pass' input
once more; a barrier right behind a pass takes its notes while the pass writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vaeport.errors import BlockedError
from vaeport.layers.layer import SAMPLES, TIME, Barrier, Identity, Interval, Layer, stream
from vaeport.runtime.bands import Bands, cuts
from vaeport.runtime.program import (
    Apply,
    Fork,
    Op,
    Placed,
    grains,
    is_barrier,
    layer_of,
    lengths,
    needed,
    run,
    touched,
    without_loose_forks,
)

_SLICES, _FEWEST_ROWS = 4, 4
"""slices of host memory to a window, and how small they may be: what a window reads of its neighbours is moved too"""
Progress = Callable[[int, int], None]
"""Passes done, and how many there are"""
Make = Callable[[int, int], list[Tensor]]
"""What a window of outputs start..stop-1 gives"""
Keep = Callable[[int, int, list[Tensor]], None]


@dataclass(frozen=True)
class Pass:
    """Steps start..stop-1, for `rows` outputs at a time.

    pieces      lengths of the first and the other pieces in time, in which each window runs; None: whole
    resident    bytes of what it writes that stay on the device, the rest waits in host memory; None: all
    """

    start: int
    stop: int
    rows: int
    pieces: tuple[int, int] | None = None
    resident: int | None = None


class Passes:
    """One run of the steps of a half on x, in windows along `axis`, in pieces along `time`.

    Audio has one axis for both, and no windows.

    out         where the result goes, on any device; None: a new tensor on that of x
    halves      whether a window that does not fit into memory is halved; not where other ranks rely on its size
    finished    frames of it that are there, while a pass without windows streams
    """

    def __init__(
        self, ops: Sequence[Op], x: Tensor, axis: int, out: Tensor | None = None, *, halves: bool = True
    ) -> None:
        self.halves = halves
        self.ops, self.axis, self.device, self.out = list(ops), axis, x.device, out
        self.time = SAMPLES if x.dim() == 3 else TIME
        self.geometry = tuple(ops)  # steps that are done are forgotten in self.ops
        self.stack, self.rows = [Bands.of(x, axis)], x.shape[axis]
        self.notes: list[Tensor] = []
        self.halved = self.finished = 0

    def run(self, passes: Sequence[Pass], progress: Progress | None = None) -> Tensor:
        """The last pass' output. BlockedError where a single row is too much for the memory."""
        for number, p in enumerate(passes, 1):
            following = passes[number] if number < len(passes) else None
            while not self._done(p, following):
                # without windows barriers see everything at once; with them they are settled first
                p = replace(p, rows=-(-min(p.rows, self._rows_after(p)) // 2))
            if progress:
                progress(number, len(passes))
        assert self.out is not None
        return self.out

    def _done(self, p: Pass, following: Pass | None) -> bool:
        """Carries out a pass; False if it has to be tried again in windows, since memory does not hold all of it."""
        whole = p.rows >= self._rows_after(p)
        try:
            if not whole:
                self._settle_within(p)
            if p.pieces is None:
                self._write(p, following, whole=whole)
            else:
                self._stream(p, following, whole=whole)
        except _TooLargeError as refused:
            if p.pieces is not None:  # windows of whole streams overlap by all that they reach: another plan is better
                what = "out of memory, for all that it ran in pieces of time"
                raise BlockedError(what, found=refused, fix="plan with a smaller budget") from None
            self._shrink(p.rows)
            return False
        for i in range(p.start, p.stop):  # what settled barriers hold is not needed again
            self.ops[i] = Apply(Identity())
        return True

    def _settle_within(self, p: Pass) -> None:
        for i in range(p.start, p.stop):
            if (barrier := self._barrier(i)) is None:
                continue
            if not self.notes:
                self._take_notes(barrier, without_loose_forks(self.ops[p.start : i]), p)
            self.ops[i] = Apply(barrier.settled(self.notes, self.axis))
            self.notes = []

    def _take_notes(self, barrier: Barrier, before: Sequence[Op], p: Pass) -> None:
        """Of each window of what the steps make of the stack, which stays as it is."""
        layer = None if p.pieces is None else layer_of(before)

        def make(start: int, stop: int) -> list[Tensor]:
            if layer is not None:
                assert p.pieces is not None
                found = self._in_pieces(before, layer, p.pieces, start, stop)
            else:
                y, at = run(before, self._inputs(before, [(start, stop)]), self.axis)[-1]
                found = iter((y.narrow(self.axis, start - at, stop - start),))
            return [barrier.note(part) for part in found]

        def keep(start: int, stop: int, notes: list[Tensor]) -> None:
            self.notes += notes

        self._windows(self._lengths_after(before)[-1], p.rows, make, keep)

    def _write(self, p: Pass, then: Pass | None, *, whole: bool) -> None:
        ops = self.ops[p.start : p.stop]
        kept = touched(ops, len(self.stack))
        sizes = self._lengths_after(ops)[kept:]
        sinks = [Bands(self.axis, self.device, p.resident) for _ in sizes]
        following, total = self._barrier_behind(then), sizes[-1]

        def make(start: int, stop: int) -> list[Tensor]:
            parts = [_share((start, stop), total, n) for n in sizes]
            placed = run(ops, self._inputs(ops, parts), self.axis)
            return [y.narrow(self.axis, a - at, b - a) for (y, at), (a, b) in zip(placed, parts, strict=True)]

        def keep(start: int, stop: int, found: list[Tensor]) -> None:
            if then is None:
                self._put(found[-1], start, total)
                return
            self._append(sinks, found, following)
            if stop < total:
                later = self._reach(ops, [_share((stop, total), total, n) for n in sizes])
                for source, (first, _) in zip(self.stack[kept:], later, strict=True):
                    source.release(first)

        fixed = whole and any(is_barrier(op, self.axis) for op in ops)
        self._windows(total, p.rows, make, keep, fixed=fixed)
        self.stack[kept:] = sinks

    def _append(self, sinks: Sequence[Bands], bands: Sequence[Tensor], following: Barrier | None) -> None:
        """Keeps a window's outputs, and the note that the barrier behind the pass takes of the last of them."""
        notes = [] if following is None else [following.note(bands[-1])]
        kept = [sink.kept(y) for sink, y in zip(sinks, bands, strict=True)]
        # nothing may fail from here on, or a window that is tried again would be there twice
        self.notes += notes
        for sink, band in zip(sinks, kept, strict=True):
            sink.append(band)

    def _stream(self, p: Pass, then: Pass | None, *, whole: bool) -> None:
        """A pass whose windows run in pieces of time, one window after the other."""
        ops, (source,) = self.ops[p.start : p.stop], self.stack
        layer, total = layer_of(ops), self._lengths_after(ops)[-1]
        assert p.pieces is not None
        pieces, later = p.pieces, layer.length(source.size(self.time), self.time)
        # pieces are kept as they come if they are whole
        sink = Bands(self.time if whole else self.axis, self.device, p.resident, self._slices(total, then, whole=whole))
        following = self._barrier_behind(then)

        def make(start: int, stop: int) -> list[Tensor]:
            filled = 0
            band: Tensor | None = None
            for part in self._in_pieces(ops, layer, pieces, start, stop):
                if then is None:
                    self._put(part, start, total, (filled, later))
                elif sink.axis == self.time:
                    sink.append(sink.kept(part))
                else:
                    band = part.new_empty((*part.shape[:2], later, *part.shape[3:])) if band is None else band
                    band.narrow(self.time, filled, part.shape[self.time]).copy_(part)
                filled += part.shape[self.time]
                self.finished = filled if whole and then is None else 0
            return [] if band is None else [band]

        def keep(start: int, stop: int, bands: list[Tensor]) -> None:
            if bands:
                self._append([sink], bands, following)
            if stop < total and self.axis == source.axis:
                ((first, _),) = self._reach(ops, [(stop, total)])
                source.release(first)

        self._windows(total, p.rows, make, keep, fixed=whole)
        if then is not None:
            self.stack = [sink]

    def _in_pieces(
        self, ops: Sequence[Op], layer: Layer, pieces: tuple[int, int], start: int, stop: int
    ) -> Iterator[Tensor]:
        """Rows start..stop-1 of what the layer, which is those steps, makes of the one tensor there is."""
        (source,) = self.stack
        (rows,) = self._reach(ops, [(start, stop)])
        skip = start - int(rows[0] * layer.rate(self.axis))
        frames = cuts(source.size(self.time), *pieces)
        if source.axis == self.time:
            whole = self.axis == self.time
            read = (source.read(piece, self.time) if whole else source.read(rows, self.axis, piece) for piece in frames)
        else:  # a window's rows are moved to the device together
            x = source.read(rows, self.axis)
            read = (x[:, :, a:b] for a, b in frames)
        for y in stream(layer, read, self.time):
            yield y if self.axis == self.time else y.narrow(self.axis, skip, stop - start)

    def _put(self, y: Tensor, start: int, total: int, frames: Interval | None = None) -> None:
        """A window of the result; frames: the first one's number, and how many there are in all."""
        first = {self.axis: start} if frames is None else {self.axis: start, self.time: frames[0]}
        if self.out is None and y.shape[self.axis] == total and frames in (None, (0, y.shape[self.time])):
            self.out = y
            return
        if self.out is None:
            shape = list(y.shape)
            shape[self.axis] = total
            if frames is not None:
                shape[self.time] = frames[1]
            self.out = y.new_empty(shape)
        place = self.out
        for axis, at in first.items():
            place = place.narrow(axis, at, y.shape[axis])
        place.copy_(y)

    def _reach(self, ops: Sequence[Op], outputs: Sequence[Interval]) -> list[Interval]:
        """The rows that outputs need of the upper tensors of the stack, from where windows of them may begin."""
        wanted = needed(ops, outputs, self.axis)
        steps = grains(ops, self.axis, len(wanted))
        sources = self.stack[-len(wanted) :]
        return [
            (max(a, 0) // step * step, min(b, source.size(self.axis)))
            for (a, b), step, source in zip(wanted, steps, sources, strict=True)
        ]

    def _inputs(self, ops: Sequence[Op], outputs: Sequence[Interval]) -> list[Placed]:
        reach = self._reach(ops, outputs)
        sources = self.stack[-len(reach) :]
        return [(source.read(rows, self.axis), rows[0]) for source, rows in zip(sources, reach, strict=True)]

    def _lengths_after(self, ops: Sequence[Op]) -> list[int]:
        return lengths(ops, [bands.size(self.axis) for bands in self.stack], self.axis)

    def _rows_after(self, p: Pass) -> int:
        return self._lengths_after(self.ops[p.start : p.stop])[-1]

    def _barrier(self, i: int) -> Barrier | None:
        op = self.ops[i]
        if isinstance(op, Apply) and isinstance(op.layer, Barrier) and is_barrier(op, self.axis):
            return op.layer
        return None

    def _barrier_behind(self, p: Pass | None) -> Barrier | None:
        """The barrier that takes what is the last tensor before a pass that has windows."""
        if p is None or p.rows >= self._rows_behind(p):
            return None
        i = p.start
        while i < p.stop and isinstance(self.ops[i], Fork):
            i += 1
        return self._barrier(i) if i < p.stop else None

    def _slices(self, total: int, then: Pass | None, *, whole: bool) -> tuple[int, int] | None:
        """How whole frames are cut in host memory, of whose `total` rows a window of the next pass reads a part."""
        if then is None or not whole or then.rows >= (behind := self._rows_behind(then)):
            return None
        return self.axis, max(_FEWEST_ROWS, total * then.rows // (behind * _SLICES))

    def _rows_behind(self, p: Pass) -> int:
        return lengths(self.geometry[: p.stop], [self.rows], self.axis)[-1]

    def _windows(self, total: int, rows: int, make: Make, keep: Keep, *, fixed: bool = False) -> None:
        """Makes each window and keeps what it gives; one that does not fit into memory is halved, and it goes on there.

        fixed   it is not halved: _TooLargeError
        """
        start = 0
        while start < total:
            stop = min(start + rows, total)
            try:
                keep(start, stop, make(start, stop))
                start = stop
                continue
            except RuntimeError as error:
                if not (self.halves and is_out_of_memory(error)):
                    raise
                if stop - start == 1:
                    what = "out of memory, however small the windows"
                    raise BlockedError(what, found=str(error).partition("\n")[0], fix="plan with a budget") from None
                if fixed:
                    raise _TooLargeError(str(error).partition("\n")[0]) from None
            rows = self._shrink(stop - start)

    def _shrink(self, rows: int) -> int:
        self.halved += 1
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return -(-rows // 2)


class _TooLargeError(Exception):
    """A pass without windows does not fit into memory."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the allocator of a GPU or of the CPU says so."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _share(window: Interval, total: int, n: int) -> Interval:
    """The part of a tensor of length n that belongs to a window of one of length `total`."""
    a, b = window
    return a * n // total, b * n // total
