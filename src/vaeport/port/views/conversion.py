"""What the conversion is asked for, asked again for, and hands back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal, Self

from pydantic import AliasChoices, Field

from vaeport.errors import ConfigError
from vaeport.port.contracts.blocks import (
    Conversion,
    DefinitionFiles,
    InstantiationFiles,
    KeyDumps,
    RetryRequest,
    exclusion_lines,
    is_placeholder,
    loading_rules,
)
from vaeport.port.contracts.fields import (
    ComponentType,
    ConfigFile,
    ConfigValidation,
    LaterPath,
    Library,
    Lines,
    OfficialPath,
    ProjectPath,
    SnakeCase,
    SourceLayout,
    StrictLoad,
    Strictness,
    Text,
)
from vaeport.port.contracts.record import Record, accept
from vaeport.port.contracts.rows import EscapeHatch
from vaeport.port.contracts.rules import Finding, finding
from vaeport.port.contracts.text import shown
from vaeport.port.state import PortState
from vaeport.port.views.view import OrNone, View, asking_rules, blocker, concerns, converted_weights_dir, open_hatch


class RequestedComponent(Record):
    """A component that is to be converted."""

    name: Text
    component_type: ComponentType
    official_definition_files: DefinitionFiles
    official_instantiation_files: InstantiationFiles
    official_weight_source: OfficialPath
    official_keys: LaterPath
    native_keys: LaterPath = Field(validation_alias=AliasChoices("native_keys", "fastvideo_keys"))
    native_class: Text = Field(validation_alias=AliasChoices("native_class", "fastvideo_class"))
    model_index_library: Library
    config_filename: ConfigFile
    production_loader_strictness: Strictness
    source_prefix_or_path: Text
    parity_test: ProjectPath
    prototype_concerns_or_unknowns: Lines

    def _rule_dumps(self) -> Iterator[Finding]:
        dumps = KeyDumps(official=self.official_keys, native=self.native_keys)
        for item in dumps.missing():
            where = f"{item.where}_keys"
            yield finding("key-dumps", where, item.expected, item.found, item.fix)


class ConversionRequest(View):
    """The first request; it needs the key dumps of both sides."""

    NAME: ClassVar[str] = "conversion_request"
    MAY_NAME_MACHINE: ClassVar[frozenset[str]] = frozenset({"official_weights", "components"})

    model_family: SnakeCase
    source_layout: SourceLayout
    official_weights: OfficialPath
    hf_revision: Text
    converted_weights_dir: ProjectPath
    local_tests_readme: ProjectPath
    port_state_file: ProjectPath
    components: tuple[RequestedComponent, ...]

    def _rule_components(self) -> Iterator[Finding]:
        if not self.components:
            yield finding("missing-field", "components", "at least one component", "none", "name the components")

    @classmethod
    def from_state(cls, state: PortState) -> Self:
        """The request of this record's one component."""
        held = state.conversion
        part = {
            "name": state.component,
            "component_type": state.component_type,
            "official_definition_files": state.definition_files,
            "official_instantiation_files": state.instantiation_files,
            "official_weight_source": state.weight_source.text(),
            "official_keys": state.key_dumps.official,
            "native_keys": state.key_dumps.native,
            "native_class": state.target.class_name,
            "model_index_library": held.model_index_library,
            "config_filename": held.config_file,
            "production_loader_strictness": held.production_loader_strictness,
            "source_prefix_or_path": state.weight_source.place(),
            "parity_test": state.parity.test,
            "prototype_concerns_or_unknowns": concerns(state),
        }
        fields = {
            "model_family": state.model_family,
            "source_layout": state.source.source_layout,
            "official_weights": shown(state.source.weights),
            "hf_revision": state.source.hf_revision,
            "converted_weights_dir": converted_weights_dir(state),
            "local_tests_readme": state.readme,
            "port_state_file": state.status_file,
            "components": [part],
        }
        return accept(cls, fields, "the record is not far enough for a conversion request")


class ConversionRetry(View, RetryRequest):
    """A request to repeat the conversion, from the component's port."""

    NAME: ClassVar[str] = "conversion_retry_request"
    WRAPPED: ClassVar[bool] = True

    @classmethod
    def from_state(cls, state: PortState) -> Self:
        """The first retry of this record that is not answered yet."""
        retries = state.open_rows("retries")
        if not retries:
            raise ConfigError("no conversion retry is open", fix="file one with `with_row('retries', ...)`")
        return accept(cls, retries[0].request.plain(), "the record does not give a retry request")


class ContextUpdate(Record):
    """What the conversion changes in a component's context packet."""

    component: Text
    converted_component_dir: LaterPath
    model_index_library: Library
    config_file: Text
    config_validation: ConfigValidation
    mapping_notes: Text
    production_loader_strictness: Strictness
    strict_load: StrictLoad
    retry_resolved: Literal["yes", "no", "not_a_retry"]
    concerns_or_unknowns: Lines

    def _rule_loading(self) -> Iterator[Finding]:
        texts = (self.mapping_notes, *self.concerns_or_unknowns)
        strictness = self.production_loader_strictness
        yield from loading_rules(strictness, self.strict_load, texts, "mapping_notes")


class ConversionHandoff(View):
    """What the conversion wrote, and how it loads."""

    NAME: ClassVar[str] = "conversion_handoff"

    conversion_script: LaterPath
    source_layout: SourceLayout
    converted_weights_dir: ProjectPath
    port_state_file: ProjectPath
    components_written: Lines
    passthrough_components: Lines
    strict_load: Literal["pass", "pass_with_documented_exclusions", "blocked"]
    component_context_updates: tuple[ContextUpdate, ...]
    blocked_on: Text
    next_step: Literal["phase_6_component_parity_debug", "ask_user"]
    escape_hatch: OrNone[EscapeHatch]

    def _rule_cause(self) -> Iterator[Finding]:
        if self.strict_load == "blocked" and self.blocked_on == "none":
            fix = "name what the strict load fails on, exactly"
            yield finding("status-cause", "blocked_on", "the exact cause of `blocked`", "none", fix)

    def _rule_asking(self) -> Iterator[Finding]:
        yield from asking_rules(self.next_step == "ask_user", self.escape_hatch)

    @classmethod
    def from_state(cls, state: PortState) -> Self:
        """The hand-over of this record; before the conversion ran, it is blocked on that."""
        held, hatch = state.conversion, open_hatch(state)
        ran, written = held.strict_load != "not_run", not is_placeholder(held.converted_component_dir)
        notes = (held.mapping_notes, *exclusion_lines(held.exclusions, held.allowed_keys))
        answered = [retry.status == "resolved" for retry in state.retries]
        told = held.plain_as(Conversion)
        names = ("converted_component_dir", "model_index_library", "config_file", "strict_load")
        update = {
            **{name: told[name] for name in (*names, "production_loader_strictness")},
            "component": state.component,
            "config_validation": "blocked" if held.config_validation == "not_run" else held.config_validation,
            "mapping_notes": "; ".join(notes),
            "retry_resolved": "not_a_retry" if not answered else "yes" if all(answered) else "no",
            "concerns_or_unknowns": concerns(state),
        }
        waits = blocker(state) if blocker(state) != "none" else "the strict load was refused"
        blocked = "the conversion has not run" if not ran else waits if held.strict_load == "blocked" else "none"
        fields = {
            "conversion_script": held.script,
            "source_layout": state.source.source_layout,
            "converted_weights_dir": converted_weights_dir(state),
            "port_state_file": state.status_file,
            "components_written": [state.component] if written else [],
            "passthrough_components": state.passthrough_components,
            "strict_load": held.strict_load if ran else "blocked",
            "component_context_updates": [update],
            "blocked_on": blocked,
            "next_step": "ask_user" if hatch else "phase_6_component_parity_debug",
            "escape_hatch": hatch,
        }
        return accept(cls, fields, "the record is not far enough for the conversion's hand-over")
