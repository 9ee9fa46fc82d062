"""The log of an output folder: one line for every shard whose files are whole, appended and never changed.

Another line withdraws it before the shard is made anew. Lines have numbers: of several for one shard, the highest says
what is. A line that is cut short, by a kill or a full disk, was never written.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vaeport.dataset.formats.layout import sync_folder
from vaeport.errors import DatasetError
from vaeport.media.files import writing

FOLDER = "log"


@dataclass(frozen=True)
class OutputFile:
    """A file of a shard, by its path within the output folder."""

    name: str
    items: int
    bytes: int
    sha256: str

    @classmethod
    def of(cls, folder: Path, name: str, items: int) -> OutputFile:
        """The file as it is."""
        with (folder / name).open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            return cls(name, items, os.fstat(stream.fileno()).st_size, digest)

    def is_there(self, folder: Path) -> bool:
        """Whether a file of that name and size is there."""
        try:
            return (folder / self.name).stat().st_size == self.bytes
        except OSError:
            return False


@dataclass(frozen=True)
class Shard:
    """What a shard has become: `ids` of the items in its files, in order, and what was quarantined.

    sizes   bytes of each item's file, as it was then
    """

    shard: int
    ids: tuple[str, ...]
    files: tuple[OutputFile, ...]
    quarantined: tuple[dict[str, Any], ...] = ()
    sizes: tuple[int | None, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values, by name."""
        return asdict(self)

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Shard:
        """What `to_json` gave."""
        files = tuple(OutputFile(**file) for file in told["files"])
        quarantined, sizes = tuple(told["quarantined"]), tuple(told.get("sizes", ()))
        return cls(told["shard"], tuple(told["ids"]), files, quarantined, sizes)


class Log:
    """Where one rank writes: each has a file of its own, so that no two write to one.

    Its lines are on the disk when a call returns. BlockedError if the disk is full.
    """

    def __init__(self, folder: Path, rank: int) -> None:
        self._path = folder / FOLDER / f"{rank:05d}.jsonl"
        self._number = max((line["number"] for line in _lines(folder)), default=0)

    def commit(self, shard: Shard) -> None:
        """The shard is whole."""
        self._append([shard.to_json()])

    def withdraw(self, shards: Iterable[int]) -> None:
        """They are no longer."""
        self._append([{"shard": shard, "withdrawn": True} for shard in shards])

    def _append(self, told: Iterable[dict[str, Any]]) -> None:
        self._number += 1  # ranks may use the same: they have no shard in common
        lines = [json.dumps({"number": self._number, **one}, sort_keys=True).encode() for one in told]
        with writing(self._path, DatasetError):
            self._path.parent.mkdir(exist_ok=True)
            with self._path.open("ab") as stream:
                for line in lines:
                    stream.write(b"\n" + _check(line) + b" " + line + b"\n")  # the first ends what a kill may have left
                stream.flush()
                os.fsync(stream.fileno())
            sync_folder(self._path.parent)
            sync_folder(self._path.parent.parent)


def committed(folder: Path) -> dict[int, Shard]:
    """The shards that the log names, in their order."""
    last: dict[int, dict[str, Any]] = {}
    for line in _lines(folder):
        if line["number"] >= last.get(line["shard"], line)["number"]:
            last[line["shard"]] = line
    return {shard: Shard.from_json(last[shard]) for shard in sorted(last) if "withdrawn" not in last[shard]}


def _check(line: bytes) -> bytes:
    return hashlib.sha256(line).hexdigest()[:16].encode()


def _lines(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted((folder / FOLDER).glob("*.jsonl")):
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DatasetError("the log cannot be read", where=path, found=error.strerror) from error
        for line in content.split(b"\n"):
            check, _, told = line.partition(b" ")
            if told and _check(told) == check:
                yield {"number": 0} | json.loads(told)  # which lines of earlier versions lack
