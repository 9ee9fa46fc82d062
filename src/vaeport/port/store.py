"""The file of a port: locked while a run works on it, replaced whole, never written over what cannot be read."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from vaeport.checkpoint.files import describe_start, reading
from vaeport.checkpoint.strict_json import JsonProblemError, parse_json_object
from vaeport.checkpoint.text import cut, size_text
from vaeport.errors import BlockedError, ConfigError
from vaeport.port.contracts.record import accept
from vaeport.port.state import PortState

LARGEST = 64_000_000  # bytes
FORMATS = (1,)


class PortStore:
    """One port's file. As a context manager it holds the lock that saving needs; loading needs none.

        with PortStore(path) as store:
            state = store.load() or new_state(...)
            state = store.save(state.update(...))

    The lock is the system's own and ends with the process that holds it, however that ends.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).resolve()
        self._lock: IO[str] | None = None
        self._seen: str | None = None  # hash of the file as this store last read or wrote it; None: no file

    def __enter__(self) -> Self:
        lock = self.path.with_name(self.path.name + ".lock")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = lock.open("a+")
        except OSError as error:
            raise _refused("the port's folder cannot be written", lock, error) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _held(file, self.path) from None
        except OSError as error:
            file.close()
            raise _refused("the port's folder cannot be locked", lock, error) from error
        file.truncate(0)
        json.dump({"pid": os.getpid(), "since": datetime.now(UTC).isoformat(timespec="seconds")}, file)
        file.flush()
        self._lock = file
        for left in self.path.parent.glob(f".{self.path.name}.*.new"):  # of runs that were killed while saving
            left.unlink(missing_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is not None:
            self._lock.truncate(0)
            self._lock.close()
            self._lock = None

    def load(self) -> PortState | None:
        """The record, or None if the file does not exist.

        Raises:
            ConfigError: the file is no record of a port; it is left as it is.
            BlockedError: the system refuses to read it.
        """
        raw = self._read()
        self._seen = _hash(raw)
        return None if raw is None else self._parse(raw)

    def save(self, state: PortState) -> PortState:
        """Put the record in the place of the file, and return it under its new revision.

        Raises:
            BlockedError: the lock is not held, or the disk refuses.
            ConfigError: the file changed since it was loaded, cannot be read, or has rows that the record lost.
                It is left as it is.
        """
        if self._lock is None:
            raise BlockedError(
                "a port is saved only while its lock is held", where=self.path, fix="use `with PortStore`"
            )
        raw = self._read()
        previous = None if raw is None else self._parse(raw)
        if _hash(raw) != self._seen:
            raise ConfigError(
                "the port's file changed since it was loaded; nothing was written",
                where=self.path,
                expected="the file as this run last read or wrote it",
                found="no file" if previous is None else f"revision {previous.revision}",
                fix="run the command again: it goes on from what the file says",
            )
        if previous is not None and (lost := state.successor_of(previous)):
            raise ConfigError(
                "the record lost rows of the file; nothing was written",
                where=self.path,
                found="".join(f"\n  {item}".replace("\n", "\n  ") for item in lost),
                fix=lost[0].fix,
            )
        state = state.update(revision=previous.revision + 1 if previous else 1)
        content = state.to_json().encode()
        self._replace(content)
        self._seen = _hash(content)
        return state

    def _read(self) -> bytes | None:
        with reading(self.path):
            try:
                size = self.path.stat().st_size
                if size > LARGEST:
                    raise self._unreadable(f"{size_text(size)}, more than any record holds")
                return self.path.read_bytes()
            except FileNotFoundError:
                return None

    def _parse(self, raw: bytes) -> PortState:
        try:
            data = parse_json_object(raw)
        except JsonProblemError as error:
            raise self._unreadable(f"{cut(str(error))}; it looks like {describe_start(self.path)}") from error
        if data.get("format") not in FORMATS:
            raise self._unreadable(f"format {data.get('format')!r}, this version reads {FORMATS}")
        return accept(
            PortState, data, "the port's file breaks the rules of its format; it was left as it is", self.path
        )

    def _unreadable(self, found: str) -> ConfigError:
        return ConfigError(
            "the port's file cannot be read; it was left as it is",
            where=self.path,
            expected="the JSON record that vaeport wrote",
            found=found,
            fix="restore it from version control, or move it away to begin the port anew",
        )

    def _replace(self, content: bytes) -> None:
        beside = self.path.with_name(f".{self.path.name}.{os.getpid()}.new")
        try:
            with beside.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self.path)
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise _refused("the port's file cannot be written", self.path, error) from error


def _hash(raw: bytes | None) -> str | None:
    return None if raw is None else hashlib.sha256(raw).hexdigest()


def _refused(what: str, where: Path, error: OSError) -> BlockedError:
    fix = "check the permissions of the folder and the space on its disk"
    return BlockedError(what, where=where, found=error.strerror or str(error), fix=fix)


def _held(lock: IO[str], path: Path) -> BlockedError:
    with lock:
        lock.seek(0)
        try:
            holder = json.loads(lock.read(1000))
            found = f"process {int(holder['pid'])}, since {cut(str(holder['since']), 40)}"
        except (ValueError, KeyError, TypeError):
            found = "a process that has just started"
    fix = "wait until it ends, or end it; what it saved is kept"
    return BlockedError("another run works on this port", where=path, found=found, fix=fix)
