"""What every layout does: take records, and leave files of bounded size that are whole."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

from vaeport.dataset.encoding import Outcome, Quarantined, Record
from vaeport.dataset.items import Item
from vaeport.errors import DatasetError, InputError
from vaeport.media import LatentHeader
from vaeport.media.files import writing


@dataclass(frozen=True)
class Written:
    """A file of a shard, by its path within the output folder, and how many items it holds."""

    name: str
    items: int


class ShardWriter(ABC):
    """Writes the files of one shard into a folder; those that are there under the same names are replaced.

    header      what all latents have in common; their `source` and `dtype` are each record's
    provenance  text by name, for what holds it once per file
    most        bytes of latents from which another file is begun
    """

    LARGEST: int | None = None
    """bytes of latents that one item may have"""

    def __init__(self, folder: Path, shard: int, header: LatentHeader, provenance: dict[str, str], most: int) -> None:
        self.folder, self.shard, self.header, self.most = folder, shard, header, most
        self.provenance = provenance
        self._held: list[Record] = []
        self._size = self._files = 0

    def add(self, record: Record) -> bool:
        """Take a record; whether a file is full with it."""
        self._held.append(record)
        self._size += record.latents.nbytes
        return self._size >= self.most

    def next_file(self) -> Callable[[], Iterable[Written]]:
        """What is held, as a file of its own: written when that is called. BlockedError if the disk is full."""
        records, self._held, self._size = self._held, [], 0
        if not records:
            return tuple
        self._files += 1
        return partial(self._write, records, f"{self.shard:06d}-{self._files - 1:03d}")

    def clear(self, items: Sequence[Item]) -> None:
        """Remove what an earlier attempt may have left of this shard."""
        for path in sorted((self.folder / "data").glob(f"{self.shard:06d}-*")):
            with writing(path, DatasetError):
                path.unlink(missing_ok=True)

    def taken(self, record: Record) -> Outcome:
        """The record, or that this layout has no room for it."""
        size = self._size_of(record)
        if self.LARGEST is None or size <= self.LARGEST:
            return record
        fix = "take less of it by --size and --frames, or write another layout by --as"
        expected, found = f"at most {self.LARGEST} bytes in this layout", f"{size} bytes"
        error = InputError(
            "the latents are too large", where=record.item.place, expected=expected, found=found, fix=fix
        )
        return Quarantined(record.item, error)

    def _size_of(self, record: Record) -> int:
        """Bytes of its latents as they are written."""
        return record.latents.nbytes

    @abstractmethod
    def _write(self, records: list[Record], name: str) -> Iterator[Written]:
        """Write these records as `name` and the layout's extension, or as several files."""

    @classmethod
    @abstractmethod
    def ids(cls, folder: Path, name: str) -> Iterator[str]:
        """The ids in a file of this layout; DatasetError or LatentFileError if it cannot be read."""

    def header_of(self, record: Record) -> LatentHeader:
        """The header of one record, as `vaeport encode` writes it."""
        dtype = str(record.latents.dtype).removeprefix("torch.")
        return replace(self.header, source=record.source, dtype=dtype)


def described(record: Record) -> dict[str, Any]:
    """What is known of an item beside its latents, as plain JSON."""
    source = record.source
    told: dict[str, Any] = {
        "id": record.item.id,
        "file_name": record.item.name,
        "caption": record.item.caption,
        "source": dict(source),
        "notes": list(record.notes),
    }
    if record.original is not None:
        told["original_height"], told["original_width"] = record.original
    if record.seed is not None:
        told["seed"] = record.seed
    return told


def duration(record: Record) -> tuple[float, float]:
    """Seconds, and frames or samples per second; a picture has neither."""
    source = record.source
    if source["modality"] == "image":
        return 0.0, 0.0
    rate = Fraction(source["rate"]) if source["modality"] == "video" else Fraction(source["sample_rate"])
    count = source["frames"] if source["modality"] == "video" else source["samples"]
    return float(count / rate), float(rate)


def make_folders(path: Path) -> None:
    """The folder that a file is to lie in; BlockedError if it cannot be made."""
    with writing(path.parent, DatasetError):
        path.parent.mkdir(parents=True, exist_ok=True)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
