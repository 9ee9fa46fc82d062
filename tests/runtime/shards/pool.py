"""A few processes, joined by gloo, that carry out what a test asks of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist

from vaeport.runtime.shards import Ranks

TIMEOUT = timedelta(seconds=90)


@dataclass(frozen=True)
class Reply:
    """What a call on one rank came to: its value, or the class and the message of its error."""

    value: Any = None
    error: str | None = None
    message: str = ""


class Pool:
    """Processes that stay: starting one costs seconds."""

    def __init__(self, size: int) -> None:
        self.size = size
        # held by none of the ranks, so that it outlives each of them
        self.store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=TIMEOUT)
        context = get_context("forkserver")
        context.set_forkserver_preload(["tests.runtime.shards.work"])
        self.ends, self.processes = [], []
        for rank in range(size):
            end, other = context.Pipe()
            process = context.Process(target=_serve, args=(rank, size, self.store.port, other), daemon=True)
            process.start()
            other.close()
            self.ends.append(end)
            self.processes.append(process)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join()

    def start(self, function: Callable[..., Any], ranks: int, *args: Any, **options: Any) -> None:
        """Begins `function(Ranks(..., **options), *args)` on the first so many ranks."""
        for end in self.ends[:ranks]:
            end.send((function, ranks, options, args))

    def reply(self, rank: int) -> Reply:
        """What a rank says in the end: an error "gone" if it died, and "hangs" if it says nothing for a minute."""
        end = self.ends[rank]
        try:
            if not end.poll(60):
                return Reply(error="hangs")
            reply = end.recv()
        except (EOFError, ConnectionError):
            return Reply(error="gone")
        assert isinstance(reply, Reply)
        return reply

    def run(self, function: Callable[..., Any], ranks: int, *args: Any, **options: Any) -> list[Reply]:
        """What each rank says."""
        self.start(function, ranks, *args, **options)
        return [self.reply(rank) for rank in range(ranks)]

    def values(self, function: Callable[..., Any], ranks: int, *args: Any, **options: Any) -> list[Any]:
        """As `run`, where no rank fails."""
        replies = self.run(function, ranks, *args, **options)
        assert [f"{reply.error}: {reply.message}" for reply in replies if reply.error] == []
        return [reply.value for reply in replies]


def _serve(rank: int, size: int, port: int, end: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    store = dist.TCPStore("127.0.0.1", port, is_master=False, timeout=TIMEOUT)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    groups = {n: dist.new_group(range(n)) for n in range(1, size + 1)}
    while True:
        try:
            function, ranks, options, args = end.recv()
        except EOFError:
            os._exit(0)  # the test process is gone
        try:
            end.send(Reply(function(Ranks(groups[ranks], **options), *args)))
        except Exception as error:
            end.send(Reply(error=type(error).__name__, message=str(error)))
