"""What is committed, by the log and by the manifest, when shards are made again, by one process or by several ranks."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.dataset.material import contents, pictures, pixels
from vaeport.dataset import Settings, encode_dataset, manifest, status, summary, verify
from vaeport.dataset.job import Job
from vaeport.dataset.local import Resources
from vaeport.dataset.lock import in_turn
from vaeport.dataset.log import Log, OutputFile, Shard, committed
from vaeport.dataset.manifest import claim
from vaeport.dataset.share import Share
from vaeport.dataset.summary import concluded, withdraw
from vaeport.dataset.workers import Task
from vaeport.errors import DatasetError
from vaeport.media import write_image
from vaeport.vae import VAE

RUN = {"source": {"items": 2}, "settings": {"shard_items": 1, "layout": "parquet"}}
BAD = ({"id": "a", "reason": "this is broken"},)


@pytest.fixture(scope="module")
def whole(kl: VAE, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `src`, two pictures, the first of them broken, and `out`, a shard for each."""
    folder = tmp_path_factory.mktemp("whole")
    pictures(folder / "src", [(8, 8), (8, 8)])
    (folder / "src" / "00.png").write_bytes(b"\x89PNG\r\n\x1a\n no more")
    encoded(kl, folder)
    return folder


@pytest.fixture
def mended(whole: Path, tmp_path: Path) -> Path:
    """The same, where the broken picture is whole by now."""
    shutil.copytree(whole, tmp_path / "all")
    shutil.copy(tmp_path / "all" / "src" / "01.png", tmp_path / "all" / "src" / "00.png")
    return tmp_path / "all"


def encoded(vae: VAE, folder: Path, **options: Any) -> Any:
    settings = Settings(shard_items=1)
    return encode_dataset(vae, folder / "src", folder / "out", settings, resources=Resources(1, 30), **options)


def test_the_last_of_several_lines_counts_whoever_wrote_it(tmp_path: Path) -> None:
    Log(tmp_path, 1).commit(Shard(5, (), (), BAD))
    assert committed(tmp_path)[5].quarantined
    Log(tmp_path, 0).commit(Shard(5, ("a",), ()))
    assert committed(tmp_path) == {5: Shard(5, ("a",), ())}
    Log(tmp_path, 1).withdraw([5])
    assert committed(tmp_path) == {}
    Log(tmp_path, 0).commit(Shard(5, ("a",), (), (), (7,)))
    assert committed(tmp_path)[5].sizes == (7,)


def test_lines_of_earlier_versions_are_read(tmp_path: Path) -> None:
    """They have no number, and name no sizes."""
    told = Shard(0, ("a",), (OutputFile("f", 1, 2, "3"),)).to_json()
    del told["sizes"]
    line = json.dumps(told).encode()
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "00003.jsonl").write_bytes(hashlib.sha256(line).hexdigest()[:16].encode() + b" " + line)
    assert committed(tmp_path) == {0: Shard(0, ("a",), (OutputFile("f", 1, 2, "3"),))}
    Log(tmp_path, 0).commit(Shard(0, (), (), BAD))
    assert committed(tmp_path)[0].quarantined == BAD


def test_a_retry_that_is_killed_is_not_complete(kl: VAE, mended: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(self: Job, *_: Any) -> Any:
        assert not status(self.folder).complete
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Job, "writer", killed)
        with pytest.raises(KeyboardInterrupt):
            encoded(kl, mended, retry=True)
    out = mended / "out"
    assert (status(out).shards, list(committed(out))) == (1, [1])
    assert not json.loads((out / "manifest.json").read_text())["complete"]
    assert verify(out).faults == ("1 of 2 shards are not committed, the first is 0",)
    found = encoded(kl, mended)
    assert (found.complete, found.items, found.quarantined) == (True, 2, 0)
    assert verify(out).faults == ()


def test_a_retry_by_another_rank_counts(kl: VAE, whole: Path, mended: Path) -> None:
    """The first run had two workers: shard 1 is in the log of the second."""
    out = mended / "out"
    (log,) = (out / "log").iterdir()
    log.rename(log.with_name("00001.jsonl"))
    assert encoded(kl, mended, retry=True).quarantined == 0
    assert verify(out).faults == ()
    assert contents(out).keys() > contents(whole / "out").keys()


@pytest.mark.parametrize("name", ["manifest.json", "quarantine.jsonl"])
def test_verify_compares_what_is_told_with_the_log(whole: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(whole / "out", tmp_path / "out")
    path = tmp_path / "out" / name
    path.write_text(path.read_text().replace('"00"', '"77"'))
    assert verify(tmp_path / "out").faults == (f"{name} says otherwise than the log",)
    path.unlink() if name == "quarantine.jsonl" else path.write_text(path.read_text().replace('"shards"', '"parts"'))
    assert verify(tmp_path / "out").faults == (f"{name} says otherwise than the log",)


@pytest.mark.parametrize("told", ['{"run": {}', '{"run": {"source": {"items": "1"}, "settings": {}}', '{"run": null'])
def test_a_damaged_manifest_is_told(tmp_path: Path, told: str) -> None:
    (tmp_path / "manifest.json").write_text(told + ', "format_version": 1, "complete": false}')
    with pytest.raises(DatasetError, match="the manifest is damaged"):
        status(tmp_path)


def test_ranks_conclude_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has read the log is slow to write: what another commits meanwhile is not lost."""
    claim(tmp_path, RUN, {})
    first, second = Log(tmp_path, 0), Log(tmp_path, 1)
    first.commit(Shard(0, (), (), BAD))
    second.commit(Shard(1, ("b",), ()))
    read, go = threading.Event(), threading.Event()
    complete = summary.complete

    def slow(*args: Any) -> None:
        if not read.is_set():
            read.set()
            go.wait(5)
        complete(*args)

    monkeypatch.setattr(summary, "complete", slow)
    early = threading.Thread(target=concluded, args=(tmp_path,))
    early.start()
    read.wait(5)
    second.commit(Shard(0, ("a",), ()))
    late = threading.Thread(target=concluded, args=(tmp_path,))
    late.start()
    late.join(0.1)
    go.set()
    early.join()
    late.join()
    assert json.loads((tmp_path / "manifest.json").read_text())["quarantined"] == 0
    assert (tmp_path / "quarantine.jsonl").read_text() == ""


def test_a_rank_that_begins_late_opens_what_another_concluded(tmp_path: Path) -> None:
    claim(tmp_path, RUN, {})
    log = Log(tmp_path, 0)
    for shard in (0, 1):
        log.commit(Shard(shard, (), (), BAD))
    assert concluded(tmp_path).complete
    before = manifest.read_manifest(tmp_path)
    withdraw(tmp_path, Log(tmp_path, 1), [1])
    assert manifest.read_manifest(tmp_path) == {
        name: before[name] for name in ("format_version", "run", "made_with")
    } | {"complete": False}
    assert not concluded(tmp_path).complete
    with in_turn(tmp_path):
        assert list(committed(tmp_path)) == [0]


def test_a_share_withdraws_what_it_makes_again(kl: VAE, mended: Path) -> None:
    """So a process that replaces it makes that, and nothing twice."""
    task = Task(lambda: kl, mended / "src", mended / "out", Settings(shard_items=1), Resources(), True, Share(0, 2))
    assert task.begun(task.job())[0] == [0]
    assert list(committed(mended / "out")) == [1]


def test_another_source_is_refused_but_what_is_mended_is_taken(kl: VAE, mended: Path) -> None:
    write_image(mended / "src" / "01.png", pixels(9, 9))
    with pytest.raises(DatasetError, match="an item is another than the one that was encoded") as error:
        encoded(kl, mended)
    assert error.value.where == str(mended / "src" / "01.png")
    (mended / "src" / "01.png").unlink()
    (mended / "src" / "01.png").symlink_to("nowhere")
    with pytest.raises(DatasetError, match="an item is another") as error:
        encoded(kl, mended)
    assert error.value.found == "no file"


def test_fresh_ranks_may_claim_a_folder_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = Path.iterdir

    def late(folder: Path) -> Any:
        manifest._begin(folder / "manifest.json", {"format_version": 1, "run": RUN, "complete": False})
        return listed(folder)

    monkeypatch.setattr(Path, "iterdir", late)
    claim(tmp_path, RUN, {})


def test_processes_of_one_number_on_two_machines_write_two_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []
    monkeypatch.setattr(manifest.os, "link", lambda partial, _: names.append(partial.name))
    for _ in range(2):
        manifest._begin(tmp_path / "manifest.json", {})
    assert len(set(names)) == 2


def test_what_a_killed_process_left_is_removed(kl: VAE, whole: Path, tmp_path: Path) -> None:
    """It was begun while the run went on, by a worker that was replaced."""
    shutil.copytree(whole / "src", tmp_path / "src")

    def left(_: int, __: int) -> None:
        (tmp_path / "out" / ".vaeport-0.partial").touch()

    encoded(kl, tmp_path, tell=left)
    assert not list(tmp_path.rglob(".vaeport-*"))
    (tmp_path / "out" / "data" / ".vaeport-1.partial").touch()  # of a rank of torchrun
    assert verify(tmp_path / "out").faults == ()
