"""The search for passes: which activations are kept, where, and how many rows run at once, in the least time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from math import inf

from vaeport.runtime.passes import Pass
from vaeport.runtime.program import Apply, depth_after, touched
from vaeport.runtime.survey import Survey

_WINDOWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_FRAMES = 4
"""of a piece, where windows run in pieces of time"""
_SMALL = 2**24
"""bytes of notes that need not be in the order of their positions"""


@dataclass(frozen=True)
class Leg:
    """A pass between two places: its windows, the bytes left for what it reads and writes, and its time."""

    rows: int
    room: int
    seconds: float
    pieces: tuple[int, int] | None = None


class Search:
    """The shortest way through a survey's places, each leg of which fits into `budget` bytes.

    out     bytes of the result, if it lies on the device
    host    whether activations may wait in host memory
    """

    def __init__(self, survey: Survey, budget: int, *, out: int, host: bool) -> None:
        self.survey, self.budget, self.out, self.host = survey, budget, out, host
        self.leg = cache(self._leg)

    def passes(self) -> tuple[Pass, ...] | None:
        """None if nothing fits."""
        places = self.survey.places
        best: dict[int, tuple[float, tuple[int, ...]]] = {0: (0.0, (0,))}
        for n, j in enumerate(places[1:], 1):
            ways = ((best[i][0] + leg.seconds, (*best[i][1], j)) for i, leg in self._legs_to(n) if i in best)
            found = min(ways, default=None)
            if found is not None and found[0] < inf:
                best[j] = found
        if places[-1] not in best:
            return None
        return tuple(self._chosen(best[places[-1]][1]))

    def _legs_to(self, n: int) -> Iterator[tuple[int, Leg]]:
        for i in self.survey.places[:n]:
            leg = self.leg(i, self.survey.places[n])
            if leg is not None:
                yield i, leg

    def _chosen(self, way: tuple[int, ...]) -> Iterator[Pass]:
        legs = [(i, j, self.leg(i, j)) for i, j in pairwise(way)]
        for k, (i, j, leg) in enumerate(legs):
            assert leg is not None
            later = legs[k + 1][2] if k + 1 < len(legs) else None
            room = min(leg.room, leg.room if later is None else later.room)
            entries = self.survey.stack(j)
            made = len(entries) - touched(self.survey.ops[i:j], len(self.survey.stack(i)))
            fits = sum(entries[-made:]) <= room
            yield Pass(i, j, leg.rows, leg.pieces, None if fits or later is None else max(room, 0) // made)

    def _leg(self, i: int, j: int) -> Leg | None:
        """The fastest pass that fits, or None."""
        share = self._share_in_pieces(i, j)
        ways = [self._windows(i, j, 1.0, None)]
        if share is not None:
            ways.append(self._windows(i, j, share, (_FRAMES, _FRAMES)))
        return min((leg for leg in ways if leg is not None), key=lambda leg: leg.seconds, default=None)

    def _windows(self, i: int, j: int, share: float, pieces: tuple[int, int] | None) -> Leg | None:
        """With the largest windows that fit; share: of its working memory that pieces of time need."""
        survey = self.survey
        ops, before, after = survey.ops[i:j], survey.stack(i), survey.stack(j)
        kept = touched(ops, len(before))
        const, last = sum(before[:kept]), j == len(survey.ops)
        # the input of the very first pass is the caller's, the output of the last one has its place
        reads = sum(before[kept:]) if i else 0
        writes = 0 if last else sum(after[kept:])
        total = survey.rows_after(j)
        inside = [k for k in survey.barriers if i <= k < j]
        notes = sum(survey.rows[k].notes for k in inside)
        found = None
        for count in _WINDOWS[pieces is not None :]:
            rows = -(-total // count)
            if count > 1 and rows == -(-total // (count // 2)):
                break
            single = rows >= total
            overlap = survey.overlap(i, j, rows)
            window = overlap * rows / total
            # bands of whole clips are put together while they are written
            work = self._work(i, j, kept) * window * share + (0 if pieces is None or last else writes * rows / total)
            held = const + self.out + (0 if single else 2 * notes)
            stores = max(reads, writes) + (0 if single or pieces is None else reads * window)
            room = int(self.budget - held - work)
            spilled = max(0, int(stores) - room)
            if (spilled and not self.host) or room < 0:
                continue
            if spilled and single:  # a band waits as a whole
                spilled = int(stores)
            later = [] if single else [k for k in inside if k > self._first(i)]
            again = sum(self._seconds(i, k) + survey.rows[k].note_seconds for k in later)
            moved = spilled * (2 + len(later)) / survey.profile.transfer
            copied = (reads + writes) / survey.profile.bandwidth
            calls = count * (1 if pieces is None else -(-survey.frames(i) // pieces[1]))
            seconds = (self._seconds(i, j) + again) * overlap + copied + moved + calls * len(ops) * 2e-5
            leg = Leg(rows, room, seconds, pieces)
            if found is None or leg.seconds < found.seconds:
                found = leg
            if not spilled:
                break
        return found

    def _share_in_pieces(self, i: int, j: int) -> float | None:
        """Of the working memory of a pass, what pieces of time and the states between them need; None: they cannot."""
        survey = self.survey
        one = len(survey.stack(i)) == len(survey.stack(j)) == 1
        if (
            not one
            or survey.frames(i) <= 2 * _FRAMES
            or any(survey.rows[k].notes > _SMALL for k in survey.barriers if i <= k < j)
        ):
            return None
        looks = sum(isinstance(op, Apply) and not survey.is_local_in_time(op) for op in survey.ops[i:j])
        return min(1.0, (_FRAMES + 2 + looks) / survey.frames(i))

    def _first(self, i: int) -> int:
        """The barrier at a place takes its notes while the pass before writes."""
        while i < len(self.survey.ops) and depth_after(self.survey.ops[i]) == 1:
            i += 1
        return i if self.survey.places[0] != i else -1

    def _seconds(self, i: int, j: int) -> float:
        return sum(row.seconds for row in self.survey.rows[i:j])

    def _work(self, i: int, j: int, kept: int) -> float:
        """Bytes at the peak of the pass' steps, on all rows: what it read, what it makes, and a copy of its output."""
        return max(
            max(sum(row.stack[kept:]) + row.beside for row in self.survey.rows[i:j]),
            2 * sum(self.survey.stack(j)[kept:]),
        )
