"""What counts as right: places and causes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

EQUIVALENT = Path(__file__).with_name("equivalent.json")


def innermost(path: str, units: Iterable[str]) -> str:
    """The longest aligned path that a module lies in; a half or the whole always counts as one."""
    known = {*units, "encoder", "decoder", ""}
    while path not in known:
        path = path.rpartition(".")[0]
    return path


def parent(path: str, units: Iterable[str]) -> str:
    """The next aligned unit around one."""
    return innermost(path.rpartition(".")[0], units) if path else ""


def place(reported: str, places: Iterable[str], units: list[str]) -> tuple[bool, bool]:
    """(right, exact): the reported unit is the innermost one of some place, or its direct parent."""
    wanted = {innermost(path, units) for path in places}
    around = {parent(path, units) for path in wanted} | {path.rpartition(".")[0] for path in wanted}
    return reported in wanted | around, reported in wanted


@cache
def equivalent() -> dict[str, frozenset[str]]:
    """Class of a fault -> the classes that say the same of it, by the committed table."""
    table: dict[str, set[str]] = {}
    for entry in json.loads(EQUIVALENT.read_text()):
        for name in entry["fault"]:
            table.setdefault(name, set()).update(entry["said"])
    return {name: frozenset(classes) for name, classes in table.items()}


def same_cause(found: str | None, expected: str) -> bool:
    """Equal but for spelling, or up to the table."""
    if found is None:
        return False
    return _spelt(found) == _spelt(expected) or found in equivalent().get(expected, ())


def _spelt(name: str) -> str:
    return name.replace("_", " ").lower()


def plain(finding: Any) -> dict[str, Any]:
    """A finding as data."""
    names = ("unit", "reference_unit", "where", "cause", "change", "error", "remaining")
    return {name: getattr(finding, name, None) for name in names}
