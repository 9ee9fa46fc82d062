"""Several processes of one machine, each with a VAE and a share of its own; one that dies is replaced."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing import connection
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from vaeport.dataset.job import Job, Tell
from vaeport.dataset.local import Resources, run
from vaeport.dataset.log import Log, committed
from vaeport.dataset.making import UNDONE
from vaeport.dataset.reader_process import Failure, follow_parent, start
from vaeport.dataset.settings import Settings
from vaeport.dataset.share import Share
from vaeport.dataset.summary import withdraw
from vaeport.errors import BlockedError, VaeportError
from vaeport.vae import VAE

Opener = Callable[..., VAE]
"""Loads the VAE; picklable. Takes `device`, if its device is CUDA, to use another than the first."""
RESTARTS = 3
"""times in a row that workers may die without any shard being committed"""


@dataclass(frozen=True)
class Task:
    """All that a process needs to make its share."""

    open_vae: Opener
    source: str | Path
    folder: Path
    settings: Settings
    resources: Resources
    retry: bool
    share: Share

    def job(self) -> Job:
        """The job, with the VAE on this share's device."""
        vae = self.open_vae()
        if vae.device.type == "cuda" and torch.cuda.device_count() > 1:
            vae = vae.to(torch.device("cuda", self.share.local % torch.cuda.device_count()))
        return Job(vae, self.source, self.folder, self.settings)

    def begun(self, job: Job) -> tuple[list[int], Log]:
        """Shards of this share that are to be made, none of them committed any longer, and where they will be."""
        left, log = [*self.share.of(job.left(self.retry))], Log(self.folder, self.share.rank)
        withdraw(self.folder, log, left)
        return left, log


def run_workers(task: Task, count: int, tell: Tell | None, total: Callable[[int], None] | None = None) -> None:
    """Makes all shards that are left in `count` processes.

    tell, total     are called with items that are done, and with how many more there will be
    BlockedError if workers die again and again; what a worker raises, if it is a VaeportError.
    """
    workers = {}
    deaths, commits = 0, len(committed(task.folder))
    try:
        for rank in range(count):
            progress = _Progress(tell, total, UNDONE * task.settings.shard_items)
            one = _Worker(replace(task, share=Share(rank, count, rank)), progress)
            workers[one.line] = one
        while workers:
            for line in connection.wait(list(workers)):
                assert isinstance(line, Connection)
                worker = workers[line]
                try:
                    message = line.recv()
                except (EOFError, OSError):
                    del workers[line]
                    how = worker.ended()
                    if how is None:
                        continue
                    now = len(committed(task.folder))
                    deaths, commits = (deaths + 1 if now == commits else 1), now
                    if deaths > RESTARTS:
                        fix = "look for memory that runs out, or use fewer workers"
                        raise BlockedError("workers die", where=task.folder, found=how, fix=fix) from None
                    one = worker.again()
                    workers[one.line] = one
                else:
                    worker.heard(message)
    finally:
        for worker in workers.values():
            worker.kill()


class _Progress:
    """What a share has come to: told once, though a process that replaces another makes the last shards again."""

    def __init__(self, tell: Tell | None, total: Callable[[int], None] | None, most: int) -> None:
        self._tell, self._total = tell or (lambda items, bad: None), total or (lambda items: None)
        self._told: deque[tuple[int, int]] = deque(maxlen=most)
        self._left: int | None = None

    def left(self, items: int) -> None:
        """So many are to be made, by what has just begun."""
        if self._left is None:
            self._total(items)
        else:
            again = [self._told.pop() for _ in range(min(items - self._left, len(self._told)))]
            self._tell(-len(again), -sum(bad for _, bad in again))
        self._left = items

    def done(self, items: int, bad: int) -> None:
        """So many more are made, or quarantined."""
        assert self._left is not None
        self._left -= items
        self._told.append((items, bad))
        self._tell(items, bad)


class _Worker:
    def __init__(self, task: Task, progress: _Progress) -> None:
        self.task, self._progress = task, progress
        name = f"vaeport-worker-{task.share.rank}"
        self.line, self.process = start(_work, task, name=name, daemon=False, duplex=False)

    def heard(self, message: Any) -> None:
        """Pass on what it tells; what it raises is raised."""
        if isinstance(message, Failure):
            raise message.error()
        what, *numbers = message
        if what == "left":
            self.task = replace(self.task, retry=False)  # what is to be made again is withdrawn
        getattr(self._progress, what)(*numbers)

    def again(self) -> _Worker:
        """Another in its place."""
        return _Worker(self.task, self._progress)

    def ended(self) -> str | None:
        """How it ended; None if it did its work."""
        self.process.join()
        self.line.close()
        code = self.process.exitcode or 0
        if code == 0:
            return None
        return f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.line.close()


def _work(task: Task, line: Connection) -> None:
    """The process: makes its share, and tells of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    follow_parent()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // task.share.world))
    try:
        job = task.job()
        left, log = task.begun(job)
        line.send(("left", sum(len(job.items_of(shard)) for shard in left)))
        run(job, left, log.commit, task.resources, lambda done, bad: line.send(("done", done, bad)))
    except VaeportError as error:
        line.send(Failure.of(error))
