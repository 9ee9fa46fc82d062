"""How one parity test ended: its status, and all that a report says about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from vaeport.errors import VaeportError

if TYPE_CHECKING:
    from vaeport.port.parity import Parity
    from vaeport.proof.verdict import Verdict

Status = Literal["scaffold_skip", "debug_red", "non_skip_pass", "blocked"]
EXPLAINED = "explained: "
"""Marks a note of a verdict that says why gate S fails."""
SCOPES = ("production_loader", "implementation_subcomponent", "both")


@dataclass(frozen=True)
class Outcome:
    """What one call of the fixture `parity` found.

    coverage_scope  as the test declares it; a proof that covered less is no pass
    result          one line, for summaries
    details         the table of the verdict, or where, expected, found and fix of an error
    crash           an error that vaeport did not raise on purpose
    """

    test: str
    family: str
    component: str
    coverage_scope: str
    status: Status
    result: str
    missing: tuple[str, ...] = ()
    details: tuple[str, ...] = ()
    verdict: Verdict | None = None
    crash: Exception | None = None

    def properties(self) -> list[tuple[str, str]]:
        """For JUnit: status, scope, the hash of the verdict, the worst figure of each output under each gate."""
        told = {"status": self.status, "coverage_scope": self.coverage_scope, "missing": ", ".join(self.missing)}
        if self.verdict is not None:
            told["verdict_sha256"] = self.verdict.sha256()
            for row in self.verdict.worst():
                told[f"worst.{row.gate.replace(' ', '.')}.{row.output}"] = f"{row.figure:.3g} of {row.limit:.3g}"
        return [(f"parity.{name}", value) for name, value in told.items() if value]

    def to_json(self, with_verdict: bool) -> dict[str, Any]:
        """Plain data, as it travels with a report; `verdict` is the text of the verdict's file, or None."""
        verdict = self.verdict  # a failed one is false
        return {
            "test": self.test,
            "family": self.family,
            "component": self.component,
            "status": self.status,
            "missing": list(self.missing),
            "coverage_scope": self.coverage_scope,
            "verdict_sha256": None if verdict is None else verdict.sha256(),
            "verdict": verdict.to_text() if verdict is not None and with_verdict else None,
            "result": self.result,
        }


def outcome_of(parity: Parity, test: str) -> Outcome:
    """Carries out a parity test. Never raises: what went wrong stands in the outcome."""

    def ended(
        status: Status,
        result: str,
        *,
        missing: Iterable[str] = (),
        details: Iterable[str] = (),
        verdict: Verdict | None = None,
        crash: Exception | None = None,
    ) -> Outcome:
        named = (test, parity.family, parity.component, parity.coverage_scope)
        return Outcome(*named, status, _line(result), tuple(missing), tuple(details), verdict, crash)

    try:
        missing = parity.missing()
        if missing:
            return ended("scaffold_skip", f"missing {', '.join(missing)}", missing=missing)
        verdict = parity.prove()
        _hold_to_scope(verdict, parity.coverage_scope)
        if "S" in verdict.failed_gates():
            verdict.notes += [EXPLAINED + line for line in parity.explain()]
        lines = verdict.lines()
    except VaeportError as error:
        return ended("blocked", error.what, details=str(error).splitlines()[1:])
    except Exception as error:  # official code can raise anything
        return ended("blocked", f"{type(error).__name__}: {error}", crash=error)
    if verdict:
        gates = ", ".join(dict.fromkeys(row.gate for row in verdict.rows))
        result = f"{len(verdict.rows)} figures within their limits under {gates}"
        return ended("non_skip_pass", result, details=lines, verdict=verdict)
    first, more = verdict.failures[0], len(verdict.failures) - 1
    result = f"{first.name}: {first.where}: {first.says}" + (f" (and {more} more)" if more else "")
    return ended("debug_red", result, details=lines, verdict=verdict)


def _hold_to_scope(verdict: Verdict, declared: str) -> None:
    """Fails a verdict that rests on less than the test declares, or on nothing."""
    covered = verdict.evidence.get("coverage_scope")
    if declared not in SCOPES:
        verdict.fail("evidence", "coverage", "coverage_scope", f"`{declared}` is none of {', '.join(SCOPES)}")
    elif covered not in (declared, "both"):
        says = f"the test declares {declared}, the proof covered {covered or 'nothing that it names'}"
        verdict.fail("evidence", "coverage", "coverage_scope", says)
    if not verdict.rows and not verdict.failures:
        verdict.fail("evidence", "empty", "verdict", "nothing was compared")


def _line(text: str) -> str:
    from vaeport.checkpoint.text import cut

    return cut(text, 300)
