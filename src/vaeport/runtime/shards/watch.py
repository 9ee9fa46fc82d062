"""Keeps an eye on the other ranks, so that one that fails or dies stops all others, with its reason, and none hangs."""

from __future__ import annotations

import threading
import time
from collections import Counter
from types import TracebackType
from typing import Any

import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore

BEAT = 0.5
"""seconds between two signs of life"""
_runs: Counter[str] = Counter()
"""runs that each group has begun; the same on all its ranks"""


class Watch:
    """While it is entered, this rank shows that it lives, and looks whether the others do.

    patience    seconds without a sign of life after which a rank counts as dead
    failure     why all have to stop, as the first rank that knew told the store; None: nothing is wrong
    """

    def __init__(self, group: Any, rank: int, size: int, patience: float) -> None:
        self.group, self.rank, self.size, self.patience = group, rank, size, patience
        self.failure: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="vaeport-watch")

    def __enter__(self) -> Watch:
        """Begins."""
        name = self.group.group_name
        store = self.group.get_group_store()
        # a connection of its own: another thread may be waiting on that of the group
        self._store = PrefixStore(f"vaeport/{name}/{_runs[name]}", store.clone() if _clones(store) else store)
        _runs[name] += 1
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Ends; an error of this rank's own is told to the others."""
        if error is not None and self.failure is None:
            reason = str(error).splitlines()[0] if str(error) else ""
            self.tell(f"rank {self.rank} failed: {type(error).__name__}: {reason}")
        self._stop.set()
        self._thread.join(timeout=5 * BEAT)

    def tell(self, reason: str) -> str:
        """Tells all ranks that, and why, they have to stop, unless another was first; the reason that holds."""
        try:
            reason = self._store.compare_set("failure", "", reason).decode()
        except (RuntimeError, ValueError) as error:
            reason = f"{reason} (and the store is gone: {_first(error)})"
        self.failure = self.failure or reason
        return self.failure

    def _beat(self) -> None:
        seen = dict.fromkeys(range(self.size), (0, time.monotonic()))
        while not self._stop.is_set():
            try:
                self._store.add(f"alive{self.rank}", 1)
                if self._store.check(["failure"]):
                    self.failure = self._store.get("failure").decode()
                else:
                    self._look(seen)
            except (RuntimeError, ValueError) as error:
                self.failure = f"the store of the ranks is gone ({_first(error)}): the process that held it ended"
            if self.failure is not None:
                self._abort()
                return
            self._stop.wait(BEAT)
        # leaves without being missed
        try:
            self._store.add(f"left{self.rank}", 1)
        except (RuntimeError, ValueError):
            return

    def _look(self, seen: dict[int, tuple[int, float]]) -> None:
        now = time.monotonic()
        for rank, (count, when) in seen.items():
            beats = self._store.add(f"alive{rank}", 0)
            if beats != count or beats == 0:
                seen[rank] = (beats, now)  # one that has not begun may still be loading: the group's timeout holds
            elif now - when > self.patience and not self._store.add(f"left{rank}", 0):
                self.tell(f"rank {rank} gave no sign of life for {self.patience:g} s")

    def _abort(self) -> None:
        """Ends what is under way on a GPU, which would wait for ever; on CPUs the waits look at `failure`."""
        try:
            if dist.get_backend(self.group) == "nccl":
                self.group.abort()
        except (RuntimeError, ValueError, AttributeError):
            return


def _clones(store: Any) -> bool:
    return hasattr(store, "clone")


def _first(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
