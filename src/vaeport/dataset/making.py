"""Shards on their way: the device encodes on while the files of what it encoded before are written."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from vaeport.dataset.encoding import Encoding, Outcome, Quarantined, Record
from vaeport.dataset.formats.layout import Written, sync_folder
from vaeport.dataset.job import Job, Tell
from vaeport.dataset.log import OutputFile, Shard
from vaeport.dataset.readers import Opened
from vaeport.errors import DatasetError
from vaeport.media.files import writing
from vaeport.runtime.overlap import Behind

UNDONE = 3
"""shards that may be begun and not whole: one is being encoded, one waits, one is being written"""
Step = Callable[[], object]
Done = Callable[[Shard], object]


def make_shards(job: Job, shards: Sequence[int], items: Iterator[Opened], done: Done, tell: Tell | None = None) -> None:
    """Makes shards of their items, which come in their order; calls `done` with each, in a thread, once it is whole.

    Files are written in that thread, in order. What fails ends it, but all that was encoded before is written.
    """
    failure: Exception | None = None
    with Behind[Step](lambda step: step(), 1) as behind:
        try:
            _encode(job, shards, items, partial(_Making, behind=behind, done=done, tell=tell))
        except Exception as error:  # not an interrupt, which waits for nothing
            failure = error
    try:
        if failure is not None:
            raise failure
    finally:
        del failure


def _encode(job: Job, shards: Sequence[int], items: Iterator[Opened], making: Callable[[Job, int], _Making]) -> None:
    """A batch is waited for when the next has begun, which may be of the next shard."""
    encoding, before = Encoding(job.vae, job.settings), deque[Step]()

    def settle() -> None:
        while before:
            before.popleft()()

    for shard in shards:
        with _in_any_case(settle):
            one = making(job, shard)
        begun = encoding.begun(islice(items, len(job.items_of(shard))))
        while True:
            with _in_any_case(settle):
                finish = next(begun, None)
            if finish is None:
                break
            settle()
            before.append(partial(one.take, finish))
        before.append(one.end)
    settle()


@contextmanager
def _in_any_case(settle: Step) -> Iterator[None]:
    """What was begun before is settled although this failed."""
    try:
        yield
    except Exception:
        settle()
        raise


class _Making:
    """One shard: takes the outcomes of its items, and hands on each file when it is full."""

    def __init__(self, job: Job, shard: int, *, behind: Behind[Step], done: Done, tell: Tell | None) -> None:
        self._job, self._shard, self._behind, self._done, self._tell = job, shard, behind, done, tell
        self._writer = job.writer(shard)
        self._writer.clear(job.items_of(shard))
        self._files: list[OutputFile] = []
        self._ids: list[str] = []
        self._sizes: list[int | None] = []
        self._quarantined: list[dict[str, Any]] = []

    def take(self, outcomes: Callable[[], list[Outcome]]) -> None:
        """Waits for the outcomes of a batch."""
        for encoded in outcomes():
            outcome = self._writer.taken(encoded) if isinstance(encoded, Record) else encoded
            if isinstance(outcome, Quarantined):
                self._quarantined.append(outcome.to_json())
            else:
                self._ids.append(outcome.item.id)
                self._sizes.append(outcome.item.size)
                if self._writer.add(outcome):
                    self._behind.put(partial(self._write, self._writer.next_file()))
            if self._tell is not None:
                self._tell(1, int(isinstance(outcome, Quarantined)))

    def end(self) -> None:
        """All were taken."""
        self._behind.put(partial(self._finish, self._writer.next_file()))

    def _write(self, file: Callable[[], Iterable[Written]]) -> None:
        with writing(self._job.folder, DatasetError):
            self._files += [OutputFile.of(self._job.folder, one.name, one.items) for one in file()]

    def _finish(self, file: Callable[[], Iterable[Written]]) -> None:
        self._write(file)
        expected = [item.id for item in self._job.items_of(self._shard)]
        if sorted(self._ids + [one["id"] for one in self._quarantined]) != expected:
            what = "a shard is not whole"
            raise DatasetError(what, where=f"shard {self._shard}", expected=f"{len(expected)} items")
        with writing(self._job.folder, DatasetError):
            for folder in sorted({inner for file in self._files for inner in Path(file.name).parents}):
                sync_folder(self._job.folder / folder)
        self._quarantined.sort(key=lambda one: str(one["id"]))
        parts = tuple(self._ids), tuple(self._files), tuple(self._quarantined), tuple(self._sizes)
        self._done(Shard(self._shard, *parts))
