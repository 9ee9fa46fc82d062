"""The packet that every helper on one component gets: where its official side is, and how far its port is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator

from vaeport.port.contracts.blocks import (
    Conversion,
    DefinitionFiles,
    InstantiationFiles,
    KeyDumps,
    bare_unknown,
    exclusion_lines,
    is_placeholder,
    loading_rules,
)
from vaeport.port.contracts.fields import ComponentType, Lines, Mode, OfficialPath, ProjectPath, SnakeCase, Text
from vaeport.port.contracts.record import accept
from vaeport.port.contracts.rules import Finding, finding
from vaeport.port.contracts.text import shown
from vaeport.port.state import PortState
from vaeport.port.views.view import View, concerns


def _as_paths(value: Any) -> Any:
    if isinstance(value, dict):
        value = [value] if "unknown" in value or "search" in value else list(value.values())
    return [value] if isinstance(value, str) else value


class ComponentContext(View):
    """The component context packet; `weights` is the addition for VAEs."""

    NAME: ClassVar[str] = "component_context"
    WRAPPED: ClassVar[bool] = True
    MAY_NAME_MACHINE: ClassVar[frozenset[str]] = frozenset(
        {"official_ref_dir", "official_definition_files", "official_instantiation_files"}
        | {"official_weight_source", "weights"}
    )

    model_family: SnakeCase
    component: Text
    component_type: ComponentType
    mode: Mode
    official_ref_dir: OfficialPath
    official_definition_files: DefinitionFiles
    official_instantiation_files: InstantiationFiles
    official_weight_source: OfficialPath
    target_files: Annotated[tuple[ProjectPath, ...], BeforeValidator(_as_paths)]
    local_tests_readme: ProjectPath
    port_state_file: ProjectPath
    parity_test: ProjectPath
    prototype_key_dumps: KeyDumps
    conversion: Conversion
    concerns_or_unknowns: Lines
    weights: OfficialPath | None = None

    @classmethod
    def _spelled(cls, value: dict[str, Any]) -> dict[str, Any]:
        theirs = value.pop("fastvideo_target_files", None)
        if theirs is not None:
            ours = value.get("target_files")
            value["target_files"] = list(dict.fromkeys(map(str, [*_as_paths(theirs), *(_as_paths(ours) or [])])))
        return value

    def _rule_start(self) -> Iterator[Finding]:
        for name in ("official_definition_files", "official_instantiation_files", "target_files"):
            if not getattr(self, name):
                fix = "find the files, or write the search that was made"
                yield finding("work-starts", name, "at least one file", "none", fix)

    def _rule_unknown(self) -> Iterator[Finding]:
        if self.mode != "parity-scaffold":
            for name, path in self._later():
                yield from bare_unknown(name, path)

    def _rule_placeholders(self) -> Iterator[Finding]:
        for name, path in self._later():
            if self.mode == "parity-debug" and path in ("planned", "not_created"):
                fix = "make the prototype's dumps and the conversion first; say not_needed where there is none"
                yield finding("scaffold-only", name, "a path, or not_needed", path, fix)

    def _rule_vae(self) -> Iterator[Finding]:
        if self.component_type == "vae" and self.weights is None:
            fix = "give the converted folder, the subfolder on the hub, or the official path"
            yield finding("vae-packet", "weights", "where the VAE's weights are", "nothing", fix)

    def _rule_loading(self) -> Iterator[Finding]:
        held = self.conversion
        texts = (held.mapping_notes, *self.concerns_or_unknowns)
        where = "conversion.mapping_notes"
        yield from loading_rules(held.production_loader_strictness, held.strict_load, texts, where)

    def _later(self) -> list[tuple[str, str]]:
        dumps, conversion = self.prototype_key_dumps, self.conversion
        return [
            ("prototype_key_dumps.official", dumps.official),
            ("prototype_key_dumps.native", dumps.native),
            ("conversion.script", conversion.script),
            ("conversion.converted_component_dir", conversion.converted_component_dir),
        ]

    @classmethod
    def from_state(cls, state: PortState) -> Self:
        """The packet of this record."""
        held, source = state.conversion, state.weight_source.text()
        converted = held.converted_component_dir
        notes = (held.mapping_notes, *exclusion_lines(held.exclusions, held.allowed_keys))
        fields = {
            **{name: getattr(state, name) for name in ("model_family", "component", "component_type", "mode")},
            "official_ref_dir": shown(state.source.official_ref_dir),
            "official_definition_files": state.definition_files,
            "official_instantiation_files": state.instantiation_files,
            "official_weight_source": source,
            "target_files": state.target.files(),
            "local_tests_readme": state.readme,
            "port_state_file": state.status_file,
            "parity_test": state.parity.test,
            "prototype_key_dumps": state.key_dumps,
            "conversion": {**held.plain_as(Conversion), "mapping_notes": "; ".join(notes)},
            "concerns_or_unknowns": concerns(state),
            "weights": source if is_placeholder(converted) else converted,
        }
        return accept(cls, fields, "the record is not far enough for a component context packet")
