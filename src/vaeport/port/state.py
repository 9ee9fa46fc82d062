"""`PortState`: the one record of porting one component. Every packet, report and status file is a view of it.

    state = new_state(model_family="wan", modality="video", source={...}, ...)
    state = state.update(key_dumps={"official": "...json"}).with_step("official", "complete", at=now)
    state = state.with_row("questions", phase="reuse", question="...")

Records are frozen: a change makes a new one, and is refused with every rule that it breaks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field

from vaeport.errors import ConfigError
from vaeport.port.contracts.blocks import (
    DefinitionFile,
    DefinitionFiles,
    InstantiationFile,
    InstantiationFiles,
    KeyDumps,
)
from vaeport.port.contracts.fields import (
    ComponentType,
    Json,
    Lines,
    Modality,
    Mode,
    Names,
    NextStep,
    SnakeCase,
    is_unknown,
)
from vaeport.port.contracts.parts import (
    Cleanup,
    Converted,
    Parity,
    Reuse,
    Source,
    Stub,
    Target,
    WeightSource,
)
from vaeport.port.contracts.record import Document, Record, accept
from vaeport.port.contracts.rows import Decision, HatchRow, Issue, Question, Retry, lost_rows, unique_ids
from vaeport.port.contracts.rules import Finding, finding
from vaeport.port.contracts.steps import OWNERS, STEPS, Step, StepName, Steps

RowKind = Literal["questions", "issues", "escape_hatches", "retries"]
ROWS: dict[RowKind, str] = {"questions": "Q", "issues": "I", "escape_hatches": "E", "retries": "R"}
LOCAL_TESTS = "tests/local_tests"
_REFUSED = "the port's record cannot be like this"


class PortState(Document):
    """All that is known of the port of one component; `format` says how to read it, `revision` counts its saves."""

    MAY_NAME_MACHINE: ClassVar[frozenset[str]] = frozenset({"source"})

    format: Literal[1] = 1
    revision: int = Field(default=0, ge=0)
    model_family: SnakeCase
    component: SnakeCase = "vae"
    component_type: ComponentType = "vae"
    mode: Mode = "parity-scaffold"
    modality: Modality
    workload_types: Names = ()
    source: Source
    definition_files: DefinitionFiles
    instantiation_files: InstantiationFiles
    weight_source: WeightSource
    target: Target
    key_dumps: KeyDumps = KeyDumps(official="planned", native="planned")
    stubs: tuple[Stub, ...] = ()
    contract: Json = Field(default_factory=dict)
    reuse: Reuse = Reuse()
    conversion: Converted = Converted()
    parity: Parity
    cleanup: Cleanup = Cleanup()
    steps: Steps = Steps()
    concerns: Lines = ()
    questions: tuple[Question, ...] = ()
    issues: tuple[Issue, ...] = ()
    escape_hatches: tuple[HatchRow, ...] = ()
    retries: tuple[Retry, ...] = ()
    decisions: tuple[Decision, ...] = ()
    files_changed: Lines = ()
    passthrough_components: Lines = ()
    handoff_notes: Lines = ()

    def _rule_files(self) -> Iterator[Finding]:
        for name in ("definition_files", "instantiation_files"):
            if not getattr(self, name):
                fix = "name the files, or give `unknown(search)` as the path"
                yield finding("work-starts", name, "at least one file", "none", fix)

    def _rule_ids(self) -> Iterator[Finding]:
        for kind in ROWS:
            yield from unique_ids(kind, getattr(self, kind))

    def _rule_prototype(self) -> Iterator[Finding]:
        if self.steps.prototype.status == "complete":
            yield from self.key_dumps.missing("key_dumps.")

    def _rule_parity(self) -> Iterator[Finding]:
        for name in ("parity", "handoff"):
            if self.steps.of(name).status == "complete" and self.parity.status != "non_skip_pass":
                fix = "debug until the test passes without a skip; a reused component too"
                where, status = f"steps.{name}.status", self.parity.status
                yield finding("pass-only", where, "parity.status non_skip_pass", status, fix)

    def _rule_cleanup(self) -> Iterator[Finding]:
        if self.steps.handoff.status == "complete" and self.cleanup.outcome == "fail":
            fix = "remove what is told in cleanup.leftovers, and run `vaeport port` again"
            yield finding("cleanup-gate", "steps.handoff.status", "cleanup.outcome pass or incomplete", "fail", fix)

    def update(self, **changes: Any) -> Self:
        """The record with these fields changed; a mapping for a group of fields changes only what it names.

        Raises:
            ConfigError: the changed record would break rules; all of them are told.
        """
        merged = {
            name: {**dict(held), **change}
            if isinstance(change, Mapping) and isinstance(held := getattr(self, name, None), Record)
            else change
            for name, change in changes.items()
        }
        return accept(type(self), {**dict(self), **merged}, _REFUSED)

    def with_step(self, name: StepName, status: str, *, at: str, **fields: Any) -> Self:
        """The record with a step in another status at the UTC time `at`; fields: inputs, artifacts, note."""
        step = {**dict(self.steps.of(name)), **fields, "status": status, "updated": at}
        return self.update(steps={name: step})

    def with_row(self, kind: RowKind, **fields: Any) -> Self:
        """The record with one more open row, under the next free number of its kind."""
        rows = getattr(self, kind)
        number = max((int(row.id[1:]) for row in rows), default=0) + 1
        return self.update(**{kind: (*rows, {**fields, "id": f"{ROWS[kind]}{number:03}"})})

    def resolved(self, id: str, resolution: str) -> Self:
        """The record with the row of this id resolved.

        Raises:
            ConfigError: no row has this id, or it is resolved already.
        """
        for kind in ROWS:
            rows = getattr(self, kind)
            for index, row in enumerate(rows):
                if row.id == id and row.status == "open":
                    answered = {**dict(row), "status": "resolved", "resolution": resolution}
                    return self.update(**{kind: (*rows[:index], answered, *rows[index + 1 :])})
        waiting = ", ".join(row.id for kind in ROWS for row in self.open_rows(kind))
        raise ConfigError("no open row has this id", found=id, expected=waiting or "no row is open")

    @property
    def phase(self) -> StepName:
        """The first step that is not complete; `handoff` once all are."""
        return next((name for name in STEPS if self.steps.of(name).status != "complete"), "handoff")

    @property
    def step(self) -> Step:
        """The step of the current phase."""
        return self.steps.of(self.phase)

    @property
    def owner(self) -> str:
        """Whose turn it is."""
        return OWNERS[self.phase].format(component=self.component)

    @property
    def last_updated(self) -> str:
        """The latest time of any step, `not_started` before the first."""
        return max((step.updated for step in map(self.steps.of, STEPS) if step.updated), default="not_started")

    @property
    def next_step(self) -> NextStep:
        """What comes next; `ask_user` exactly while an escape hatch is open."""
        if self.open_rows("escape_hatches"):
            return "ask_user"
        if self.open_rows("retries"):
            return "phase_5_conversion_retry"
        if any(self.steps.of(name).status == "blocked" for name in STEPS):
            return "blocked"
        return "phase_6_continue" if self.mode == "parity-debug" else "phase_5_conversion"

    @property
    def readme(self) -> str:
        """Path of the family's README."""
        return f"{LOCAL_TESTS}/{self.model_family}/README.md"

    @property
    def status_file(self) -> str:
        """Path of `PORT_STATUS.md`."""
        return f"{LOCAL_TESTS}/{self.model_family}/PORT_STATUS.md"

    def open_rows(self, kind: RowKind) -> tuple[Any, ...]:
        """Rows of a kind that wait for a resolution."""
        return tuple(row for row in getattr(self, kind) if row.status == "open")

    def blockers_to_start(self) -> list[Finding]:
        """What must be known before any work on the component starts; empty if it may."""
        files: tuple[tuple[str, tuple[DefinitionFile | InstantiationFile, ...]], ...] = (
            ("definition_files", self.definition_files),
            ("instantiation_files", self.instantiation_files),
        )
        found = [(where, ", ".join(file.path for file in entries)) for where, entries in files]
        known = {where: any(not is_unknown(file.path) for file in entries) for where, entries in files}
        found.append(("parity.test", self.parity.test))
        known["parity.test"] = not is_unknown(self.parity.test)
        return [
            finding("work-starts", where, "a known path", path, "find the file in the official source and name it")
            for where, path in found
            if not known[where]
        ]

    def successor_of(self, previous: PortState) -> list[Finding]:
        """What this record lost of the previous one; empty if it may take its place."""
        found = []
        for name in ("model_family", "component"):
            before, after = getattr(previous, name), getattr(self, name)
            if before != after:
                found.append(finding("rows-stay", name, before, after, "keep each port in a file of its own"))
        for kind in ROWS:
            found += lost_rows(kind, getattr(previous, kind), getattr(self, kind))
        if self.decisions[: len(previous.decisions)] != previous.decisions:
            fix = "keep the decisions in their order and append the new one"
            found.append(finding("rows-stay", "decisions", "the former decisions first", "others", fix))
        return found


def new_state(**fields: Any) -> PortState:
    """A new record.

    Raises:
        ConfigError: the fields break rules; all of them are told.
    """
    return accept(PortState, fields, _REFUSED)
