"""Files cut short: what a video container says of its own length.

libav reads a file that was cut short without a word, and simply yields fewer frames.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

_MATROSKA = b"\x1a\x45\xdf\xa3"
_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip")


def declared_length(path: Path) -> int | None:
    """The bytes that the video at `path` must at least have by its own account; None if it does not say."""
    with path.open("rb") as stream:
        head = stream.read(8)
        if head.startswith(_MATROSKA):
            return _matroska_length(stream)
        if head[4:] in _MP4_BOXES:
            return _mp4_length(stream, path.stat().st_size)
    return None


def _mp4_length(stream: BinaryIO, size: int) -> int | None:
    """An MP4 or QuickTime file is a row of boxes, each a length in four bytes, a type in four, and its content."""
    position = 0
    while position < size:
        stream.seek(position)
        head = stream.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:  # the length follows, in eight bytes
            length = int.from_bytes(head[8:16], "big")
        if length < 8:  # 0: up to the end of the file; else no box at all
            return None
        position += length
    return position


def _matroska_length(stream: BinaryIO) -> int | None:
    """A Matroska file is two elements, a header and a segment, each an ID of four bytes, a length and its content."""
    position = 0
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
