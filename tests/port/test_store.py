"""The file of a port: one run at a time, whole or not at all, and never written over what cannot be read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.port.states import started
from vaeport.errors import BlockedError, ConfigError
from vaeport.port.store import PortStore

HOLD = """
import sys, time
from vaeport.port.store import PortStore
with PortStore(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""
SAVE = """
import sys
from vaeport.port.store import PortStore
with PortStore(sys.argv[1]) as store:
    state = store.load()
    while True:
        state = store.save(state.update(handoff_notes=["x" * 15000] * 20))
        print(state.revision, flush=True)
"""
ADD = """
import sys, time
from vaeport.errors import BlockedError
from vaeport.port.store import PortStore
for number in range(5):
    while True:
        try:
            with PortStore(sys.argv[1]) as store:
                state = store.load()
                store.save(state.with_row("questions", phase=sys.argv[2], question=f"{sys.argv[2]}{number}"))
            break
        except BlockedError:
            time.sleep(0.005)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "ports" / "newvid" / "vae.json"
    with PortStore(file) as store:
        assert store.load() is None
        assert store.save(started()).revision == 1
    return file


@pytest.fixture
def held(path: Path) -> Iterator[subprocess.Popen[str]]:
    process = start(HOLD, path)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with process:
        yield process
        process.kill()


def start(code: str, *args: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, *map(str, args)], stdout=subprocess.PIPE, text=True)


def test_save_and_load(path: Path) -> None:
    with PortStore(path) as store:
        state = store.load()
        assert state == started().update(revision=1)
        second = store.save(state.update(concerns=["eps"]))
        third = store.save(second.update(concerns=["eps", "scale"]))
    assert (second.revision, third.revision) == (2, 3)
    assert PortStore(path).load() == third
    assert sorted(file.name for file in path.parent.iterdir()) == ["vae.json", "vae.json.lock"]


def test_a_second_run_is_told_who_works(path: Path, held: subprocess.Popen[str]) -> None:
    with pytest.raises(BlockedError, match=rf"process {held.pid}, since 20\d\d-") as error, PortStore(path):
        pass
    assert error.value.exit_code == 3
    assert PortStore(path).load() == started().update(revision=1)  # reading needs no lock


def test_another_name_of_the_file_has_the_same_lock(path: Path, held: subprocess.Popen[str]) -> None:
    other = path.parent.parent / "other.json"
    other.symlink_to(path)
    with pytest.raises(BlockedError), PortStore(other):
        pass


def test_the_lock_of_a_killed_run_does_not_block(path: Path, held: subprocess.Popen[str]) -> None:
    held.kill()
    held.wait()
    with PortStore(path) as store:
        assert store.load() is not None


def test_a_run_that_fails_gives_the_lock_back(path: Path) -> None:
    with pytest.raises(RuntimeError), PortStore(path):
        raise RuntimeError
    with PortStore(path) as store:
        store.load()


@pytest.mark.parametrize("delay", [0.0, 0.011, 0.023])
def test_a_killed_run_loses_nothing_that_was_saved(path: Path, delay: float) -> None:
    with start(SAVE, path) as process:
        assert process.stdout is not None
        for _ in range(3):
            last = int(process.stdout.readline())
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        told = process.stdout.read().split()
    last = max([last, *map(int, told)])
    state = PortStore(path).load()
    assert state is not None
    assert state.revision in (last, last + 1)  # it may die between the save and its message
    with PortStore(path) as store:
        assert store.load() == state
        store.save(state)
    assert sorted(file.name for file in path.parent.iterdir()) == ["vae.json", "vae.json.lock"]


def test_left_over_files_of_a_killed_save_go(path: Path) -> None:
    left = path.with_name(f".{path.name}.123.new")
    left.write_text("{")
    with PortStore(path):
        assert not left.exists()


def test_contending_runs_never_mix(path: Path) -> None:
    processes = [start(ADD, path, name) for name in ("one", "two")]
    assert [process.wait(60) for process in processes] == [0, 0]
    state = PortStore(path).load()
    assert state is not None
    assert state.revision == 11
    assert [row.id for row in state.questions] == [f"Q{number:03}" for number in range(1, 11)]
    assert sorted(row.question for row in state.questions) == sorted(
        f"{n}{i}" for n in ("one", "two") for i in range(5)
    )


def test_a_file_that_changed_meanwhile_is_not_written_over(path: Path) -> None:
    with PortStore(path) as store:
        state = store.load()
        assert state is not None
        other = state.update(concerns=["edited by hand"], revision=7).to_json()
        path.write_text(other)
        with pytest.raises(ConfigError, match=r"(?s)changed since.*revision 7"):
            store.save(state)
        path.unlink()
        with pytest.raises(ConfigError, match=r"(?s)changed since.*no file"):
            store.save(state)
        assert not path.exists()
        path.write_text(other)
    with PortStore(path) as store, pytest.raises(ConfigError, match="changed since"):
        store.save(state)  # never loaded
    assert path.read_text() == other


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[: len(raw) // 2],
        lambda raw: b"",
        lambda raw: b"\0" * len(raw),
        lambda raw: raw.replace(b'"format": 1', b'"format": 2'),
        lambda raw: raw.replace(b'"format": 1,', b""),
        lambda raw: raw.replace(b'"component": "vae"', b'"component": "vae", "component": "dit"'),
        lambda raw: raw.replace(b'"mode": "parity-scaffold"', b'"mode": "other"'),
        lambda raw: b"[" * 100_000,
        lambda raw: b"[]",
        lambda raw: b"\xff" + raw,
    ],
)
def test_a_file_that_cannot_be_read_is_left_as_it_is(path: Path, damage: object) -> None:
    with PortStore(path) as store:
        state = store.load()
        assert state is not None
        path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
        raw = path.read_bytes()
        for attempt in (store.load, lambda: store.save(state)):
            with pytest.raises(ConfigError, match=r"left as it (?:is|was)") as error:
                attempt()
            assert error.value.fix
    assert path.read_bytes() == raw


def test_rows_are_not_lost_by_saving(path: Path) -> None:
    with PortStore(path) as store:
        state = store.load()
        assert state is not None
        asked = store.save(state.with_row("questions", phase="map", question="eps?"))
        answered = store.save(asked.resolved("Q001", "1e-6"))
        for lesser in (asked, state):
            with pytest.raises(ConfigError, match="rows-stay"):
                store.save(lesser)
    assert PortStore(path).load() == answered


def test_saving_needs_the_lock(path: Path) -> None:
    store = PortStore(path)
    state = store.load()
    assert state is not None
    with pytest.raises(BlockedError, match="lock is held"):
        store.save(state)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BlockedError, match="cannot be written"), PortStore(tmp_path / "file" / "vae.json"):
        pass
    with pytest.raises(BlockedError):
        PortStore(tmp_path).load()


def test_a_full_disk_keeps_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    raw = path.read_bytes()
    with PortStore(path) as store:
        state = store.load()
        assert state is not None
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(BlockedError, match="No space left"):
            store.save(state)
    assert path.read_bytes() == raw
    assert sorted(file.name for file in path.parent.iterdir()) == ["vae.json", "vae.json.lock"]


def test_the_file_is_readable_json(path: Path) -> None:
    data = json.loads(path.read_text())
    assert list(data)[:4] == ["format", "revision", "model_family", "component"]
