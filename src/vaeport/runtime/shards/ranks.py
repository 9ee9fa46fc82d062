"""`Ranks`: the processes that share the work, and what they send each other."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from vaeport.errors import BlockedError, VaeportError
from vaeport.runtime.shards.watch import BEAT, Watch

Shape = Sequence[int]
_STOPPED: set[str] = set()
"""names of groups in which a run was stopped"""


class Ranks:
    """The ranks of a process group, one of which this process is.

    group       a ProcessGroup, a 1-D DeviceMesh, or None: the default group, or one rank alone where there is none
    device      of this rank's tensors; None: the current GPU of an NCCL group, else the CPU
    overlap     least number of outputs along the shared axis that a layer computes while its halo is under way; with
                fewer it waits for the halo, which costs less than more calls
    patience    seconds without a sign of life after which a rank counts as dead
    """

    def __init__(
        self, group: Any = None, *, device: torch.device | None = None, overlap: int = 64, patience: float = 20.0
    ) -> None:
        if group is not None and hasattr(group, "get_group"):
            group = group.get_group()
        if group is None and dist.is_available() and dist.is_initialized():
            group = dist.group.WORLD
        self.group, self.overlap, self.patience = group, overlap, patience
        self.rank = 0 if group is None else dist.get_rank(group)
        self.size = 1 if group is None else dist.get_world_size(group)
        on_gpu = group is not None and dist.get_backend(group) == "nccl"
        if on_gpu:
            os.environ.setdefault("NCCL_NVLS_ENABLE", "0")  # no NVLink multicast; read when a group first communicates
        found = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
        self.device = found if device is None else device
        self._watch: Watch | None = None

    @contextmanager
    def together(self) -> Iterator[None]:
        """All ranks do what is inside: if one fails or dies, the others stop with a BlockedError that says so.

        A `RefusedError` on all ranks alike leaves the group as it was; after any other error it is of no more use.
        """
        if self._watch is not None:  # within another call
            yield
            return
        if self.size > 1 and self.group.group_name in _STOPPED:
            raise self._stopped("messages of a run that was stopped are still under way in this group")
        try:
            if self.size == 1:
                yield
            else:
                yield from self._watched()
        except RefusedError as refused:
            raise refused.error from None

    def _watched(self) -> Iterator[None]:
        refused: RefusedError | None = None
        try:
            with Watch(self.group, self.rank, self.size, self.patience) as self._watch:
                try:
                    yield
                    self.finish()
                except RefusedError as found:
                    refused = found
        except BaseException:
            _STOPPED.add(self.group.group_name)
            raise
        finally:
            self._watch = None
        if refused is not None:
            raise refused

    def exchange(self, sends: Mapping[int, Tensor], receives: Mapping[int, Shape], like: Tensor) -> Exchange:
        """Starts sending tensors to ranks and receiving from ranks tensors of these shapes, of the type of `like`."""
        received = {rank: like.new_empty(tuple(shape)) for rank, shape in receives.items()}
        # a view into a stripe has gaps, which a message has not
        sent = {rank: tensor.contiguous() for rank, tensor in sends.items()}
        return Exchange(self, self._started(sent, received), received, list(sent.values()))

    def _started(self, sent: dict[int, Tensor], received: dict[int, Tensor]) -> list[tuple[Any, list[int]]]:
        """What is under way, each with the ranks that it waits for."""
        ops = [dist.P2POp(dist.isend, t, self._global(rank), self.group) for rank, t in sent.items()]
        ops += [dist.P2POp(dist.irecv, t, self._global(rank), self.group) for rank, t in received.items()]
        with self._blocked_on(sorted({*sent, *received})):
            works = dist.batch_isend_irecv(ops) if ops else []
        peers = [*sent, *received]
        blamed = [[rank] for rank in peers] if len(works) == len(ops) else [peers] * len(works)
        return list(zip(works, blamed, strict=True))

    def gather(self, tensor: Tensor, shapes: Sequence[Shape]) -> list[Tensor]:
        """The tensors of all ranks, of these shapes and of one type."""
        others = [rank for rank in range(self.size) if rank != self.rank]
        if any(tuple(shape) != tuple(tensor.shape) for shape in shapes):
            found = self.exchange(dict.fromkeys(others, tensor), {r: shapes[r] for r in others}, tensor).wait()
            return [found.get(rank, tensor) for rank in range(self.size)]
        gathered = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(self.size)]
        with self._blocked_on(others):
            work = dist.all_gather(gathered, tensor.contiguous(), self.group, async_op=True)
        self.wait(work, others)
        return gathered

    def agree(self, value: Any) -> list[Any]:
        """What each rank says, told to all; plain values."""
        said: list[Any] = [value] * self.size
        if self.size > 1:
            others = [rank for rank in range(self.size) if rank != self.rank]
            self._wait(lambda: dist.all_gather_object(said, value, self.group), others)
        return said

    def barrier(self) -> None:
        """Waits until all ranks are here."""
        self.agree(None)

    def wait(self, work: Any, peers: Sequence[int]) -> None:
        """For what is under way with these ranks; on GPUs the stream waits, not this call."""
        if self.device.type == "cuda":
            with self._blocked_on(peers):
                work.wait()
            self._check()
        else:
            self._wait(work.wait, peers)

    def finish(self) -> None:
        """Waits for the GPU, as long as all ranks are there."""
        self._check()
        if self.device.type != "cuda":
            return
        done = torch.cuda.Event()
        done.record()
        while not done.query():
            threading.Event().wait(1e-3)
            self._check()
        self._check()

    def _wait(self, call: Callable[[], Any], peers: Sequence[int]) -> None:
        """The call in a thread, since nothing but its own timeout ends it when a rank is gone that it waits for."""
        if self._watch is None:
            with self._blocked_on(peers):
                call()
            return
        with self._blocked_on(peers):
            result = _WAITER.start(lambda: self._on_device(call))
            while not result.done.wait(BEAT / 2):
                self._check()
            if result.error is not None:
                raise result.error

    def _on_device(self, call: Callable[[], Any]) -> None:
        """A thread begins on the first GPU, whichever this rank's is."""
        if self.device.type == "cuda":
            with torch.cuda.device(self.device):
                call()
        else:
            call()

    def _check(self) -> None:
        if self._watch is not None and self._watch.failure is not None:
            raise self._stopped(self._watch.failure)

    @contextmanager
    def _blocked_on(self, peers: Sequence[int]) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, ValueError) as error:
            who = f"rank {peers[0]}" if len(peers) == 1 else f"one of ranks {', '.join(map(str, peers))}"
            reason = f"{who} does not answer: {str(error).splitlines()[0]}"
            raise self._stopped(self._watch.tell(reason) if self._watch is not None else reason) from error

    def _stopped(self, reason: str) -> BlockedError:
        where = f"rank {self.rank} of {self.size}"
        fix = "start all ranks again; stripes that were handed over are complete"
        return BlockedError("the run on several ranks was stopped", where=where, found=reason, fix=fix)

    def _global(self, rank: int) -> int:
        return dist.get_global_rank(self.group, rank)


class RefusedError(Exception):
    """All ranks raise `error`, and know that all do."""

    def __init__(self, error: VaeportError) -> None:
        super().__init__(str(error))
        self.error = error


class Exchange:
    """Messages under way."""

    def __init__(
        self, ranks: Ranks, works: list[tuple[Any, list[int]]], received: dict[int, Tensor], sent: list[Tensor]
    ) -> None:
        self._ranks, self._works, self._received = ranks, works, received
        self._sent = sent  # kept until they are sent

    def wait(self) -> dict[int, Tensor]:
        """What each rank sent."""
        for work, peers in self._works:
            self._ranks.wait(work, peers)
        self._works, self._sent = [], []
        return self._received


class _Result:
    def __init__(self, call: Any) -> None:
        self.call, self.done = call, threading.Event()
        self.error: Exception | None = None


class _Waiter:
    """A thread that makes calls that may never return; a daemon, so that none of them keeps the process alive."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[_Result] = queue.SimpleQueue()
        self._last: _Result | None = None

    def start(self, call: Any) -> _Result:
        """Has the call made, by a new thread if the last call never came back."""
        result = _Result(call)
        if self._last is None or not self._last.done.is_set():  # there is no thread yet, or it never came back
            self._calls = queue.SimpleQueue()
            threading.Thread(target=_serve, args=(self._calls,), daemon=True, name="vaeport-wait").start()
        self._last = result
        self._calls.put(result)
        return result


def _serve(calls: queue.SimpleQueue[_Result]) -> None:
    while True:
        result = calls.get()
        try:
            result.call()
        except Exception as error:
            result.error = error
        result.done.set()


_WAITER = _Waiter()
