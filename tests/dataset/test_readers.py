"""Reader processes: order, and what happens when one hangs, is stopped or dies. The processes are real."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch

from vaeport.dataset.items import Item
from vaeport.dataset.reader_process import start
from vaeport.dataset.readers import Opened, ReaderLostError, Readers
from vaeport.dataset.reading import Head, Notes, Part
from vaeport.errors import BlockedError, MediaError


class Stillborn:
    """Its process ends while it is still starting: it cannot be unpickled there."""

    def __call__(self, item: Item) -> Iterator[Part]:
        raise AssertionError

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (7,)


@dataclass(frozen=True)
class Scripted:
    """Reads what an item's id says: parts of one number, and at the part `at` something else, `times` times."""

    folder: Path
    shape: tuple[int, ...] = (1000,)

    def __call__(self, item: Item) -> Iterator[Part]:
        what, _, at = item.id.partition("@")
        yield Head("video", 8, 8)
        for part in range(4):
            if at and part == int(at[0]):
                self._act(what, item, int(at[2:] or 9))
            yield torch.full(self.shape, part, dtype=torch.uint8)
        yield Notes((item.id,))

    def _act(self, what: str, item: Item, times: int) -> None:
        marks = self.folder / item.name
        marks.mkdir(exist_ok=True)
        if len(list(marks.iterdir())) >= times:
            return
        (marks / str(time.monotonic_ns())).touch()
        if what == "hang":
            time.sleep(60)
        elif what == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif what == "fail":
            raise MediaError("this is broken", where=item.place, expected="whole", found="half")
        elif what == "crash":
            raise RuntimeError("a library gave up")


def items(*ids: str) -> list[Item]:
    return [Item(id=key, file=Path("there"), name=f"n{index}") for index, key in enumerate(ids)]


def taken(opened: Opened) -> tuple[list[int], str]:
    """The numbers that came, and the failure."""
    numbers: list[int] = []
    try:
        for part in opened.parts():
            assert len(part.unique()) == 1
            numbers.append(int(part[0]))
    except MediaError as error:
        return numbers, str(error)
    return numbers, ""


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("vaeport")]


@pytest.mark.parametrize("most", [1, 1 << 20])
@pytest.mark.parametrize("count", [1, 3])
def test_items_come_whole_and_in_their_order(tmp_path: Path, count: int, most: int) -> None:
    ids = [str(n) for n in range(8)]
    with Readers(Scripted(tmp_path), count=count, timeout=60) as readers:
        found = []
        for opened in readers.opened(items(*ids), most):
            assert opened.whole == (most > 1)
            assert taken(opened) == ([0, 1, 2, 3], "")
            assert opened.notes.lines == (opened.item.id,)
            found.append(opened.item.id)
    assert found == ids


@pytest.mark.parametrize("what", ["hang", "stop", "die"])
@pytest.mark.parametrize("at", [0, 2])
def test_an_item_whose_reader_is_lost_once_is_read_again(tmp_path: Path, what: str, at: int) -> None:
    with Readers(Scripted(tmp_path), count=2, timeout=1) as readers:
        found = [taken(opened) for opened in readers.opened(items("a", f"{what}@{at}x1", "b", "c"), 1 << 20)]
    assert found == [([0, 1, 2, 3], "")] * 4


@pytest.mark.parametrize(
    ("what", "says"),
    [("hang", "nothing came of it for 1 s, 2 times"), ("die", r"killed by signal 9 \(SIGKILL\), 2 times")],
)
def test_an_item_whose_reader_is_lost_twice_is_given_up(tmp_path: Path, what: str, says: str) -> None:
    with Readers(Scripted(tmp_path), count=2, timeout=1) as readers:
        found = [taken(opened) for opened in readers.opened(items("a", f"{what}@2", "b", "c", "d"), 1 << 20)]
    assert [numbers for numbers, _ in found] == [[0, 1, 2, 3], [], *[[0, 1, 2, 3]] * 3]
    with pytest.raises(MediaError, match=says):
        raise MediaError(found[1][1])


def test_a_reader_lost_in_the_middle_of_a_long_item(tmp_path: Path) -> None:
    """What is not held whole has been used in part, so it is for the one who uses it to begin again."""
    with Readers(Scripted(tmp_path, (1 << 20,)), count=1, timeout=60) as readers:
        a, b = readers.opened(items("die@3x1", "b"), 1), None
        opened = next(a)
        with pytest.raises(ReaderLostError, match="SIGKILL") as lost:
            taken(opened)
        opened.again(lost.value)
        assert taken(opened) == ([0, 1, 2, 3], "")
        b = next(a)
        assert taken(b) == ([0, 1, 2, 3], "")


def test_what_is_held_does_not_depend_on_whether_a_reader_was_lost(tmp_path: Path) -> None:
    """By it the item runs in a batch, or alone."""
    with Readers(Scripted(tmp_path), count=1, timeout=60) as readers:
        for opened in readers.opened(items("a", "die@3x1"), 4500):
            assert (opened.whole, len(opened.held)) == (True, 4)


def test_readers_that_do_not_start_are_no_fault_of_the_items() -> None:
    """As in a script that is imported by them and starts them anew."""
    with Readers(Stillborn(), count=1, timeout=60) as readers:
        (opened,) = readers.opened(items("a"), 1)
        with pytest.raises(BlockedError, match="reader processes do not start") as error:
            list(opened.parts())
    assert "exit code 7" in str(error.value.found)
    assert "__main__" in str(error.value.fix)


@pytest.mark.parametrize(("what", "says"), [("fail", "this is broken"), ("crash", "RuntimeError: a library gave up")])
@pytest.mark.parametrize("most", [1, 1 << 20])
def test_a_broken_item_is_no_matter_of_the_reader(tmp_path: Path, what: str, says: str, most: int) -> None:
    with Readers(Scripted(tmp_path), count=1, timeout=60) as readers:
        first = readers._readers[0].process.pid
        found = []
        for opened in readers.opened(items("a", f"{what}@2", "b"), most):
            found.append(taken(opened))
            opened.drain()
        assert readers._readers[0].process.pid == first
    assert [bool(text) for _, text in found] == [False, True, False]
    assert says in found[1][1]
    assert len(list((tmp_path / "n1").iterdir())) == 1, "it is not read again"


def test_what_nobody_wants_is_let_go_of(tmp_path: Path) -> None:
    with Readers(Scripted(tmp_path, (1 << 20,)), count=2, timeout=60) as readers:
        for opened in readers.opened(items("a", "b", "c", "d"), 1):
            if opened.item.id in "ac":
                opened.drain()
            else:
                assert taken(opened) == ([0, 1, 2, 3], "")


def test_readers_end_with_the_block_even_while_one_hangs(tmp_path: Path) -> None:
    with Readers(Scripted(tmp_path), count=2, timeout=60) as readers:
        processes = [reader.process for reader in readers._readers]
        begun = readers.opened(items("a", "hang@0"), 1 << 20)
        assert taken(next(begun))[0] == [0, 1, 2, 3]
    assert not any(process.is_alive() for process in processes)


def test_a_process_is_started_though_what_forks_it_dies() -> None:
    """It is stopped, so that the start waits for it, and then killed."""
    line, process = start(_greet, name="vaeport-first", daemon=True, duplex=False)
    assert line.recv() == "hello"
    server = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    os.kill(server, signal.SIGSTOP)
    threading.Timer(0.3, os.kill, (server, signal.SIGKILL)).start()
    other, second = start(_greet, name="vaeport-second", daemon=True, duplex=False)
    assert other.recv() == "hello"
    for one in (process, second):
        one.join(5)
    for end in (line, other):
        end.close()


def _greet(line: Connection) -> None:
    line.send("hello")
