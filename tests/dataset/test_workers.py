"""What the driver makes of what its workers tell, and of their deaths. The workers are played."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from vaeport.dataset import Settings, workers
from vaeport.dataset.local import Resources
from vaeport.dataset.share import Share
from vaeport.dataset.workers import Task, run_workers
from vaeport.errors import BlockedError
from vaeport.vae import VAE

Message = tuple[Any, ...]


class Played:
    """A process that has sent its messages; it ended, unless `exitcode` is None."""

    def __init__(self, exitcode: int | None) -> None:
        self.exitcode, self.killed = exitcode, False

    def join(self) -> None:
        assert self.killed or self.exitcode is not None, "this would wait for ever"

    def kill(self) -> None:
        self.killed = True


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[Task]]]:
    """Takes what each process sends and how it ends, in the order of their starts; gives the tasks that they got."""
    open_ends: list[Connection] = []

    def played(*parts: tuple[list[Message], int | None]) -> list[Task]:
        tasks: list[Task] = []

        def start(_: object, task: Task, **__: Any) -> tuple[Connection, Played]:
            messages, exitcode = parts[min(len(tasks), len(parts) - 1)]
            tasks.append(task)
            ours, theirs = Pipe(duplex=False)
            for message in messages:
                theirs.send(message)
            open_ends.append(theirs) if exitcode is None else theirs.close()
            return ours, Played(exitcode)

        monkeypatch.setattr(workers, "start", start)
        return tasks

    yield played
    for end in open_ends:
        end.close()


def task(folder: Path) -> Task:
    def opened() -> VAE:
        raise AssertionError("the driver opens no VAE")

    return Task(opened, "src", folder, Settings(shard_items=4), Resources(), True, Share())


def test_what_a_callback_raises_is_no_death(tmp_path: Path, play: Callable[..., list[Task]]) -> None:
    """As when nobody reads stderr any more."""
    play(([("left", 2), ("done", 1, 0)], None))

    def tell(_: int, __: int) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run_workers(task(tmp_path), 1, tell)


def test_what_is_made_again_is_told_once(tmp_path: Path, play: Callable[..., list[Task]]) -> None:
    """The first dies at its sixth item, when the first four are committed."""
    tasks = play(
        ([("left", 7), *[("done", 1, 0)] * 4, ("done", 1, 1)], 1),
        ([("left", 3), ("done", 1, 1), *[("done", 1, 0)] * 2], 0),
    )
    tells: list[tuple[int, int]] = []
    totals: list[int] = []
    run_workers(task(tmp_path), 1, lambda *told: tells.append(told), totals.append)
    assert (sum(done for done, _ in tells), sum(bad for _, bad in tells), totals) == (7, 1, [7])
    assert [one.retry for one in tasks] == [True, False], "what it was to make again is withdrawn since"


def test_workers_that_die_again_and_again(tmp_path: Path, play: Callable[..., list[Task]]) -> None:
    tasks = play(([], -9))
    with pytest.raises(BlockedError, match="workers die") as error:
        run_workers(task(tmp_path), 1, None)
    assert "SIGKILL" in str(error.value.found)
    assert len(tasks) == 1 + workers.RESTARTS
    assert all(one.retry for one in tasks)
