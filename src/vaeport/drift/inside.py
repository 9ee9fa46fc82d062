"""The first operation inside a unit that gives what the reference never has."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from vaeport.drift.prepare import within
from vaeport.drift.trial import Trial
from vaeport.proof.recording import Operation, Operations

_CLOSE = 1e-9


def first_differing(trials: Sequence[Trial], reference_unit: str) -> tuple[tuple[str, str] | None, tuple[str, str]]:
    """((native operation, the reference's), their places), in the first case in which both ran once.

    An operation is known by sums of its result that no layout changes. Where the reference runs in pieces, or computes
    in other steps, there is nothing to tell.
    """
    for trial in trials:
        record = trial.forcing.truth.captured.record
        if reference_unit not in record.units or record.units[reference_unit].calls != 1:
            continue
        children = {u.reference for u in trial.forcing.units if trial.forcing.parents.get(u.native) == trial.place.unit}
        theirs = {
            i: o
            for i, o in enumerate(record.operations)
            if within(o.unit, reference_unit) and not any(within(o.unit, c) for c in children - {reference_unit})
        }
        try:
            with Operations([trial.place.unit]) as seen:
                if not trial.errors():
                    continue
        except Exception:  # a wrong port may raise anything
            continue
        ours = dict(enumerate(seen.found))
        mine, other = _first(ours, theirs), _first(theirs, ours)
        if mine is not None and other is not None:
            return (_told(mine), _told(other)), (mine.place, other.place)
    return None, ("", "")


def _first(one: Mapping[int, Operation], two: Mapping[int, Operation]) -> Operation | None:
    """The first of one side that the other does not have, nor anything that is made of its result.

    Both sides may take different steps to one result; such steps are no difference.
    """
    reached: set[int] = set()
    for i in reversed(list(one)):
        if i in reached or any(_same(one[i], o) for o in two.values()):
            reached |= {i, *one[i].inputs}
    return next((o for i, o in one.items() if i not in reached and o.computes), None)


def _same(a: Operation, b: Operation) -> bool:
    return len(a.sketch) == len(b.sketch) and all(
        math.isclose(x, y, rel_tol=_CLOSE, abs_tol=1e-12) for x, y in zip(a.sketch, b.sketch, strict=True)
    )


def _told(operation: Operation) -> str:
    constants = ", ".join(f"{name}={value}" for name, value in operation.constants.items() if value not in (None, []))
    return f"{operation.name}({constants}) at {operation.place}"
