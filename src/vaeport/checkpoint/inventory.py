"""What a checkpoint holds, as data: totals, a tree of key prefixes, and every entry. No weights are read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaeport.checkpoint.entry import Entry
from vaeport.checkpoint.read import Checkpoint
from vaeport.checkpoint.rows import MAX_DEPTH, Row, aligned, merged_rows
from vaeport.checkpoint.text import cut, listing, natural, size_text


@dataclass(frozen=True)
class Group:
    """All tensors below one key prefix; `groups` are the prefixes one component longer, in natural order."""

    prefix: str
    tensors: int
    parameters: int
    nbytes: int
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Inventory:
    """A checkpoint's contents; sizes in bytes, `parameters` counts scalar values."""

    path: Path
    format: str
    files: tuple[Path, ...]
    metadata: Mapping[str, str]
    ignored: tuple[str, ...]
    tensors: int
    parameters: int
    nbytes: int
    dtypes: Mapping[str, int]
    groups: tuple[Group, ...]
    entries: tuple[Entry, ...]

    def to_json(self) -> dict[str, Any]:
        """The same as JSON-ready dicts and lists; `dtypes` are bytes per dtype, files stand by path."""
        return {
            "path": str(self.path),
            "format": self.format,
            "files": [str(file) for file in self.files],
            "metadata": dict(self.metadata),
            "ignored": list(self.ignored),
            "tensors": self.tensors,
            "parameters": self.parameters,
            "nbytes": self.nbytes,
            "dtypes": dict(self.dtypes),
            "groups": [_group_json(group) for group in self.groups],
            "entries": [
                {
                    "name": entry.name,
                    "shape": list(entry.shape),
                    "dtype": entry.dtype_name,
                    "nbytes": entry.nbytes,
                    "file": str(entry.file),
                }
                for entry in self.entries
            ],
        }

    def rows(self, max_depth: int | None = None) -> tuple[Row, ...]:
        """Rows for people: numbered siblings merged, and everything below `max_depth` key components summed up."""
        return merged_rows(self.entries, max_depth)

    def lines(self, max_depth: int | None = None) -> list[str]:
        """The totals and `rows(max_depth)` as aligned plain text."""
        facts = {
            "path": str(self.path),
            "format": self.format + (f", {len(self.files)} files" if len(self.files) > 1 else ""),
            "tensors": f"{self.tensors:,}",
            "parameters": f"{self.parameters:,}",
            "size": size_text(self.nbytes),
            "dtypes": ", ".join(f"{name} {size_text(nbytes)}" for name, nbytes in self.dtypes.items()),
            "metadata": ", ".join(f"{cut(key, 80)}={cut(value, 80)}" for key, value in self.metadata.items()),
            "ignored": listing(self.ignored, 8),
        }
        table = [("tensor", "shape", "dtype", "count", "parameters", "size")]
        table += [row.cells() for row in self.rows(max_depth)]
        return [f"{name:<12}{fact}" for name, fact in facts.items() if fact] + ["", *aligned(table, numbers_from=3)]


def summarise(checkpoint: Checkpoint) -> Inventory:
    """Sum up a checkpoint from its entries alone."""
    entries = tuple(checkpoint.entries.values())
    dtypes: dict[str, int] = defaultdict(int)
    for entry in entries:
        dtypes[entry.dtype_name] += entry.nbytes
    return Inventory(
        path=checkpoint.path,
        format=checkpoint.format,
        files=checkpoint.files,
        metadata=dict(checkpoint.metadata),
        ignored=checkpoint.ignored,
        tensors=len(entries),
        parameters=sum(entry.parameters for entry in entries),
        nbytes=sum(entry.nbytes for entry in entries),
        dtypes=dict(sorted(dtypes.items())),
        groups=_groups([(entry, entry.name.split(".", MAX_DEPTH - 1)) for entry in entries], 0),
        entries=entries,
    )


def _groups(entries: Iterable[tuple[Entry, list[str]]], depth: int) -> tuple[Group, ...]:
    below: dict[str, list[tuple[Entry, list[str]]]] = defaultdict(list)
    for entry, parts in entries:
        if depth < len(parts):
            below[parts[depth]].append((entry, parts))
    return tuple(
        Group(
            prefix=".".join(members[0][1][: depth + 1]),
            tensors=len(members),
            parameters=sum(entry.parameters for entry, _ in members),
            nbytes=sum(entry.nbytes for entry, _ in members),
            groups=_groups(members, depth + 1),
        )
        for _, members in sorted(below.items(), key=lambda item: natural(item[0]))
    )


def _group_json(group: Group) -> dict[str, Any]:
    return {
        "prefix": group.prefix,
        "tensors": group.tensors,
        "parameters": group.parameters,
        "nbytes": group.nbytes,
        "groups": [_group_json(inner) for inner in group.groups],
    }
