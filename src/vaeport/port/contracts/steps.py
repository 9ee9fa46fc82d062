"""The steps of a port, in their order, and who takes each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from vaeport.port.contracts.fields import ProjectPath, Sha256, StepStatus, Utc
from vaeport.port.contracts.record import Record
from vaeport.port.contracts.rules import Finding, finding

StepName = Literal["context", "official", "reuse", "prototype", "map", "convert", "parity", "handoff"]
STEPS: tuple[StepName, ...] = ("context", "official", "reuse", "prototype", "map", "convert", "parity", "handoff")
OWNERS: dict[StepName, str] = {
    "context": "prep",
    "official": "prep",
    "reuse": "component:{component}",
    "prototype": "component:{component}",
    "map": "conversion",
    "convert": "conversion",
    "parity": "parity",
    "handoff": "component:{component}",
}


class Step(Record):
    """One step of the port: what went in, what came out."""

    status: StepStatus = "not_started"
    inputs: Sha256 | None = None
    artifacts: dict[ProjectPath, Sha256] = Field(default_factory=dict)
    note: str = ""
    updated: Utc | None = None

    def _rule_evidence(self) -> Iterator[Finding]:
        if self.status != "not_started" and self.updated is None:
            yield finding("step-evidence", "updated", "the time of the last change", "nothing", "give the UTC time")
        if self.status == "blocked" and not self.note:
            yield finding("step-evidence", "note", "the precise blocker", "nothing", "say what is missing")


class Steps(Record):
    """The steps in their order."""

    context: Step = Step()
    official: Step = Step()
    reuse: Step = Step()
    prototype: Step = Step()
    map: Step = Step()
    convert: Step = Step()
    parity: Step = Step()
    handoff: Step = Step()

    def of(self, name: StepName) -> Step:
        """The step of this name."""
        return getattr(self, name)  # type: ignore[no-any-return]
