"""Check packets as people and agents write them: YAML or JSON, alone or in Markdown, and `PORT_STATUS.md`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import AliasChoices

from vaeport.checkpoint.files import exists, nearest_paths, reading
from vaeport.checkpoint.strict_json import JsonProblemError, parse_json_object
from vaeport.checkpoint.text import cut, listing, size_text
from vaeport.errors import ConfigError
from vaeport.port.contracts.record import Record, findings_in
from vaeport.port.contracts.rules import Finding, finding
from vaeport.port.contracts.text import problems
from vaeport.port.contracts.yaml_text import YamlProblemError, parse_yaml
from vaeport.port.state import PortState
from vaeport.port.views.catalog import VIEWS
from vaeport.port.views.port_status import PortStatus, markdown_fields
from vaeport.port.views.tables import sections

__all__ = ["Finding", "check_packet", "check_text"]

LARGEST = 1_000_000  # bytes
KINDS: dict[str, type[Record]] = {"port_record": PortState, **VIEWS}
_FENCE = re.compile(r"^(`{3,}|~{3,})[ \t]*(?:ya?ml|json)\b[^\n]*\n(.*?)^\1[ \t]*$", re.MULTILINE | re.DOTALL | re.I)
_STATUS_TITLE = re.compile(r"^# .*\bport status\b", re.MULTILINE | re.IGNORECASE)
_STATUS_HEADINGS = {"current phase", "component matrix", "conversion state", "parity commands"}


def check_packet(path: str | Path) -> list[Finding]:
    """All rules that the packets in a file break; empty if it is right.

    A packet that asks the user is also held against the state file it names, if that file is found in a folder above.

    Raises:
        ConfigError: there is no such file.
        BlockedError: the system refuses to read it.
    """
    path = Path(path)
    if not exists(path) or not path.is_file():
        raise ConfigError("no packet here", where=path, found=nearest_paths(path) if not exists(path) else "a folder")
    with reading(path):
        size = path.stat().st_size
        raw = path.read_bytes() if size <= LARGEST else b""
    if size > LARGEST:
        fix = "give the packet alone; dumps belong into files of their own"
        return [finding("large-text", "", f"at most {size_text(LARGEST)}", size_text(size), fix)]
    if b"\0" in raw:
        return [finding("file-form", "", "text", "a binary file", "give a YAML, JSON or Markdown file")]
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        found = f"byte {error.start} is not UTF-8"
        return [finding("file-form", "", "UTF-8 text", found, "save the file as UTF-8")]
    return check_text(text, path)


def check_text(text: str, path: Path | None = None) -> list[Finding]:
    """The same for a text; `path` says where it is from."""
    if not text.strip():
        return [finding("file-form", "", "a packet", "an empty file", "fill it, or let `vaeport port` write it")]
    if _STATUS_TITLE.search(text) or len(_STATUS_HEADINGS & sections(text).keys()) >= 2:
        found = _status(text)
    elif fences := [match[2] for match in _FENCE.finditer(text)]:
        found = [item for fence in fences for item in _packets(fence, path)]
    else:
        found = _packets(text, path)
    if not any(item.rule == "token-value" for item in found):  # prose and comments may hold secrets too
        lines = {f"line {number}": line for number, line in enumerate(text.splitlines(), 1)}
        found += [item for item in problems(lines) if item.rule == "token-value"]
    return list(dict.fromkeys(found))


def _status(text: str) -> list[Finding]:
    fields, lacks = markdown_fields(text)
    lacking = {item.where for item in lacks}
    found = [item for item in findings_in(PortStatus, fields) if item.where not in lacking]
    return [*lacks, *(replace(item, where=_join("port_state", item.where)) for item in found)]


def _packets(text: str, path: Path | None) -> list[Finding]:
    try:
        documents = _documents(text, path)
    except (JsonProblemError, YamlProblemError) as error:
        fix = "correct the syntax: quote a value that holds `: `; tags, aliases and double keys are not read"
        return [finding("file-form", "", "one mapping in YAML or JSON", error, fix)]
    found: list[Finding] = []
    for document in documents:
        if not isinstance(document, dict):
            kind = type(document).__name__
            found.append(
                finding("file-form", "", "a mapping of a contract's fields", kind, "write `field: value` lines")
            )
            continue
        for name, fields in _named(document):
            if name in KINDS:
                broken = [*findings_in(KINDS[name], fields), *_row_of_hatch(fields, path)]
                found += [replace(item, where=_join(name, item.where)) for item in broken]
            else:
                keys = listing([cut(str(key), 40) for key in fields]) if isinstance(fields, dict) else ""
                fix = "put the packet under the name of its contract"
                found.append(finding("unknown-contract", name, ", ".join(KINDS), keys, fix))
    return found


def _documents(text: str, path: Path | None) -> list[Any]:
    is_json = path is not None and path.suffix == ".json"
    if is_json or text.lstrip().startswith("{"):
        try:
            return [parse_json_object(text.encode("utf-8", "surrogatepass"))]
        except JsonProblemError:
            if is_json:
                raise
    return [document for document in parse_yaml(text) if document is not None] or [None]


def _named(document: dict[Any, Any]) -> Iterator[tuple[str, Any]]:
    """Contract name and fields of each packet in a mapping: by its top-level names, else by its fields."""
    if all(key in KINDS for key in document) and any(isinstance(fields, dict) for fields in document.values()):
        yield from document.items()
        return
    shared = {name: len(_spellings(kind) & document.keys()) for name, kind in KINDS.items()}
    lacking = {name: len(kind.model_fields) - shared[name] for name, kind in KINDS.items()}
    best = max(KINDS, key=lambda name: (shared[name], -lacking[name]))
    yield best if shared[best] >= 2 else "", document


def _spellings(kind: type[Record]) -> set[str]:
    names = set(kind.model_fields)
    for field in kind.model_fields.values():
        if isinstance(field.validation_alias, AliasChoices):
            names |= set(map(str, field.validation_alias.choices))
    return names | ({"fastvideo_target_files"} if "target_files" in names else set())


def _row_of_hatch(fields: Any, path: Path | None) -> Iterator[Finding]:
    """A finding if the packet asks the user and the state file, where it is found, has no open row for that."""
    if not isinstance(fields, dict) or fields.get("next_step") != "ask_user" or path is None:
        return
    named = Path(str(fields.get("port_state_file")))
    ids = re.findall(r"\bE\d{3,}\b", str(fields.get("escape_hatch")))
    files = [] if named.is_absolute() or ".." in named.parts else [above / named for above in path.resolve().parents]
    held = next((file for file in files if exists(file) and file.is_file()), None)
    if held is None or not ids:
        return
    rows = markdown_fields(held.read_text("utf-8", "replace"))[0].get("escape_hatches", [])
    waiting = [row.get("id") for row in rows if row.get("status", "").lower() != "resolved"]
    if not set(ids) & set(waiting):
        fix = "add the row to Escape Hatches of the state file"
        rows_found = f"open rows: {', '.join(map(str, waiting)) or 'none'}"
        yield finding("hatch-row", "escape_hatch", f"an open row {ids[0]} in {named}", rows_found, fix)


def _join(*parts: str) -> str:
    return ".".join(filter(None, parts))
