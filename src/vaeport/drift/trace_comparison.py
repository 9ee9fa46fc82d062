"""What two activation traces say of each other, as a value that is true or false, as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vaeport.checkpoint.text import listing
from vaeport.drift.trace_compare import Row, differing, head


@dataclass(frozen=True)
class TraceComparison:
    """What both sides' statistics say: true if none differs, which proves nothing of layout.

    rows        as `compare` gives them
    tolerance   relative difference above which they differ
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
        data = {
            "passed": bool(self),
            "compared": "statistics",
            "first": next(map(str, off), None),
            "tolerance": self.tolerance,
            "unpaired": list(self.unpaired),
            "notes": list(self.notes),
            "rows": rows,
        }
        return json.loads(json.dumps(data, default=str), parse_constant=str)  # type: ignore[no-any-return]
