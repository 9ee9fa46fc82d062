"""The first operation inside a unit that gives what the reference never has."""

from __future__ import annotations

import math

from vaeport.drift.search import Trial
from vaeport.proof.recording import Operation, Operations

_CLOSE = 1e-9


def first_differing(trial: Trial, reference_unit: str) -> tuple[tuple[str, str] | None, tuple[str, str]]:
    """((native operation, the reference's), their places); the operations are None where they cannot be told.

    An operation is known by sums of its result that no layout changes. Where the reference runs in pieces, or computes
    in other steps, only the places are told.
    """
    forcing, stack = trial.forcing, [trial.place.unit]
    record = forcing.truth.captured.record
    children = {u.reference for u in forcing.units if forcing.parents.get(u.native) == trial.place.unit}
    theirs = [
        o
        for o in record.operations
        if (o.unit == reference_unit or o.unit.startswith(f"{reference_unit}."))
        and not any(o.unit == c or o.unit.startswith(f"{c}.") for c in children - {reference_unit})
    ]
    try:
        with Operations(stack) as seen:
            trial.errors()
    except Exception:  # a wrong port may raise anything
        return None, ("", "")
    ours = [o for o in seen.found if o.computes and _in_package(o)]
    mine = next((o for o in ours if not any(_same(o, t) for t in theirs)), None)
    other = next((t for t in theirs if t.computes and not any(_same(t, o) for o in seen.found)), None)
    if mine is None or other is None:
        return None, ("", "")
    return (_told(mine), _told(other)), (mine.place, other.place)


def _in_package(operation: Operation) -> bool:
    return not operation.place.startswith(("vaeport/proof", "vaeport/drift"))


def _same(a: Operation, b: Operation) -> bool:
    return len(a.sketch) == len(b.sketch) and all(
        math.isclose(x, y, rel_tol=_CLOSE, abs_tol=1e-12) for x, y in zip(a.sketch, b.sketch, strict=True)
    )


def _told(operation: Operation) -> str:
    constants = ", ".join(f"{name}={value}" for name, value in operation.constants.items() if value not in (None, []))
    return f"{operation.name}({constants}) at {operation.place}"
