"""`Explanation`: what differs, why, and what mends it, as data, as text and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from vaeport.proof.verdict import finite
from vaeport.vae import VAE

NOTHING = "no change that was tried mends it"
MOST_ATTEMPTS = 24
"""Changes that a finding tells of; it counts all."""


@dataclass(frozen=True)
class Attempt:
    """A change that was tried: its class, its module, in words, and the error that was left.

    remaining   None for a change that cannot be made there
    """

    cause: str
    module: str
    change: str
    remaining: float | None


@dataclass
class Finding:
    """One fault.

    unit            innermost aligned native module; "" for the VAE's own steps
    reference_unit  the reference's module
    where           "inside", "after" (its last steps), "before CHILD", or the output that differs
    module          the module, or the model "", that the change is made in
    cause           its class; None when no change that was tried mends it
    change          in words
    places          file:line of both sides, native first
    operations      the first operation that differs, of both sides
    error           relative rms difference there
    remaining       after the change
    tried           changes
    attempts        those of them that left least, in that order
    gate            that fails by it
    apply           makes the change
    """

    unit: str
    reference_unit: str
    where: str
    module: str
    cause: str | None
    change: str
    error: float
    remaining: float | None = None
    places: tuple[str, str] = ("unknown", "unknown")
    operations: tuple[str, str] | None = None
    tried: int = 0
    attempts: list[Attempt] = field(default_factory=list)
    gate: str = "S"
    apply: Callable[[VAE], Any] | None = field(default=None, repr=False)

    def fix(self, vae: VAE) -> None:
        """Makes the change on a fresh copy of the native side."""
        if self.apply is not None:
            self.apply(vae)

    def unexplained(self) -> None:
        """Takes the cause back."""
        self.cause, self.change, self.module, self.remaining, self.apply = None, NOTHING, self.unit, None, None

    def line(self, holds: bool = False) -> str:
        """One line: place, cause, and what the change does: with it, and with those before it, the gate `holds`."""
        at = self.unit or "the VAE's own steps"
        where = "" if self.where == "inside" else f", {self.where}"
        told = f"{self.module or 'vae'}: {self.change}" if self.module != self.unit or not self.unit else self.change
        then = f"then gate {self.gate} holds" if holds else "then it agrees there"
        says = f"{told}; {then}" if self.cause else f"{self.change} ({self.tried} changes tried)"
        return f"origin {at}{where} ({self.places[0]} / {self.places[1]}): {says}"

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        plain = {part.name: getattr(self, part.name) for part in fields(self) if part.name != "apply"}
        return {**plain, "attempts": [asdict(attempt) for attempt in self.attempts]}

    def tell(self, attempts: Sequence[Attempt]) -> None:
        """Keeps those that left least; such as cannot be made come last."""
        left = [float("inf") if one.remaining is None else one.remaining for one in attempts]
        order = sorted(range(len(attempts)), key=lambda i: (attempts[i].remaining is None, left[i]))
        self.attempts = [attempts[i] for i in order[:MOST_ATTEMPTS]]


@dataclass
class UnitRow:
    """One aligned unit: its own error on the reference's input, and what became of it."""

    unit: str
    reference: str
    error: float | None
    status: str


@dataclass
class Explanation:
    """The answer.

    findings    in the order in which they were mended; empty when both sides agree
    explained   with all changes the gate holds in every case
    left_out    what was not compared, and why
    units       the aligned units
    seconds     that the reference, the search and the types took
    """

    findings: list[Finding] = field(default_factory=list)
    explained: bool = True
    left_out: list[str] = field(default_factory=list)
    units: list[UnitRow] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """For a terminal: one line per finding first."""
        if not self.findings:
            compared = sum(row.status == "same" for row in self.units)
            found = [f"no unit differs ({compared} of {len(self.units)} compared)"]
        else:
            *others, last = self.findings
            found = [*(finding.line() for finding in others), last.line(self.explained)]
            for finding in self.findings:
                if finding.operations:
                    ours, theirs = finding.operations
                    found.append(f"  first differing operation in {finding.unit or 'vae'}: {ours}; there: {theirs}")
            if not self.explained:
                found.append(f"with these changes gate {self.findings[0].gate} does not hold yet")
        return found + [f"left out: {text}" for text in self.left_out]

    def table(self) -> list[str]:
        """Every unit that differs, and how many do not."""
        if not self.units:
            return []
        rows = [row for row in self.units if row.status != "same"]
        width = max((len(row.unit) for row in rows), default=0)
        lines = [
            f"{row.unit:{width}}  {'-' if row.error is None else f'{row.error:.2e}':>9}  {row.status}  {row.reference}"
            for row in rows
        ]
        return [*lines, f"{sum(row.status == 'same' for row in self.units)} units are the same"]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return finite(
            {
                "findings": [finding.to_json() for finding in self.findings],
                "explained": self.explained,
                "left_out": self.left_out,
                "units": [asdict(row) for row in self.units],
                "seconds": self.seconds,
            }
        )
