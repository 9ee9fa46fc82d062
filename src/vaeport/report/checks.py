"""`checks`: a verdict cut into what JUnit, Markdown and the page tell one by one, a gate under a case each."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from vaeport.report.schema import Failure, Figure, Proved, Row

MEANS = {"S": "same function", "P": "same precision", "D": "same types", "evidence": "evidence"}


@dataclass
class Check:
    """One gate under one case: its rows, worst first, and what failed beside them."""

    gate: str
    case: str
    rows: list[Row] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Every row did, and nothing else failed."""
        return not self.failures and all(row.passed for row in self.rows)

    @property
    def label(self) -> str:
        """The case without its gate."""
        return self.case.removeprefix("S ")

    @property
    def worst(self) -> Row | None:
        """The row that exceeds its limit most; where none fails, the one that comes nearest to it."""
        return max(self.rows, key=severity, default=None)


def number(value: Figure | None) -> float:
    """As a float; None is not a number."""
    return math.nan if value is None else float(value)


def closeness(row: Row) -> float:
    """Its figure over its limit; what is no number counts as infinite."""
    ratio = number(row.figure) / number(row.limit) if number(row.limit) else math.inf
    return math.inf if math.isnan(ratio) else ratio


def severity(row: Row) -> tuple[bool, float]:
    """The larger the worse: a row that fails is worse than any that passes, however near to its limit."""
    return not row.passed, closeness(row)


def checks(proved: Proved) -> list[Check]:
    """In the order of the verdict; failures that belong to no row are checks of their own."""
    found: dict[tuple[str, str], Check] = {}
    for row in proved.rows:
        found.setdefault((row.gate, row.case), Check(row.gate, row.case)).rows.append(row)
    for failure in proved.failures:
        check = next((one for one in found.values() if _about(one, failure)), None)
        if check is None:
            key = failure.gate, failure.name
            check = found.setdefault(key, Check(*key))
        check.failures.append(failure)
    return list(found.values())


def _about(check: Check, failure: Failure) -> bool:
    if not check.rows or check.gate.partition(" ")[0] != failure.gate:
        return False
    if failure.gate == "S":
        return f"{check.case} " in f"{failure.where} "
    dtype = check.gate.partition(" ")[2]
    return dtype in failure.where.split() or failure.says.startswith(f"in {dtype}:")


def gates(found: list[Check]) -> dict[str, list[Check]]:
    """Checks by gate, in their order, such as "S", "P bfloat16", "evidence"."""
    grouped: dict[str, list[Check]] = {}
    for check in found:
        grouped.setdefault(check.gate, []).append(check)
    return grouped


def means(gate: str) -> str:
    """A gate in words."""
    letter, _, dtype = gate.partition(" ")
    return f"{MEANS.get(letter, letter)}{f', {dtype}' if dtype else ''}"


def counted(value: Figure) -> str:
    """A figure of gate D, which counts rows, for people."""
    return shown(value) if isinstance(value, str) else f"{value:.0f}"


def shown(value: Figure | None) -> str:
    """A figure for people."""
    if value is None:
        return "–"
    if isinstance(value, str):
        return {"Infinity": "∞", "-Infinity": "-∞"}.get(value, "not a number")
    return f"{value:.2g}" if value == 0 or 1e-2 <= abs(value) < 1e4 else f"{value:.1e}"
