"""Items of a data set, and the names that their latents get as files."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vaeport.errors import InputError

LONGEST = 200
"""bytes in one part of a name; most file systems take 255, and an extension and a temporary name are still to come"""
_RESERVED = re.compile(r"[\x00-\x1f\x7f%\\:*?\"<>|.]")

_SURROGATES = re.compile("[\ud800-\udfff]")
"""what stands for bytes that are not UTF-8 in names of files, and comes of half a pair in JSON; it cannot be written"""


@dataclass(frozen=True)
class Item:
    """One video, picture or recording.

    id          unique in the data set
    file        where it lies: the file itself, or the tar that holds it
    member      its first byte and number of bytes within a tar; None: the file is the item
    name        as people know it: its path within the source
    """

    id: str
    file: Path
    name: str
    member: tuple[int, int] | None = None
    caption: str = ""

    @property
    def size(self) -> int | None:
        """Bytes of it; None if there is no such file."""
        if self.member is not None:
            return self.member[1]
        try:
            return self.file.stat().st_size
        except (OSError, ValueError):  # no such name is possible
            return None

    @property
    def place(self) -> str:
        """Where it lies, for messages."""
        return str(self.file) if self.member is None else f"{self.file}, member {self.name}"


@dataclass(frozen=True)
class Listing:
    """All items of a source, sorted by id.

    kind        "folder", "webdataset" or "list"
    left_out    files that are of no kind that the VAE takes
    """

    kind: str
    items: tuple[Item, ...]
    left_out: int = 0

    def fingerprint(self) -> str:
        """SHA-256 over ids, names and captions, and the names of tars. Sizes may change: broken items may be mended."""
        digest = hashlib.sha256()
        for item in self.items:
            tar = [] if item.member is None else [item.file.name]
            digest.update(json.dumps([item.id, item.name, item.caption, *tar]).encode() + b"\n")
        return digest.hexdigest()


def listed(kind: str, items: Iterable[Item], where: object, left_out: int = 0) -> Listing:
    """The listing of a source; InputError if it is empty, two items have one id, or one a name that is not UTF-8."""
    found: dict[str, Item] = {}
    for item in items:
        if _SURROGATES.search(item.id + item.name):
            fix = "rename it, or give a list with a column `id`"
            raise InputError("a name is not text", where=where, expected="UTF-8", found=ascii(item.name), fix=fix)
        if _SURROGATES.search(item.caption):
            item = replace(item, caption=_SURROGATES.sub("\ufffd", item.caption))
        other = found.setdefault(item.id, item)
        if other is not item:
            raise InputError(
                "two items have the same id",
                where=where,
                expected="every id once",
                found=f"{item.id!r}: {other.place} and {item.place}",
                fix="rename one of them, or give a list with a column `id`",
            )
        if not item.id:
            raise InputError("an item has no id", where=item.place, expected="a name that is not empty", found="''")
    if not found:
        kinds = f"none; {left_out} files are of other kinds" if left_out else "none"
        raise InputError("there is nothing to encode", where=where, expected="at least one item", found=kinds)
    return Listing(kind, tuple(found[key] for key in sorted(found)), left_out)


def file_name(key: str) -> str:
    """An id as a relative path without dots or control characters, one to one: such characters become %XX.

    WebDataset ends a key at the first dot, and `..` would lead out of the folder.
    """
    parts = [_RESERVED.sub(lambda m: f"%{ord(m[0]):02X}", part) for part in key.split("/")]
    return "/".join(part or "%" for part in parts)


def id_of(name: str) -> str:
    """The id whose `file_name` it is."""
    parts = ["" if part == "%" else part for part in name.split("/")]
    return re.sub(r"%([0-9A-F]{2})", lambda m: chr(int(m[1], 16)), "/".join(parts))


def require_names(items: Sequence[Item]) -> None:
    """InputError for an id that is too long for a file's name."""
    for item in items:
        name = file_name(item.id)
        if max(len(part.encode()) for part in name.split("/")) > LONGEST:
            expected = f"at most {LONGEST} bytes between two slashes"
            raise InputError("an id is too long to be a file's name", where=item.place, expected=expected, found=name)
