"""The outcome of a proof, with its evidence: a value that is true or false, prints as a table, and goes to JSON."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

FORMAT = 1


@dataclass(frozen=True)
class Failure:
    """One reason why a proof failed, under its own name.

    gate    "S", "P", "D", or "evidence" where the comparison itself is worth nothing
    name    e.g. "same function", "dtype policy", "skipped", "self-comparison", "degenerate case", "no signal"
    """

    gate: str
    name: str
    where: str
    says: str


@dataclass(frozen=True)
class Row:
    """The worst figure of one output under one gate."""

    gate: str
    case: str
    output: str
    slice: str
    figure: float
    limit: float
    passed: bool


@dataclass
class Verdict:
    """True if every gate passed and nothing vacuous stands behind it."""

    reference: dict[str, Any]
    native: dict[str, Any]
    evidence: dict[str, Any] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Passed."""
        return not self.failures and bool(self.rows)

    def fail(self, gate: str, name: str, where: str, says: str) -> None:
        """Adds a failure."""
        self.failures.append(Failure(gate, name, where, says))

    def failed_gates(self) -> set[str]:
        """Gates with a failure."""
        return {f.gate for f in self.failures}

    def to_json(self) -> dict[str, Any]:
        """Plain data; figures that are no numbers become strings."""
        return finite({"format": FORMAT, "passed": bool(self), **asdict(self)})

    def to_text(self) -> str:
        """The JSON text in which a verdict is kept; the same verdict always gives the same text."""
        return json.dumps(self.to_json(), indent=1, sort_keys=True) + "\n"

    def sha256(self) -> str:
        """The hash that names this verdict: of `to_text`, and so of the file that it is written to."""
        return hashlib.sha256(self.to_text().encode()).hexdigest()

    def worst(self) -> list[Row]:
        """The worst row of every output per gate."""
        worst: dict[tuple[str, str], Row] = {}
        for row in self.rows:
            key = row.gate, row.output
            held = worst.get(key)
            if held is None or not row.figure / row.limit <= held.figure / held.limit:
                worst[key] = row
        return list(worst.values())

    def lines(self) -> list[str]:
        """A table for people: the worst row of every output per gate, failures first."""
        out = [f"{'PASS' if self else 'FAIL'}  {self.native.get('name')}  against  {self.reference.get('name')}"]
        out += [f"  {f.gate:<8} {f.name}: {f.where}\n           {f.says}" for f in self.failures[:20]]
        if len(self.failures) > 20:
            out.append(f"  and {len(self.failures) - 20} more failures")
        out.append(f"  {'gate':<16} {'output':<12} {'worst':>9} {'limit':>9}  where")
        for row in self.worst():
            where = f"{row.case}, {row.slice}"
            mark = "" if row.passed else "  <- fails"
            out.append(f"  {row.gate:<16} {row.output:<12} {row.figure:>9.2g} {row.limit:>9.2g}  {where}{mark}")
        return out + [f"  note: {note}" for note in self.notes]


def finite(data: dict[str, Any]) -> dict[str, Any]:
    """Plain data as JSON knows it: infinity and what is no number become strings."""
    return json.loads(json.dumps(data, default=str), parse_constant=str)  # type: ignore[no-any-return]
