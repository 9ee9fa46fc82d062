"""The sections and rows of `PORT_STATUS.md`."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import ConfigDict, Field

from vaeport.port.contracts.fields import DecisionType, StepStatus, StrictLoad, Text
from vaeport.port.contracts.record import Record
from vaeport.port.contracts.rules import Finding, finding


class _Part(Record):
    model_config = ConfigDict(extra="ignore")  # people add lines and columns of their own


class Summary(_Part):
    """What is ported, and from where."""

    model_family: Text
    workload_types: Text
    official_ref: Text
    official_ref_dir: Text
    hf_weights_path: Text
    local_weights_dir: Text
    source_layout: Text
    local_tests_readme: Text


class CurrentPhase(_Part):
    """Where the port stands and whose turn it is."""

    phase: Text
    status: StepStatus
    owner: Text
    last_updated: Text


class MatrixRow(_Part):
    """A component from its definition to its parity."""

    component: Text
    type: Text
    reuse_port: Text
    official_definition: Text
    official_instantiation: Text
    target: Text
    prototype: Text
    conversion: Text
    parity: Text
    open_issues: Text


class ConversionState(_Part):
    """How the conversion stands."""

    conversion_script: Text
    converted_weights_dir: Text
    source_layout: Text
    strict_load_status: StrictLoad
    passthrough_components: Text
    retry_history: Text


class CommandRow(_Part):
    """A command that tests parity, and how it last ended."""

    scope: Text
    command: Text
    last_result: Text
    notes: str


class _Numbered(_Part):
    id: Text
    status: Text
    resolution: str

    def _rule_resolution(self) -> Iterator[Finding]:
        if self.status.lower() == "resolved" and self.resolution.lower() in ("", "none", "-"):
            fix = "write how it was resolved; the row stays"
            yield finding("row-resolution", "resolution", "how it was resolved", self.resolution or "nothing", fix)


class QuestionRow(_Numbered):
    """An open or resolved question."""

    id: Text = Field(pattern=r"^Q\d{3,}$")
    question: Text
    owner: Text
    needed_by_phase: Text


class IssueRow(_Numbered):
    """An open or resolved issue or blocker."""

    id: Text = Field(pattern=r"^I\d{3,}$")
    phase: Text
    component: Text
    severity: Text
    issue: Text
    evidence: str
    owner: Text


class HatchStatusRow(_Numbered):
    """An escape hatch, open or answered."""

    id: Text = Field(pattern=r"^E\d{3,}$")
    phase: Text
    decision_type: DecisionType
    question: Text
    recommended_option: Text


class DecisionRow(_Part):
    """A decision with its reason and effect."""

    date: Text
    decision: Text
    rationale: Text
    impact: Text
