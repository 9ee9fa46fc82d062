"""What two activation traces say of each other, as a value that is true or false, as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from vaeport.checkpoint.text import listing
from vaeport.drift.trace_compare import Row, differing, head
from vaeport.drift.tracing import TOLERANCE
from vaeport.proof.verdict import finite

TOLERANCES = {"torch.float64": TOLERANCE, "torch.bfloat16": 0.05, "torch.float16": 0.01}
"""By the type of the reference's tensors; the native side runs in float64."""
TOLERANCE_ELSE = 1e-4


@dataclass(frozen=True)
class TraceComparison:
    """What both sides' statistics say: true if none differs, which proves nothing of layout.

    rows        as `compare` gives them
    tolerance   relative difference above which rows differ that have no tolerance of their own
    unpaired    modules in the trace to which no native one answers
    notes       what else is to be said
    """

    rows: Sequence[Row]
    tolerance: float
    unpaired: Sequence[str]
    notes: Sequence[str] = ()

    def __bool__(self) -> bool:
        """No row differs, but for modules that are cut otherwise."""
        return not differing(self.rows, self.tolerance)

    def lines(self) -> list[str]:
        """The first difference, then the head of the table."""
        compared = f"{len({row.native for row in self.rows})} units are in the trace"
        if self.unpaired:
            compared += f"; nothing answers to {len(self.unpaired)} of its modules: {listing(self.unpaired, 3)}"
        return [*head(self.rows, self.tolerance), compared, *(f"note: {note}" for note in self.notes)]

    def to_json(self) -> dict[str, Any]:
        """Plain data; figures that are no numbers become strings."""
        off = differing(self.rows, self.tolerance)
        rows = [{**asdict(row), "difference": row.difference, "differs": row in off} for row in self.rows]
        return finite(
            {
                "passed": bool(self),
                "compared": "statistics",
                "first": next(map(str, off), None),
                "tolerance": self.tolerance,
                "unpaired": list(self.unpaired),
                "notes": list(self.notes),
                "rows": rows,
            }
        )


def allowed(rows: Sequence[Row]) -> list[Row]:
    """Each with the tolerance of the loosest floating type that the reference had until there in that half.

    What was rounded once stays so, though a module may give it in a finer type.
    """
    loosest: dict[str, float] = {}
    found = []
    for row in rows:
        half = row.native.partition(".")[0]
        own = [TOLERANCES.get(str(dtype), TOLERANCE_ELSE) for dtype in row.dtypes if _rounds(dtype)]
        loosest[half] = max([loosest.get(half, TOLERANCE), *own])
        found.append(replace(row, tolerance=loosest[half]))
    return found


def _rounds(dtype: str | None) -> bool:
    """It is no type of whole numbers, as far as is known."""
    known = getattr(torch, str(dtype).removeprefix("torch."), None)
    return not isinstance(known, torch.dtype) or known.is_floating_point or known.is_complex
