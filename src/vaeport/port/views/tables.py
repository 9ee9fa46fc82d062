"""Markdown in and out: sections, bullets with a name, tables. What goes in comes back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

_ESCAPED = {"\\": "\\\\", "|": "\\|", "\n": "<br>", "<br>": "\\<br>"}
_OUT = re.compile(r"<br>|[\\|\n]")
_IN = re.compile(r"\\([\\|<])|<br>")
_WORDS = {"id", "status", "decision_type", "type", "component", "parity", "severity"}  # people quote these
_BULLET = re.compile(r"[-*]\s+`?([\w /-]+?)`?\s*:(?:\s+(.*)|$)")


def cell(text: str) -> str:
    """Text as one line of Markdown that may stand in a table."""
    return _OUT.sub(lambda match: _ESCAPED[match[0]], text)


def uncell(text: str) -> str:
    """What `cell` was given."""
    return _IN.sub(lambda match: match[1] or "\n", text.strip())


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; without rows its header alone."""
    lines = [header, ["---"] * len(header), *([cell(text) for text in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def bullets(values: Mapping[str, str]) -> str:
    """Named values as a list."""
    return "\n".join(f"- {name}: {cell(value)}".rstrip() for name, value in values.items())


def notes(lines: Iterable[str]) -> str:
    """Notes as a list, or `- none`."""
    return "\n".join(f"- {cell(line)}" for line in lines) or "- none"


def sections(text: str) -> dict[str, list[str]]:
    """Lines under each heading of the second level, by its name in lower case."""
    found: dict[str, list[str]] = {}
    held: list[str] = []
    for line in text.splitlines():
        if match := re.fullmatch(r"##\s+(.+?)\s*#*", line):
            held = found.setdefault(match[1].lower(), [])
        else:
            held.append(line)
    return found


def read_bullets(lines: Iterable[str]) -> dict[str, str]:
    """Named values of a list, names in snake_case; backquotes around a value are dropped."""
    matches = [match for line in lines if (match := _BULLET.match(line.strip()))]
    return {_name(match[1]): _unquoted(uncell(match[2] or "")) for match in matches}


def read_notes(lines: Iterable[str]) -> list[str]:
    """The items of a list, without `none`."""
    items = [uncell(line.strip()[2:]) for line in lines if re.match(r"[-*]\s", line.strip())]
    return [] if items == ["none"] else items


def read_table(lines: Iterable[str]) -> list[dict[str, str]] | None:
    """The rows of the first table, by column names in snake_case; None if there is no table."""
    rows = [_cells(line) for line in lines if line.strip().startswith("|")]
    if len(rows) < 2 or not all(re.fullmatch(r":?-+:?", text) for text in rows[1]):
        return None
    header = [_name(text) for text in rows[0]]
    return [dict(zip(header, map(_word, header, row), strict=False)) for row in rows[2:]]


def _cells(line: str) -> list[str]:
    inner = line.strip().removeprefix("|")
    parts = re.findall(r"((?:\\.|[^\\|])*)(?:\||$)", inner)
    return [part.strip() for part in (parts[:-1] if inner.endswith("|") or not parts[-1] else parts)]


def _word(column: str, text: str) -> str:
    return _unquoted(uncell(text)) if column in _WORDS else uncell(text)


def _name(text: str) -> str:
    return re.sub(r"[\W_]+", "_", text.strip().lower()).strip("_")


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == "`" and "`" not in text[1:-1] else text
