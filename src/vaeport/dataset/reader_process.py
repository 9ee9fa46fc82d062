"""What runs in a reader process: it takes an item, sends its parts, and so on until nobody wants any."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from vaeport import errors
from vaeport.dataset.items import Item
from vaeport.dataset.reading import Part
from vaeport.dataset.ring import RingWriter
from vaeport.errors import BlockedError, MediaError, VaeportError

ATTEMPTS = 3
"""times that a process is started before that is given up"""


@dataclass(frozen=True)
class Failure:
    """A VaeportError, in words."""

    kind: str
    what: str
    where: str | None
    expected: str | None
    found: str | None
    fix: str | None

    @classmethod
    def of(cls, error: VaeportError) -> Failure:
        """The error as it travels."""
        where, expected, found = (
            None if value is None else str(value) for value in (error.where, error.expected, error.found)
        )
        return cls(type(error).__name__, error.what, where, expected, found, error.fix)

    def error(self) -> VaeportError:
        """The error as it was."""
        kind = getattr(errors, self.kind, MediaError)
        made = kind(self.what, where=self.where, expected=self.expected, found=self.found, fix=self.fix)
        assert isinstance(made, VaeportError)
        return made


def serve(read: Callable[[Item], Iterable[Part]], line: Connection) -> None:
    """Sends True, and then for every item that comes its parts, or a `Failure`; ends when the line does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    follow_parent()
    torch.set_num_threads(1)
    try:
        with socket.socket(fileno=os.dup(line.fileno())) as stream:
            memory = socket.recv_fds(stream, 1, 1)[1]
        if not memory:
            return
        line.send(True)
        ring = RingWriter(memory[0], line)
        while True:
            item = line.recv()
            if isinstance(item, int):
                ring.read(item)
                continue
            try:
                for part in read(item):
                    _send(line, ring, part)
            except _UnwantedError:
                return
            except VaeportError as error:
                line.send(Failure.of(error))
            except Exception as error:  # whatever a damaged file makes of a library
                found = f"{type(error).__name__}: {error}"
                line.send(Failure.of(MediaError("the item cannot be read", where=item.place, found=found)))
    except (EOFError, OSError):
        return


def start(target: Callable[..., None], *args: Any, name: str, daemon: bool, duplex: bool) -> tuple[Connection, Any]:
    """A pipe, and a process that runs `target(*args, its end of the pipe)`; its end here is read, or both if `duplex`.

    It is forked off one that has imported what it needs, and has nothing of this one. BlockedError if none starts.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vaeport.dataset.reading", "PIL.Image", "av", "soundfile"])
    for attempt in range(ATTEMPTS):
        ours, theirs = context.Pipe(duplex)
        process = context.Process(target=target, args=(*args, theirs), name=name, daemon=daemon)
        try:
            process.start()
            return ours, process
        except (EOFError, OSError) as error:  # the one that it is forked off died; multiprocessing begins another
            ours.close()
            if attempt == ATTEMPTS - 1:
                found = error.strerror if isinstance(error, OSError) else "the server that forks them dies"
                raise BlockedError("no process can be started", where=name, found=found) from error
            time.sleep(0.2)  # one that is being killed refuses connections before its death is seen
        finally:
            theirs.close()
    raise AssertionError


def follow_parent() -> None:
    """End this process when its parent does, however that ends."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            connection.wait([parent.sentinel])
            os._exit(1)

    threading.Thread(target=wait, name="vaeport-parent", daemon=True).start()


class _UnwantedError(Exception):
    """Nobody takes what is sent any more."""


def _send(line: Connection, ring: RingWriter, part: Part) -> None:
    try:
        line.send(ring.put(part) if isinstance(part, Tensor) else part)
    except (EOFError, OSError) as error:
        raise _UnwantedError from error
