"""Files cut short: what a video container says of its own length, against the bytes that are there."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol


class _Packet(Protocol):
    pos: int
    size: int


def declared_length(path: Path, format_name: str, index: Iterable[_Packet]) -> int | None:
    """The bytes that the file at `path` must have by its own account; None if it does not say.

    `format_name` is libav's name of the container and `index` its table of packets. libav itself reads a file that
    was cut short without a word, and simply yields fewer frames.
    """
    if "matroska" in format_name:
        return _matroska_length(path)
    if "mp4" in format_name:
        return max((entry.pos + entry.size for entry in index), default=None)
    return None


def _matroska_length(path: Path) -> int | None:
    """A Matroska file is two elements, a header and a segment, each an ID of four bytes, a length and its content."""
    position = 0
    with path.open("rb") as stream:
        for _ in ("header", "segment"):
            stream.seek(position)
            head = stream.read(12)
            if len(head) < 12 or not head[4]:
                return None
            width = 9 - head[4].bit_length()  # the leading zeros of the first byte count the bytes that follow it
            unknown = (1 << 7 * width) - 1
            length = int.from_bytes(head[4 : 4 + width], "big") & unknown
            if length == unknown:  # written to a pipe
                return None
            position += 4 + width + length
    return position
