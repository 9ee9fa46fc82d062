"""The log of an output folder: one line for every shard whose files are whole, appended and never changed.

A line that is cut short, by a kill or a full disk, was never written.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
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
    """What a shard has become: `ids` of the items in its files, in order, and what was quarantined."""

    shard: int
    ids: tuple[str, ...]
    files: tuple[OutputFile, ...]
    quarantined: tuple[dict[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values, by name."""
        return asdict(self)

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Shard:
        """What `to_json` gave."""
        files = tuple(OutputFile(**file) for file in told["files"])
        return cls(told["shard"], tuple(told["ids"]), files, tuple(told["quarantined"]))


def append(folder: Path, rank: int, shard: Shard) -> None:
    """Commit a shard: its line is on the disk when this returns. BlockedError if the disk is full.

    Each rank has a file of its own, so that no two write to one.
    """
    path = folder / FOLDER / f"{rank:05d}.jsonl"
    line = json.dumps(shard.to_json(), sort_keys=True).encode()
    check = hashlib.sha256(line).hexdigest()[:16].encode()
    with writing(path, DatasetError):
        path.parent.mkdir(exist_ok=True)
        with path.open("ab") as stream:
            stream.write(b"\n" + check + b" " + line + b"\n")  # the first ends what a kill may have left
            stream.flush()
            os.fsync(stream.fileno())
        sync_folder(path.parent)
        sync_folder(folder)


def committed(folder: Path) -> dict[int, Shard]:
    """The shards that the log names; of several lines for one, the last."""
    return {shard.shard: shard for shard in _lines(folder)}


def _lines(folder: Path) -> Iterator[Shard]:
    for path in sorted((folder / FOLDER).glob("*.jsonl")):
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DatasetError("the log cannot be read", where=path, found=error.strerror) from error
        for line in content.split(b"\n"):
            check, _, told = line.partition(b" ")
            if told and hashlib.sha256(told).hexdigest()[:16].encode() == check:
                yield Shard.from_json(json.loads(told))
