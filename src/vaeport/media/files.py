"""What every reader and writer of a media file shares: finding it, opening it, and saying why that failed."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vaeport.errors import BlockedError, MediaError, VaeportError

StrPath = str | os.PathLike[str]

_NO_ROOM = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than the system allows",
}


@contextmanager
def extra(package: str, name: str) -> Iterator[None]:
    """Wrap the import of an optional package; a missing one raises `BlockedError` naming the extra that brings it."""
    try:
        yield
    except (ImportError, OSError) as error:  # OSError: the package is there, the shared library it loads is not
        raise BlockedError(
            f"{package} cannot be imported",
            expected=f"the package {package}, which the extra `{name}` brings",
            found=error,
            fix=f"pip install 'vaeport[{name}]'",
        ) from error


def input_file(path: StrPath, error: type[VaeportError] = MediaError) -> Path:
    """The path of a regular, readable file that is not empty.

    Raises:
        error: there is no such file, it is a folder or a device, or it is empty.
        BlockedError: the system does not let it be read.
    """
    file = Path(path)
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            kind = "a folder" if file.is_dir() else "a pipe, socket or device"
            raise error("this is not a file", where=file, expected="a regular file", found=kind)
        with file.open("rb") as stream:
            if not stream.read(1):
                raise error("the file is empty", where=file, expected="at least one byte", found="0 bytes")
    except (FileNotFoundError, NotADirectoryError) as missing:
        raise error("there is no such file", where=file, fix="check the path") from missing
    except OSError as refused:
        raise BlockedError("the file cannot be opened", where=file, found=refused.strerror) from refused
    return file


@contextmanager
def writing(target: Path, error: type[VaeportError], *libraries: type[Exception]) -> Iterator[None]:
    """Wrap calls that write; what the system or one of `libraries` raises comes out as vaeport's errors."""
    try:
        yield
    except OSError as refused:
        what = _NO_ROOM.get(refused.errno or 0, "the system refused to write the file")
        fix = "free some space, or write elsewhere" if refused.errno in _NO_ROOM else "write to another folder"
        raise BlockedError(what, where=target, found=refused.strerror or refused, fix=fix) from refused
    except libraries as failure:
        raise error("the file cannot be written", where=target, found=failure) from failure
