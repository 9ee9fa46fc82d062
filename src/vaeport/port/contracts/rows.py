"""Numbered rows of the record: questions, issues, escape hatches, retries, decisions. Resolved rows stay."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from vaeport.port.contracts.blocks import RetryRequest
from vaeport.port.contracts.fields import DecisionType, Lines, RowStatus, Text, YesNo
from vaeport.port.contracts.record import Record
from vaeport.port.contracts.rules import Finding, broken, finding


class Row(Record):
    """A row that is open until it is resolved; the resolution says how."""

    id: Text
    phase: Text
    status: RowStatus = "open"
    resolution: str = ""

    def _rule_resolution(self) -> Iterator[Finding]:
        if (self.status == "resolved") != bool(self.resolution):
            fix = "a resolved row says how it was resolved, an open one has no resolution yet"
            yield finding("row-resolution", "resolution", "a resolution exactly if resolved", self.status, fix)


class Question(Row):
    """An open question about the official source or the port."""

    id: Annotated[str, Field(pattern=r"^Q\d{3,}$")]
    question: Text
    owner: Text = "port"
    needed_by: Text = "handoff"


class Issue(Row):
    """An issue or a blocker, with its evidence."""

    id: Annotated[str, Field(pattern=r"^I\d{3,}$")]
    component: Text = "vae"
    severity: Annotated[str, Field(pattern="^(low|medium|high)$")] = "medium"
    issue: Text
    evidence: Text
    owner: Text = "port"


class Option(Record):
    """An answer that the user may give, and what follows from it."""

    option: Text
    consequence: Text


def _as_option(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    parts = re.split(r"\s+(?:->|=>|[-–—+])\s+|[:;]\s+", value, maxsplit=1)
    if len(parts) != 2:
        fix = "write `<option> -> <consequence>`"
        raise broken("hatch-options", "an option and its consequence", value, fix)
    return {"option": parts[0], "consequence": parts[1]}


def _no_options(value: Any) -> Any:
    return () if value is None or value == "none" else value


Options = Annotated[tuple[Annotated[Option, BeforeValidator(_as_option)], ...], BeforeValidator(_no_options)]


class Snapshot(Record):
    """Where the port stands while it waits for the answer."""

    phase: Text
    files_changed: Lines
    command_or_test: Text
    evidence: Text


_QUESTION_MARK = re.compile(r"\?(?=\s|$|[)\"'])")
_MISSING = r"\b(?:missing|not found|cannot find|can't find|no such|ImportError|FileNotFoundError)\b"
_NEVER = {
    "a missing import or path": rf"No module named|ModuleNotFoundError"
    rf"|(?=.*{_MISSING})(?=.*\b(?:imports?|modules?|paths?|files?|folders?|director(?:y|ies)|ImportError)\b)",
    "a skipped or red test": r"(?=.*\b(?:skip\w*|fail\w*|red|xfail\w*)\b)(?=.*\b(?:tests?|parity|pytest)\b)",
    "a mapping, key, shape or strict-load error": r"(?=.*\b(?:mapping|keys?|shapes?|strict[- _]?load\w*)\b)"
    r"(?=.*\b(?:errors?|mismatch\w*|missing|unexpected|fail\w*|wrong|differs?|unmapped)\b)",
    "lint": r"\b(?:lint\w*|ruff|mypy|flake8|formatt?(?:ing|er))\b",
    "an implementation bug": r"\b(?:bugs?|traceback|crash\w*|exception|(?:Assertion|Type|Value|Runtime)Error)\b",
}
_MATTERS = {
    "scope": r"\b(?:drop\w*|leave out|omit\w*|remov\w*|without|scope|only|bucket|variant|modalit\w*|heads?)\b",
    "dependency": r"\b(?:depend\w*|install\w*|pin\w*|upgrad\w*|package|librar\w*|private)\b",
    "auth": r"\b(?:gated|access|auth\w*|log ?in|licen[cs]e|permission|account|credential\w*|[A-Z]+_TOKEN)\b",
    "cost": r"\b(?:download\w*|upload\w*|publish\w*|GPUs?|hours?|costs?|[GT]i?B)\b",
    "destructive": r"\b(?:delet\w*|overwrit\w*|remov\w*|reset\w*|replac\w*|forc\w*|discard\w*)\b",
    "ambiguity": r"\b(?:incompatible|disagree\w*|contradict\w*|two|both|definitions?|which of)\b",
    "blocker": r"\b(?:accept\w*|loosen\w*|toleran\w*|waiv\w*|ship\w*|unsupported|known blocker)\b",
}


class EscapeHatch(Record):
    """A pause for one decision that only the user can take."""

    needs_user_input: YesNo
    decision_type: DecisionType
    question: Text
    recommended_option: Text
    options: Options
    safe_default: Text
    blocked_until_answered: YesNo
    state_snapshot: Snapshot

    def _rule_question(self) -> Iterator[Finding]:
        marks = len(_QUESTION_MARK.findall(self.question))
        if self.needs_user_input == "yes" and marks != 1:
            fix = "ask one precise question; file the others as rows of their own"
            yield finding("hatch-question", "question", "one question", f"{marks} question marks", fix)

    def _rule_options(self) -> Iterator[Finding]:
        if self.needs_user_input == "yes" and not 1 <= len(self.options) <= 3:
            yield finding("hatch-options", "options", "one to three", len(self.options), "keep the best alternatives")

    def _rule_matter(self) -> Iterator[Finding]:
        if self.needs_user_input == "no" or re.search(_MATTERS[self.decision_type], self.question, re.I):
            return
        for matter, pattern in _NEVER.items():
            if re.search(pattern, self.question, re.I | re.S):
                fix = "solve it within the workflow, or file it as an issue row"
                expected = f"a question of {self.decision_type}"
                yield finding("hatch-matter", "question", expected, f"{matter}: {self.question}", fix)
                return


class HatchRow(Row):
    """An escape hatch in the record, with the answer once it is given."""

    id: Annotated[str, Field(pattern=r"^E\d{3,}$")]
    hatch: EscapeHatch


class Retry(Row):
    """A request to repeat the conversion; its resolution is the answer of the conversion."""

    id: Annotated[str, Field(pattern=r"^R\d{3,}$")]
    request: RetryRequest


class Decision(Record):
    """A decision, why it was taken, and what follows."""

    date: Text
    decision: Text
    rationale: Text
    impact: Text


def unique_ids(where: str, rows: Iterable[Row]) -> Iterator[Finding]:
    """A finding for every id that stands twice."""
    seen: set[str] = set()
    for row in rows:
        if row.id in seen:
            yield finding("row-ids", where, "ids that stand once", row.id, "give the later row the next free number")
        seen.add(row.id)


def lost_rows(where: str, before: Iterable[Row], after: Iterable[Row]) -> Iterator[Finding]:
    """A finding for every row that is gone, and for every resolved row that is not as it was."""
    held = {row.id: row for row in after}
    for row in before:
        kept = held.get(row.id)
        if kept is None or (row.status == "resolved" and kept != row):
            found = "the row is gone" if kept is None else f"status {kept.status}, resolution {kept.resolution!r}"
            fix = "keep the row with its resolution; open a new one where the matter comes back"
            yield finding("rows-stay", f"{where}.{row.id}", "the row as it was", found, fix)
