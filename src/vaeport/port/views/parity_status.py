"""How the parity tests of a family stand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal, Self

from vaeport.port.contracts.blocks import DefinitionFiles, InstantiationFiles
from vaeport.port.contracts.fields import CoverageScope, LaterPath, Lines, Names, ParityState, ProjectPath, Text
from vaeport.port.contracts.record import Record, accept
from vaeport.port.contracts.rows import EscapeHatch
from vaeport.port.contracts.rules import Finding, finding
from vaeport.port.state import PortState
from vaeport.port.views.view import OrNone, View, concerns, open_hatch, pass_rules, pytest_output


class ComponentParity(Record):
    """The parity test of one component."""

    component: Text
    test: ProjectPath
    status: ParityState
    missing: Names
    coverage_scope: CoverageScope
    official_definition_files: DefinitionFiles
    official_instantiation_files: InstantiationFiles
    concerns_or_unknowns: Lines

    def _rule_cause(self) -> Iterator[Finding]:
        if self.status in ("scaffold_skip", "blocked") and not self.missing:
            fix = "name it, e.g. native_class, converted_weights, official_import"
            yield finding("status-cause", "missing", f"what {self.status} is for", "none", fix)


class PipelineParity(Record):
    """The parity test of the pipeline, which is not part of porting one component."""

    test: LaterPath
    status: Literal["not_started"] | ParityState


class ParityStatus(View):
    """Parity of every component, and of the pipeline."""

    NAME: ClassVar[str] = "parity_status"

    component_parity: tuple[ComponentParity, ...]
    pipeline_parity: PipelineParity
    local_tests_readme: ProjectPath
    port_state_file: ProjectPath
    notes: Lines
    escape_hatch: OrNone[EscapeHatch]

    def _rule_pass(self) -> Iterator[Finding]:
        for index, part in enumerate(self.component_parity):
            texts = (*self.notes, *part.concerns_or_unknowns)
            yield from pass_rules(f"component_parity.{index}.status", part.status, "", texts)

    def _rule_hatch(self) -> Iterator[Finding]:
        blocked = any(part.status == "blocked" for part in self.component_parity)
        if self.escape_hatch and self.escape_hatch.needs_user_input == "yes" and not blocked:
            fix = "debug skips and red tests within the workflow"
            yield finding("ask-user", "escape_hatch", "an escape hatch for a blocked component only", "none is", fix)

    @classmethod
    def from_state(cls, state: PortState) -> Self:
        """The status of this record's one component."""
        part = {
            "component": state.component,
            **{name: getattr(state.parity, name) for name in ("test", "status", "missing", "coverage_scope")},
            "official_definition_files": state.definition_files,
            "official_instantiation_files": state.instantiation_files,
            "concerns_or_unknowns": concerns(state),
        }
        fields = {
            "component_parity": [part],
            "pipeline_parity": {"test": "not_created", "status": "not_started"},
            "local_tests_readme": state.readme,
            "port_state_file": state.status_file,
            "notes": [pytest_output(state)],
            "escape_hatch": open_hatch(state) if state.parity.status == "blocked" else None,
        }
        return accept(cls, fields, "the record does not give a parity status")
