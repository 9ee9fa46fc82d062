"""Looking at a file before trusting it: does it exist, may it be read, what does it start with."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vaeport.checkpoint.text import nearest_names
from vaeport.errors import BlockedError, CheckpointError

_STARTS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file it points to (run `git lfs pull`)"),
    (b"PK\x03\x04", "a zip archive, as torch.save writes it"),
    (b"\x80", "a Python pickle"),
    (b"<", "a web page or XML"),
    (b"GGUF", "a GGUF file"),
)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to read `path` into a BlockedError."""
    try:
        yield
    except OSError as error:
        raise BlockedError(
            "the file cannot be read",
            where=path,
            found=error.strerror or str(error),
            fix="check the permissions of the file and that its disk is mounted",
        ) from error


def exists(path: Path) -> bool:
    """Whether something is there; False too for a name that no disk can hold.

    Raises:
        BlockedError: the system does not let us look.
    """
    with reading(path):
        try:
            return path.exists()
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
    return False


def require_file(path: Path) -> Path:
    """Return `path` if it is a regular file.

    Raises:
        CheckpointError: nothing is there (the nearest names are offered), or it is no regular file.
    """
    if not exists(path):
        raise CheckpointError("no such file or folder", where=path, found=nearest_paths(path), fix="check the path")
    if not path.is_file():
        raise CheckpointError("not a regular file", where=path, fix="give the path of a weight file or of its folder")
    return path


def describe_start(path: Path) -> str:
    """What the first bytes of a file look like, in words."""
    with reading(path), path.open("rb") as file:
        start = file.read(32)
    if not start:
        return "an empty file"
    if start[8:9] == b"{" and start[5:8] == b"\0\0\0":
        return "a safetensors file"
    known = (words for magic, words in _STARTS if start.startswith(magic))
    return next(known, f"a file that starts with {start[:8]!r}")


def nearest_paths(path: Path) -> str:
    """The neighbours most like the missing `path`, or the first of its parents that is missing too."""
    parent = path.parent
    if not exists(parent):
        while not exists(parent.parent):
            parent = parent.parent
        return f"the folder {parent} does not exist either; in {parent.parent}: {_siblings(parent)}"
    return f"in {parent}: {_siblings(path)}"


def _siblings(path: Path) -> str:
    if not path.parent.is_dir():
        return "a file, which holds nothing"
    with reading(path.parent):
        return nearest_names(path.name, [neighbour.name for neighbour in path.parent.iterdir()])
