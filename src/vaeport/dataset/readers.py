"""Reader processes: files are read outside the process that encodes, so that one that hangs or dies can be replaced.

A reader takes one item at a time and sends its parts, ahead of who wants them as far as the `ring` has room. A watchdog
kills a reader of which nothing came for too long while it was waited for.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from torch import Tensor

from vaeport.closing import Closing
from vaeport.dataset.items import Item
from vaeport.dataset.reader_process import Failure, serve, start
from vaeport.dataset.reading import Head, Notes, Part
from vaeport.dataset.ring import Array, RingReader
from vaeport.errors import BlockedError, MediaError, VaeportError

Read = Callable[[Item], Iterable[Part]]
STARTING = 120.0
"""seconds that a process may take to start"""
ATTEMPTS = 2
"""times that an item is read if its reader hangs or dies"""


class ReaderLostError(Exception):
    """The reader hung and was killed, or died, before the item was read; `started`: after it had begun to work."""

    def __init__(self, how: str, started: bool = True) -> None:
        super().__init__(how)
        self.started = started


class Reader(Closing):
    """One process, and the socket to it."""

    def __init__(self, read: Read, timeout: float, pin: bool) -> None:
        self._read, self._timeout, self._pin = read, timeout, pin
        self.deadline: float | None = None
        self.timed_out = self.over = False
        self.free = threading.Event()
        self.free.set()
        self._start()

    def _start(self) -> None:
        self._socket, self.process = start(serve, self._read, name="vaeport-reader", daemon=True, duplex=True)
        self._stream = socket.socket(fileno=os.dup(self._socket.fileno()))
        self._ring = RingReader(self._socket, pin=self._pin)
        with suppress(OSError):  # dead already: told when its first part is waited for
            socket.send_fds(self._stream, [b"m"], [self._ring.memory])
        self._ready = False

    def begin(self, item: Item) -> None:
        """Start reading; the parts are then to be taken by `receive`, up to `Notes`."""
        self.free.clear()
        if not self.process.is_alive():
            self.replace()
        with suppress(OSError):  # dead since: told when its first part is waited for
            self._socket.send(item)

    def receive(self) -> Part:
        """The next part; ReaderLostError, or the VaeportError that reading ended in."""
        self.deadline = time.monotonic() + (self._timeout if self._ready else self._timeout + STARTING)
        try:
            if not self._ready:
                self._ready = bool(self._socket.recv())
                self.deadline = time.monotonic() + self._timeout
            part: Any = self._socket.recv()
            if isinstance(part, Array):
                return self._ring.take(part)
        except (EOFError, OSError) as error:
            how = f"nothing came of it for {self._timeout:g} s" if self.timed_out else self._how()
            raise ReaderLostError(how, self._ready) from error
        finally:
            self.deadline = None
        if isinstance(part, Notes | Failure):
            self.free.set()
        if isinstance(part, Failure):
            raise part.error()
        assert isinstance(part, Head | Notes)
        return part

    def _how(self) -> str:
        self.process.join(1.0)
        code = self.process.exitcode
        if code is not None and code < 0:
            return f"its reader was killed by signal {-code} ({signal.Signals(-code).name})"
        return f"its reader ended with exit code {code}"

    def kill(self) -> None:
        """Kill the process and wake who waits for it, even where the kernel does not let it go."""
        self.timed_out = True
        with suppress(OSError):
            os.kill(self.process.pid or 0, signal.SIGKILL) if self.process.pid else None
        with suppress(OSError):
            self._stream.shutdown(socket.SHUT_RDWR)

    def replace(self) -> None:
        """A new process in place of this one; ReaderLostError if all are being ended."""
        if self.over:
            raise ReaderLostError("the readers are closed")
        self._end_process()
        self.timed_out = False
        self._start()

    def close(self) -> None:
        """End the process, for good."""
        self.over = True
        self._end_process()

    def _end_process(self) -> None:
        self.process.kill()
        self.process.join(5.0)
        self._socket.close()
        self._stream.close()
        self._ring.close()


class Opened:
    """An item that a reader reads: its `head`, then `parts`, then `notes`.

    whole       all parts are held in memory, and the reader is free
    failure     why there is no more of it
    """

    def __init__(self, reader: Reader, item: Item) -> None:
        self._reader, self.item, self.attempt = reader, item, 0
        self._clear()

    def _clear(self) -> None:
        self.head: Head | None = None
        self.held: deque[Tensor] = deque()
        self.whole, self.notes = False, Notes()
        self.failure: VaeportError | None = None

    def begin(self) -> None:
        """Have it read, from the start."""
        self._clear()
        self.attempt += 1
        self._reader.begin(self.item)

    def prefetch(self, most: int) -> None:
        """Take the head, and parts until the end or until they are `most` bytes; failures are kept for `parts`."""
        while self.failure is None:
            taken = 0
            try:
                while not self.whole and (taken < most or not self.held):
                    part = self._receive()
                    if isinstance(part, Tensor):
                        self.held.append(part)
                        taken += part.nbytes
                return
            except ReaderLostError as lost:
                self.again(lost)
            except VaeportError:  # `failure` says it
                return

    def again(self, lost: ReaderLostError) -> None:
        """Begin once more with a new process; if it was the last attempt, that is the `failure`."""
        self._reader.replace()
        if self.attempt < ATTEMPTS:
            self.begin()
            return
        self._reader.free.set()
        found = f"{lost}, {self.attempt} times"
        if lost.started:
            self.failure = MediaError("the item cannot be read", where=self.item.place, found=found)
        else:
            fix = 'look for memory that runs out; a script must call this below `if __name__ == "__main__":`'
            self.failure = BlockedError("reader processes do not start", found=found, fix=fix)

    def parts(self) -> Iterator[Tensor]:
        """All tensors; ReaderLostError, or what reading ended in. They may be taken again if it was `whole` before."""
        if self.failure is not None:
            raise self.failure
        if self.whole:
            yield from tuple(self.held)
            return
        while self.held or not self.whole:
            part = self.held.popleft() if self.held else self._receive()
            if isinstance(part, Tensor):
                yield part

    def drain(self) -> None:
        """Let go of what nobody wants any more, so that the reader is free."""
        if not (self.whole or self.failure):
            self._reader.replace()
            self._reader.free.set()
            self.whole = True
        self.held.clear()

    def _receive(self) -> Part:
        try:
            part = self._reader.receive()
        except VaeportError as error:
            self.failure = error
            raise
        if isinstance(part, Head):
            self.head = part
        elif isinstance(part, Notes):
            self.notes, self.whole = part, True
        return part


class Readers(Closing):
    """Some readers that read items ahead, in their order."""

    def __init__(self, read: Read, *, count: int, timeout: float, pin: bool = False) -> None:
        self._readers: list[Reader] = []
        self._over = threading.Event()
        self._watchdog = threading.Thread(target=self._watch, name="vaeport-watchdog", daemon=True)
        self._next = 0
        try:
            for _ in range(count):
                self._readers.append(Reader(read, timeout, pin))
            self._watchdog.start()
        except BaseException:
            self.close()
            raise

    def opened(self, items: Iterable[Item], most: int) -> Iterator[Opened]:
        """Items in their order, each with up to `most` bytes of it in memory; reading goes on in all readers.

        An item that is not `whole` is to be taken by `parts` or let go of by `drain`, or the next one never comes.
        """
        waiting: deque[Opened] = deque()
        for item in items:
            if len(waiting) == len(self._readers):
                waiting[0].prefetch(most)
                yield waiting.popleft()
            waiting.append(self._begun(item))
        while waiting:
            waiting[0].prefetch(most)
            yield waiting.popleft()

    def _begun(self, item: Item) -> Opened:
        reader = self._readers[self._next % len(self._readers)]
        self._next += 1
        while not reader.free.wait(0.2):
            if self._over.is_set():
                raise ReaderLostError("the readers are closed")
        one = Opened(reader, item)
        one.begin()
        return one

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            for reader in self._readers:
                deadline = reader.deadline
                if deadline is not None and time.monotonic() > deadline:
                    reader.deadline = None
                    reader.kill()

    def close(self) -> None:
        """End all processes."""
        self._over.set()
        if self._watchdog.is_alive():
            self._watchdog.join()
        for reader in self._readers:
            reader.close()
