"""Who works in an output folder: one driver, or the ranks of one."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vaeport.closing import Closing
from vaeport.dataset.share import Share
from vaeport.errors import DatasetError
from vaeport.media.files import writing


class Lock(Closing):
    """Holds a folder for one driver or, among others of its run, for one rank; it ends with the process at the latest.

    Raises DatasetError if somebody else holds it, BlockedError if it cannot be written.
    """

    def __init__(self, folder: Path, share: Share) -> None:
        self._files: list[int] = []
        alone = share.world == 1
        try:
            self._take(folder, ".lock", fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            if not alone:
                self._take(folder, f".lock-{share.rank}", fcntl.LOCK_EX)
        except BaseException:
            self.close()
            raise

    def _take(self, folder: Path, name: str, kind: int) -> None:
        path = folder / name
        with writing(path, DatasetError):
            self._files.append(os.open(path, os.O_RDWR | os.O_CREAT, 0o666))
        try:
            fcntl.flock(self._files[-1], kind | fcntl.LOCK_NB)
        except BlockingIOError as error:
            fix = "wait until it ends, or write to another folder"
            raise DatasetError("another run works in this folder", where=folder, fix=fix) from error

    def close(self) -> None:
        """Let go of the folder."""
        while self._files:
            os.close(self._files.pop())


@contextmanager
def in_turn(folder: Path) -> Iterator[None]:
    """One rank after the other: what it reads in this block is still so when it writes."""
    path = folder / ".lock-turn"
    with writing(path, DatasetError):
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except BaseException:
            os.close(file)
            raise
    try:
        yield
    finally:
        os.close(file)
