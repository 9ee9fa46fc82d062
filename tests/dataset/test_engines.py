"""Several processes, torchrun, Ray: the same files as one process, also when a process dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bench.kill_dataset import below
from tests.dataset.material import contents, pictures
from tests.narrow import drawn
from vaeport.dataset import Settings, encode_dataset, ray_engine, verify
from vaeport.dataset.local import Resources
from vaeport.dataset.ray_engine import Encoder
from vaeport.dataset.share import Share
from vaeport.dataset.workers import Task
from vaeport.errors import InputError
from vaeport.runtime.load import load

SIZES = [(16, 24), (8, 8), (16, 24), (21, 30), (8, 8), (16, 24), (8, 8)]
SETTINGS = Settings(shard_items=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`vae`, `src`, and `out`, which one process made."""
    place = tmp_path_factory.mktemp("engines")
    drawn("autoencoder_kl").save(place / "vae")
    pictures(place / "src", SIZES)
    encode_dataset(load(place / "vae"), place / "src", place / "out", SETTINGS)
    return place


def run(folder: Path, out: Path, **options: Any) -> Any:
    opener = partial(load, folder / "vae", load_decoder=False)
    return encode_dataset(opener, folder / "src", out, SETTINGS, resources=Resources(1, 30), **options)


def test_two_processes(folder: Path, tmp_path: Path) -> None:
    tells: list[int] = []
    found = run(folder, tmp_path / "out", workers=2, tell=lambda done, _: tells.append(done))
    assert (found.items, found.complete, sum(tells)) == (len(SIZES), True, len(SIZES))
    assert contents(tmp_path / "out") == contents(folder / "out")
    assert verify(tmp_path / "out").faults == ()


def test_a_worker_that_is_killed_is_replaced(folder: Path, tmp_path: Path) -> None:
    struck: list[int] = []

    def strike() -> None:
        while not (tmp_path / "out" / "manifest.json").exists():
            time.sleep(0.005)
        for pid in below(os.getpid()):
            name = Path(f"/proc/{pid}/cmdline").read_bytes() if Path(f"/proc/{pid}").exists() else b""
            if b"forkserver" in name and pid not in struck and not struck:
                struck.extend(below(pid)[:1])
        for pid in struck:
            os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=strike)
    thread.start()
    found = run(folder, tmp_path / "out", workers=2)
    thread.join()
    assert struck
    assert found.complete
    assert contents(tmp_path / "out") == contents(folder / "out")


def test_ray(folder: Path, tmp_path: Path) -> None:
    tells: list[int] = []
    found = run(folder, tmp_path / "out", engine="ray", tell=lambda done, _: tells.append(done))
    assert (found.items, found.complete, sum(tells)) == (len(SIZES), True, len(SIZES))
    assert contents(tmp_path / "out") == contents(folder / "out")
    assert run(folder, tmp_path / "out", engine="ray").items == len(SIZES)  # nothing is left to be made


def test_a_shard_at_which_actors_die_is_given_up(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray Data would go on for ever."""

    def died(*_: Any) -> Any:
        raise KeyboardInterrupt

    opener = partial(load, folder / "vae", load_decoder=False)
    encoder = Encoder(Task(opener, folder / "src", tmp_path, SETTINGS, Resources(), False, Share()))
    with monkeypatch.context() as patch:
        patch.setattr(ray_engine, "run", died)
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                encoder._told(1)
    told = json.loads(encoder._told(1))["failure"]
    assert (told["kind"], told["what"], told["found"]) == ("BlockedError", "actors die", "3 of them, at shard 1")
    for _ in range(4):
        assert "shard" in json.loads(encoder._told(0))


def test_ranks_of_torchrun(folder: Path, tmp_path: Path) -> None:
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "vaeport.cli"]
    asked = ["dataset", folder / "src", "-o", tmp_path / "out", "--vae", folder / "vae", "--shard-items", "2"]
    done = subprocess.run(
        [sys.executable, *launch, *map(str, asked)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "out") == contents(folder / "out")
    assert len(list((tmp_path / "out" / "log").glob("*.jsonl"))) == 2


def test_what_cannot_work_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vae = load(folder / "vae")
    with pytest.raises(InputError, match="cannot be sent to other processes"):
        encode_dataset(vae, folder / "src", tmp_path / "out", workers=2)
    with pytest.raises(InputError, match="nobody would work"):
        encode_dataset(vae, folder / "src", tmp_path / "out", workers=0)
    with pytest.raises(InputError, match="no such engine"):
        run(folder, tmp_path / "out", engine="spark")
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="torchrun starts the processes"):
        run(folder, tmp_path / "out", workers=2)
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(InputError, match="makes no sense"):
        run(folder, tmp_path / "out")
