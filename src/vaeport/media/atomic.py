"""Files that appear under their name complete, or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from vaeport.errors import BlockedError, MediaError, VaeportError
from vaeport.media.files import StrPath, writing


@contextmanager
def atomic(path: StrPath, error: type[VaeportError] = MediaError) -> Iterator[Path]:
    """Yield the name of an empty file beside `path`, to be filled; a clean exit gives it the name `path`.

    An exception removes it and leaves whatever stood at `path` as it was. A symbolic link is followed.

    Raises:
        error: the folder does not exist, or `path` is a folder or a device.
        BlockedError: the disk is full, or the system does not let the file be written.
    """
    target = Path(os.path.realpath(path))
    partial = _reserve(target, error)
    try:
        yield partial
        with writing(target, error):
            _publish(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _reserve(target: Path, error: type[VaeportError]) -> Path:
    if not target.parent.is_dir():
        raise error("the folder does not exist", where=target.parent, fix=f"mkdir -p '{target.parent}'")
    if target.exists() and not target.is_file():
        kind = "a folder" if target.is_dir() else "a pipe, socket or device"
        raise error("this name is taken", where=target, expected="a file, or nothing", found=kind)
    if target.exists() and not os.access(target, os.W_OK):
        raise BlockedError("the file is read-only", where=target, fix="write to another name")
    partial = target.parent / f".vaeport-{secrets.token_hex(8)}.partial"
    with writing(target, error):
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    return partial


def _publish(partial: Path, target: Path) -> None:
    if target.exists():
        shutil.copymode(target, partial)
    with partial.open("rb+") as stream:  # bytes first, name second: a power cut leaves the old file or the new one
        os.fsync(stream.fileno())
    partial.replace(target)


class AtomicWriter(ABC):
    """A writer used in a `with` block: the file appears when the block ends cleanly, and never otherwise."""

    def __init__(self, path: StrPath) -> None:
        self.path = Path(path)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            partial = stack.enter_context(atomic(self.path))
            stack.callback(self._release_quietly)
            self._open(partial)
            stack.push(self._finish_if_clean)
            self._closing = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.__exit__(kind, error, trace)

    def _finish_if_clean(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._finish()

    def _release_quietly(self) -> None:
        with suppress(Exception):  # the file is either finished or about to be removed
            self._release()

    @abstractmethod
    def _open(self, partial: Path) -> None:
        """Start writing to `partial`."""

    @abstractmethod
    def _finish(self) -> None:
        """Write what is still held back and close the file; raise if the file is not whole."""

    @abstractmethod
    def _release(self) -> None:
        """Let go of the file, finished or not; called last, and also after `_finish`."""
