"""Tensors from one process to another through memory that both have: written once, read once, in one call each.

Through a socket, whose buffer holds a fraction of a picture, the two would wake each other for every piece of it, and
the writer could not go on while nobody reads. Places in the memory come round again once their content was read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from threading import Lock

import torch
from torch import Tensor

from vaeport.errors import BlockedError

ROOM = 128 << 20
"""bytes that are written ahead of who reads them; a tensor that is larger has the room that it needs"""


@dataclass(frozen=True)
class Array:
    """A tensor whose bytes lie in the memory from `at` on, and go on at its start where `room` ends."""

    shape: tuple[int, ...]
    dtype: str
    at: int
    room: int


class RingWriter:
    """The end that writes to the file `memory`; `line` brings the numbers of bytes that were read."""

    def __init__(self, memory: int, line: Connection, room: int = ROOM) -> None:
        self._memory, self._line = memory, line
        self._room = self._usual = room
        self._at = self._used = 0

    def read(self, size: int) -> None:
        """So many bytes were read: what came by the line while no tensor was put."""
        self._used -= size

    def put(self, tensor: Tensor) -> Array:
        """Writes it, as soon as there is room; BlockedError if there is no memory."""
        while self._line.poll():  # always, or the line would fill with what nobody takes
            self.read(self._line.recv())
        content = tensor.contiguous().numpy().reshape(-1).view("u1").data
        while self._used and self._used + len(content) > self._room:
            self.read(self._line.recv())
        if not self._used:
            self._at = 0  # memory that was never needed stays untouched
        if not self._used and (len(content) > self._room or self._room > self._usual):
            self._room = max(self._usual, len(content))
            os.ftruncate(self._memory, 0)  # what one large tensor took is not kept for all others
        array = Array(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), self._at, self._room)
        try:
            for start, part in _places(content, self._at, self._room):
                while part:
                    written = os.pwrite(self._memory, part, start)
                    start, part = start + written, part[written:]
        except OSError as error:
            raise BlockedError("there is no memory for what was read", found=error.strerror) from error
        self._used += len(content)
        self._at = (self._at + len(content)) % self._room
        return array


class RingReader:
    """The end that reads; it makes the memory, which is gone when both ends are."""

    def __init__(self, line: Connection, *, pin: bool) -> None:
        self._line, self._pin = line, pin
        self._lock = Lock()
        self.memory = os.memfd_create("vaeport-ring")

    def take(self, array: Array) -> Tensor:
        """Its tensor, which is nobody else's; EOFError if this end is closed."""
        tensor = torch.empty(array.shape, dtype=getattr(torch, array.dtype), pin_memory=self._pin)
        content = tensor.numpy().reshape(-1).view("u1").data
        with self._lock:  # a file that is closed meanwhile could be another by then
            for start, part in _places(content, array.at, array.room):
                while part:
                    got = os.preadv(self.memory, [part], start) if self.memory >= 0 else 0
                    if not got:
                        raise EOFError
                    start, part = start + got, part[got:]
        with suppress(OSError):  # who wrote it is gone, but it is here; what does not come is seen later
            self._line.send(len(content))
        return tensor

    def close(self) -> None:
        """Let go of the memory; a `take` in another thread is finished first."""
        with self._lock:
            if self.memory >= 0:
                os.close(self.memory)
            self.memory = -1


def _places(content: memoryview, at: int, room: int) -> Iterator[tuple[int, memoryview]]:
    """The places of the bytes, and the bytes there."""
    fits = min(len(content), room - at)
    yield at, content[:fits]
    yield 0, content[fits:]
