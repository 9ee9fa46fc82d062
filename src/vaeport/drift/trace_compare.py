"""Two activation traces side by side: the statistics of aligned modules, in the order of execution.

Statistics see a wrong scale, a lost bias, a clipped range, and values that are not finite. They do not see where
values stand: a permuted channel, swapped height and width, a shifted frame or a mirrored image leave them all as they
are, and a small difference drowns in the rounding of the mean. Equal statistics prove nothing; gate S does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from vaeport.drift.fastvideo_trace import Record
from vaeport.drift.trace_joined import side_by_side
from vaeport.errors import ProofError

Calls = dict[tuple[int | None, str], list[tuple[int, Record]]]  # of one module, by step and tensor, with places


@dataclass(frozen=True)
class Row:
    """One tensor of an aligned pair of modules.

    native, reference   paths of the modules
    tensor, step, call  of the native side, where it has one; call counts from 0, None where all calls were joined
    stats               name -> (native, reference, relative difference)
    notes               what else differs, and what could not be compared
    dtypes              of the reference's tensor, None where its trace does not say
    tolerance           its own, which goes before any other
    """

    native: str
    reference: str
    tensor: str
    step: int | None
    call: int | None
    stats: Mapping[str, tuple[float, float, float]]
    notes: tuple[str, ...] = ()
    dtypes: tuple[str | None, ...] = ()
    tolerance: float | None = None

    @property
    def difference(self) -> float:
        """The largest relative difference; NaN where nothing could be compared."""
        return max((row[2] for row in self.stats.values()), default=math.nan)

    def differs(self, tolerance: float) -> bool:
        """Whether it is further off than its own tolerance, else than that one, or says nothing."""
        return not self.difference <= (tolerance if self.tolerance is None else self.tolerance)

    def __str__(self) -> str:
        """One line."""
        which = "".join(
            f" {name} {value}" for name, value in (("step", self.step), ("call", self.call)) if value is not None
        )
        told = [f"{name} {a:.6g} / {b:.6g} ({off:.1e})" for name, (a, b, off) in self.stats.items()]
        return f"{self.native} / {self.reference} {self.tensor}{which}: " + "; ".join((*told, *self.notes))


def compare(native: Iterable[Record], reference: Iterable[Record], pairs: Mapping[str, str]) -> list[Row]:
    """Rows for all aligned modules, in the order in which the native ones finished; what one side lacks comes last.

    pairs   native module path -> reference module path

    Where a module was called more often on one side (a reference that streams), its calls are joined. A difference is
    relative to the larger value, of `mean` to the larger mean of absolute values, of `sum` to that times the number
    of values, of `min` and `max` to the wider range.

    Raises:
        ProofError: no pair, or no record on a side.
    """
    sides = [_by_module(records, name) for records, name in ((native, "native"), (reference, "reference"))]
    if not pairs:
        raise ProofError("no aligned modules", where="pairs", expected="native path -> reference path")
    rows = [
        placed
        for path, other in pairs.items()
        for placed in _rows(path, other, sides[0].get(path, {}), sides[1].get(other, {}))
    ]
    return [row for _, row in sorted(rows, key=lambda placed: placed[0])]


def differing(rows: Sequence[Row], tolerance: float) -> list[Row]:
    """The rows that differ, but those of modules that lie in one whose own rows are the same.

    Such modules are only cut otherwise: what one side does in them, the other does beside them.
    """
    off = [row for row in rows if row.differs(tolerance)]
    same = {row.native for row in rows} - {row.native for row in off}
    return [row for row in off if not any(row.native.startswith(f"{around}.") for around in same)]


def told(rows: Sequence[Row], tolerance: float = 1e-4) -> list[str]:
    """The first row that differs, then all rows in order: those that differ marked with `!`, if only cut with `~`."""
    off = differing(rows, tolerance)
    none = f"no difference above {_shown(rows, tolerance)}; layout is not seen by this"
    verdict = f"first difference: {off[0]}" if off else none
    marks = ["!" if row in off else "~" if row.differs(tolerance) else " " for row in rows]
    return [verdict, *(f"{mark} {row}" for mark, row in zip(marks, rows, strict=True))]


def head(rows: Sequence[Row], tolerance: float = 1e-4, most: int = 12) -> list[str]:
    """The first row that differs, then at most so many of those that do, and how many there are."""
    verdict, *table = told(rows, tolerance)
    off = [line for line in table if line.startswith("!")]
    cut = sum(line.startswith("~") for line in table)
    more = [f"and {len(off) - most} more that differ"] if len(off) > most else []
    same = f"{len(rows) - len(off) - cut} of {len(rows)} rows are the same within {_shown(rows, tolerance)}"
    inner = f"; {cut} lie in modules that are the same, which are cut otherwise" if cut else ""
    return [verdict, *off[:most], *more, same + inner]


def _shown(rows: Sequence[Row], tolerance: float) -> str:
    """The tolerance, or the least and the greatest."""
    used = {tolerance if row.tolerance is None else row.tolerance for row in rows} or {tolerance}
    return " to ".join(f"{one:g}" for one in sorted({min(used), max(used)}))


def _by_module(records: Iterable[Record], name: str) -> dict[str, Calls]:
    found: dict[str, Calls] = {}
    for place, one in enumerate(records):
        found.setdefault(one.module, {}).setdefault((one.step, one.tensor), []).append((place, one))
    if not found:
        raise ProofError("nothing to compare", where=f"the {name} trace", found="no record")
    return found


def _rows(native: str, reference: str, ours: Calls, theirs: Calls) -> Iterator[tuple[float, Row]]:
    """Rows of a pair of modules, each with its place in the native trace."""
    if len(ours) == len(theirs) == 1:  # `out` here, `out.sample` there
        theirs = dict(zip(ours, theirs.values(), strict=True))
    for step, tensor in dict.fromkeys((*ours, *theirs)) or [(None, "out")]:
        a, b = (side.get((step, tensor), []) for side in (ours, theirs))
        if not a or not b:
            lacking = " and ".join(name for name, calls in (("native", a), ("reference", b)) if not calls)
            yield math.inf, Row(native, reference, tensor, step, None, {}, (f"not in the {lacking} trace",))
        elif len(a) == len(b):
            for call, ((place, one), (_, other)) in enumerate(zip(a, b, strict=True)):
                number = call if len(a) > 1 else None
                found = side_by_side([one], [other])
                yield place, Row(native, reference, tensor, step, number, *found, dtypes=(other.dtype,))
        else:
            stats, notes = side_by_side([one for _, one in a], [one for _, one in b])
            notes = (f"{len(a)} calls here, {len(b)} there: joined", *notes)
            dtypes = tuple(dict.fromkeys(one.dtype for _, one in b))
            yield a[-1][0], Row(native, reference, tensor, step, None, stats, notes, dtypes)
