"""`PORT_STATUS.md`: the whole state of a port for people, which can be read back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Literal, Self

from vaeport.port.contracts.blocks import is_placeholder
from vaeport.port.contracts.fields import Lines
from vaeport.port.contracts.record import accept
from vaeport.port.contracts.rules import Finding, finding
from vaeport.port.contracts.text import shown
from vaeport.port.state import PortState
from vaeport.port.views.status_rows import (
    CommandRow,
    ConversionState,
    CurrentPhase,
    DecisionRow,
    HatchStatusRow,
    IssueRow,
    MatrixRow,
    QuestionRow,
    Summary,
)
from vaeport.port.views.tables import bullets, notes, read_bullets, read_notes, read_table, sections, table
from vaeport.port.views.view import View, converted_weights_dir

# Field: its heading, and for tables their columns as (heading, field).
_TABLES: dict[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    "component_matrix": (
        "Component Matrix",
        (
            *(("Component", "component"), ("Type", "type"), ("Reuse/Port", "reuse_port")),
            *(("Official Definition", "official_definition"), ("Official Instantiation", "official_instantiation")),
            *(("Target", "target"), ("Prototype", "prototype"), ("Conversion", "conversion")),
            *(("Parity", "parity"), ("Open Issues", "open_issues")),
        ),
    ),
    "parity_commands": (
        "Parity Commands",
        (("Scope", "scope"), ("Command", "command"), ("Last Result", "last_result"), ("Notes", "notes")),
    ),
    "open_questions": (
        "Open Questions",
        (
            *(("ID", "id"), ("Question", "question"), ("Owner", "owner"), ("Needed By Phase", "needed_by_phase")),
            *(("Status", "status"), ("Resolution", "resolution")),
        ),
    ),
    "issues_and_blockers": (
        "Issues And Blockers",
        (
            *(("ID", "id"), ("Phase", "phase"), ("Component", "component"), ("Severity", "severity")),
            *(("Issue", "issue"), ("Evidence", "evidence"), ("Owner", "owner"), ("Status", "status")),
            ("Resolution", "resolution"),
        ),
    ),
    "escape_hatches": (
        "Escape Hatches",
        (
            *(("ID", "id"), ("Phase", "phase"), ("Decision Type", "decision_type"), ("Question", "question")),
            *(("Recommended Option", "recommended_option"), ("Status", "status"), ("Resolution", "resolution")),
        ),
    ),
    "decisions": (
        "Decisions",
        (("Date", "date"), ("Decision", "decision"), ("Rationale", "rationale"), ("Impact", "impact")),
    ),
}
_BULLETS = {"summary": "Summary", "current_phase": "Current Phase", "conversion_state": "Conversion State"}
_ORDER = (
    *("summary", "current_phase", "component_matrix", "conversion_state", "parity_commands", "open_questions"),
    *("issues_and_blockers", "escape_hatches", "decisions"),
)
_SPELLED = {"fastvideo_target": "target", "vaeport_target": "target", "reuse_or_port": "reuse_port"}


class PortStatus(View):
    """All sections of `PORT_STATUS.md`."""

    NAME: ClassVar[Literal["port_state"]] = "port_state"

    summary: Summary
    current_phase: CurrentPhase
    component_matrix: tuple[MatrixRow, ...]
    conversion_state: ConversionState
    parity_commands: tuple[CommandRow, ...]
    open_questions: tuple[QuestionRow, ...]
    issues_and_blockers: tuple[IssueRow, ...]
    escape_hatches: tuple[HatchStatusRow, ...]
    decisions: tuple[DecisionRow, ...]
    handoff_notes: Lines

    def _rule_ids(self) -> Iterator[Finding]:
        for name in ("open_questions", "issues_and_blockers", "escape_hatches"):
            ids = [row.id for row in getattr(self, name)]
            for twice in sorted({id for id in ids if ids.count(id) > 1}):
                fix = "give the later row the next free number"
                yield finding("row-ids", name, "ids that stand once", twice, fix)

    @classmethod
    def from_state(cls, state: PortState) -> Self:
        """The status of this record."""
        return accept(cls, _fields_of(state), "the record does not give a status file")

    def to_markdown(self) -> str:
        """The text of `PORT_STATUS.md`."""
        parts = [f"# {self.summary.model_family} Port Status"]
        for name in _ORDER:
            if name in _BULLETS:
                parts += [f"## {_BULLETS[name]}", bullets(getattr(self, name).plain())]
            else:
                heading, columns = _TABLES[name]
                rows = ([getattr(row, field) for _, field in columns] for row in getattr(self, name))
                parts += [f"## {heading}", table([head for head, _ in columns], rows)]
        return "\n\n".join([*parts, "## Handoff Notes", notes(self.handoff_notes)]) + "\n"


def markdown_fields(text: str) -> tuple[dict[str, Any], list[Finding]]:
    """The fields of `PortStatus` as they stand in a `PORT_STATUS.md`, and a finding for every section that lacks."""
    found, lacks = sections(text), []
    fields: dict[str, Any] = {}
    for name, heading in {**_BULLETS, **{name: heading for name, (heading, _) in _TABLES.items()}}.items():
        lines = found.get(heading.lower())
        value: Any = None if lines is None else read_bullets(lines) if name in _BULLETS else read_table(lines)
        if value is None:
            fix = f"add `## {heading}`" + ("" if name in _BULLETS else " with its table; without rows its header alone")
            lacks.append(finding("missing-section", name, f"## {heading}", "no such section or no table in it", fix))
        elif name in _TABLES:
            fields[name] = [{_SPELLED.get(key, key): text for key, text in row.items()} for row in value]
        else:
            fields[name] = value
    if "handoff notes" not in found:
        lacks.append(finding("missing-section", "handoff_notes", "## Handoff Notes", "no such section", "add it"))
    return {**fields, "handoff_notes": read_notes(found.get("handoff notes", []))}, lacks


def _fields_of(state: PortState) -> dict[str, Any]:
    source, held, parity, steps = state.source, state.conversion, state.parity, state.steps
    waiting = [row.id for row in (*state.open_rows("issues"), *state.open_rows("escape_hatches"))]
    revision = f"@{source.hf_revision}" if source.hf_revision not in ("none", "default") else ""
    verdict = f"; verdict {parity.verdict} sha256 {parity.verdict_sha256}" if parity.verdict_sha256 else ""
    dumps = "" if is_placeholder(state.key_dumps.native) else ", key dumps made"
    missing = f" ({', '.join(parity.missing)})" if parity.missing else ""
    retries = [f"{row.id} {row.status}: {row.request.suspected_fix} {row.resolution}".strip() for row in state.retries]
    return {
        "summary": {
            "model_family": state.model_family,
            "workload_types": _listed(state.workload_types),
            "official_ref": shown(source.official_ref),
            "official_ref_dir": shown(source.official_ref_dir),
            "hf_weights_path": shown(source.weights) + revision,
            "local_weights_dir": shown(source.local_weights_dir),
            "source_layout": source.source_layout,
            "local_tests_readme": state.readme,
        },
        "current_phase": {
            **{"phase": state.phase, "status": state.step.status, "owner": state.owner},
            "last_updated": state.last_updated,
        },
        "component_matrix": [
            {
                **{"component": state.component, "type": state.component_type, "reuse_port": state.reuse.verdict},
                "official_definition": _listed(file.path for file in state.definition_files),
                "official_instantiation": _listed(file.path for file in state.instantiation_files),
                "target": _listed(state.target.files()),
                "prototype": steps.prototype.status + dumps,
                "conversion": f"{steps.convert.status}, strict load {held.strict_load}",
                "parity": parity.status + missing,
                "open_issues": _listed(waiting),
            }
        ],
        "conversion_state": {
            **{"conversion_script": held.script, "converted_weights_dir": converted_weights_dir(state)},
            **{"source_layout": source.source_layout, "strict_load_status": held.strict_load},
            "passthrough_components": _listed(state.passthrough_components),
            "retry_history": "; ".join(retries) or "none",
        },
        "parity_commands": [
            {
                **{"scope": state.component, "command": parity.command, "last_result": parity.result},
                "notes": f"coverage {parity.coverage_scope}{verdict}",
            }
        ],
        "open_questions": [
            {**row.plain(), "needed_by_phase": row.needed_by}  # extra fields of the row are ignored
            for row in state.questions
        ],
        "issues_and_blockers": [row.plain() for row in state.issues],
        "escape_hatches": [{**row.plain(), **row.hatch.plain()} for row in state.escape_hatches],
        "decisions": [row.plain() for row in state.decisions],
        "handoff_notes": (*state.handoff_notes, *state.cleanup.lines()),
    }


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
