"""Work in forked children, some at a time: each says what it found line by line, so that a killed one loses nothing."""

from __future__ import annotations

import json
import os
import resource
import selectors
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vaeport.drift.memory import address_space

Emit = Callable[[dict[str, Any]], None]
Work = Callable[[Emit], None]
MEMORY = 16 * 2**30


@dataclass
class Child:
    """A running child and what it has said."""

    row: dict[str, Any]
    pid: int
    pipe: int
    until: float
    begun: float = field(default_factory=time.monotonic)
    text: bytes = b""


def fork(row: dict[str, Any], work: Work, timeout: float) -> Child:
    """Starts `work` in a process group of its own; its output goes nowhere."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(reading)
            os.setsid()
            _limit_memory()
            nowhere = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nowhere, stream)

            def emit(found: dict[str, Any]) -> None:
                data = (json.dumps(found, default=str) + "\n").encode()
                while data:
                    data = data[os.write(writing, data) :]

            try:
                work(emit)
                status = 0
            except BaseException as error:
                places = traceback.extract_tb(error.__traceback__)[-4:]
                frames = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(places))
                emit({"crashed": f"{type(error).__name__}: {error}"[:500], "at": frames})
        finally:
            os._exit(status)
    os.close(writing)
    return Child(row, pid, reading, time.monotonic() + timeout)


def _limit_memory() -> None:
    """A mutant that pads by millions ends with an error of its own, not of the machine."""
    limit = address_space() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def finished(child: Child, why: str | None) -> dict[str, Any]:
    """The row with what the child has said."""
    row = dict(child.row)
    for line in child.text.splitlines():
        try:
            row.update(json.loads(line))
        except ValueError:
            why = why or "killed"
    os.close(child.pipe)
    if why is not None:
        os.killpg(child.pid, signal.SIGKILL)
    _, status = os.waitpid(child.pid, 0)
    if why is None and os.WIFSIGNALED(status):
        why = f"signal {os.WTERMSIG(status)}"
    if why is not None:
        row["ended"] = why
    return {**row, "seconds": round(time.monotonic() - child.begun, 2)}


def in_children(tasks: Iterable[tuple[dict[str, Any], Work]], jobs: int, timeout: float) -> Iterator[dict[str, Any]]:
    """The rows as they are finished, `jobs` children at a time."""
    waiting, running = iter(tasks), {}
    selector = selectors.DefaultSelector()
    more = True
    while True:
        while more and len(running) < jobs:
            task = next(waiting, None)
            if task is None:
                more = False
                break
            child = fork(*task, timeout)
            running[child.pipe] = child
            selector.register(child.pipe, selectors.EVENT_READ)
        if not running:
            return
        for key, _ in selector.select(timeout=1.0):
            child = running[key.fd]
            data = os.read(child.pipe, 1 << 20)
            child.text += data
            if not data:
                selector.unregister(child.pipe)
                del running[child.pipe]
                yield finished(child, None)
        for child in [c for c in running.values() if time.monotonic() > c.until]:
            selector.unregister(child.pipe)
            del running[child.pipe]
            yield finished(child, "timeout")


def asked(work: Callable[[], Any], timeout: float = 600.0) -> dict[str, Any]:
    """One function's result from a child, under "value"; what it imports or patches is gone with it."""
    return next(in_children([({}, lambda emit: emit({"value": work()}))], 1, timeout))
