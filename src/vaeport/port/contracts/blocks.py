"""Blocks of fields that the record of a port and its views share."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import AliasChoices, BeforeValidator, Field

from vaeport.port.contracts.fields import (
    AnyJson,
    ConfigFile,
    LaterPath,
    LaterStrictness,
    Library,
    Lines,
    Names,
    OfficialPath,
    ProjectPath,
    StrictLoad,
    SuspectedFix,
    Text,
    is_unknown,
    search_of,
)
from vaeport.port.contracts.record import Record
from vaeport.port.contracts.rules import Finding, finding


class DefinitionFile(Record):
    """A file of the official source that defines the component: layer graph, output contract, owner of the weights."""

    path: OfficialPath
    symbols: Names = ()
    notes: str = ""


class InstantiationFile(Record):
    """A file that instantiates it: factory or config, and the exact constructor arguments, values and flags."""

    path: OfficialPath
    symbols: Names = ()
    args: AnyJson = ""


def _as_files(value: Any) -> Any:
    """Entries with a path, bare paths, and a mapping of paths to symbols, all as a list of entries."""
    if isinstance(value, str):
        value = [value]
    elif isinstance(value, dict):
        if {"path", "unknown"} & value.keys():
            return [value if "path" in value else {"path": value}]
        value = [
            {"path": path, **more} if isinstance(more, dict) else {"path": path, "symbols": more}
            for path, more in value.items()
        ]
    if isinstance(value, list | tuple):
        return [_as_file(item) if isinstance(item, str) else item for item in value]
    return value


def _as_file(text: str) -> dict[str, str]:
    path, _, symbols = (text, "", "") if is_unknown(text) else text.partition("::")
    return {"path": path, "symbols": symbols}


DefinitionFiles = Annotated[tuple[DefinitionFile, ...], BeforeValidator(_as_files)]
InstantiationFiles = Annotated[tuple[InstantiationFile, ...], BeforeValidator(_as_files)]


class KeyDumps(Record):
    """Keys, shapes and dtypes of both sides: paths of JSON files, or `planned`, `unknown`."""

    official: LaterPath
    native: LaterPath = Field(validation_alias=AliasChoices("native", "fastvideo"))

    def missing(self, where: str = "") -> list[Finding]:
        """A finding for each side that has no dump yet."""
        fix = "instantiate this side with its exact arguments, dump its keys, shapes and dtypes, and give the path"
        return [
            finding("key-dumps", f"{where}{side}", "the path of a JSON dump", path, fix)
            for side, path in (("official", self.official), ("native", self.native))
            if is_placeholder(path)
        ]


class Conversion(Record):
    """What is known of the conversion of one component."""

    script: LaterPath
    converted_component_dir: LaterPath
    model_index_library: Library
    config_file: ConfigFile
    mapping_notes: Text
    production_loader_strictness: LaterStrictness
    strict_load: StrictLoad


class RetryRequest(Record):
    """What a component port files instead of editing a conversion."""

    component: Text
    parity_test: ProjectPath
    failing_keys: Lines = ()
    expected_actual_shapes: Lines = ()
    source_prefix_or_path: Text
    evidence: Text
    suspected_fix: SuspectedFix


class Exclusion(Record):
    """A key that is dropped, or that may be missing or unexpected, and why that is right."""

    key: Text
    reason: Text


def is_placeholder(path: str) -> bool:
    """Whether a path that comes into being later is not there yet."""
    return path in ("planned", "not_created", "not_needed", "none") or is_unknown(path)


def bare_unknown(where: str, path: str) -> Iterator[Finding]:
    """A finding if the path is `unknown` without the search that was made."""
    if is_unknown(path) and not search_of(path):
        fix = "search for it, and write the search behind `unknown`"
        yield finding("unknown-path", where, "unknown (searched <the exact search>)", path, fix)


def loading_rules(
    strictness: str, strict_load: str, texts: tuple[str, ...], where: str = "concerns_or_unknowns"
) -> Iterator[Finding]:
    """Rules of a view about strictness: what is excluded is named in one of its texts."""
    told = "\n".join(texts)
    if strictness == "non_strict_with_allowed_keys":
        if not re.search(r"allowed[\w ]*keys?\s*[:=]\s*[^\s:=]", told, re.I):
            fix = "add a line `allowed keys: a.b, c.d`"
            yield finding("allowed-keys", where, "allowed keys: <key>, <key>", "none listed", fix)
        if strict_load == "pass":
            fix = "say pass_with_documented_exclusions"
            yield finding("allowed-keys", "strict_load", "pass_with_documented_exclusions", strict_load, fix)
    if strict_load == "pass_with_documented_exclusions" and not re.search(
        r"(?:drop\w*|skip\w*|exclu\w*|allowed[\w ]*keys?)\s*[:=]\s*[^\s:=(]+\s*\([^)]+\)", told, re.I
    ):
        fix = "add a line `dropped: a.b (why it is not needed)`"
        yield finding("named-drops", where, "dropped: <key> (<reason>)", "none named", fix)


def exclusion_lines(drops: tuple[Exclusion, ...], allowed: tuple[Exclusion, ...]) -> tuple[str, ...]:
    """Drops and allowed keys as the lines that `loading_rules` reads."""
    groups = (("dropped", drops), ("allowed keys", allowed))
    return tuple(
        f"{name}: " + ", ".join(f"{item.key} ({item.reason})" for item in items) for name, items in groups if items
    )
