from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from tests.media.material import file_size_limit
from vaeport.errors import BlockedError, MediaError
from vaeport.media import AudioWriter, VideoWriter, write_image
from vaeport.media.atomic import atomic


def test_the_file_appears_only_at_the_clean_end(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    with atomic(target) as partial:
        partial.write_bytes(b"new")
        assert not target.exists()
        assert partial.parent == tmp_path
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path: Path, failure: type[BaseException]) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    with pytest.raises(failure), atomic(target) as partial:
        _fail(failure(), partial.write_bytes(b"half"))
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "a.wav", "a.flac"])
def test_every_writer_keeps_the_old_file_when_its_block_fails(tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    target.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="the model failed"), _writer(target) as writer:
        _fail(RuntimeError("the model failed"), writer.write(_data(target)))
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("name", ["v.mp4", "a.flac"])
def test_a_failure_before_the_first_write_is_the_one_reported(tmp_path: Path, name: str) -> None:
    with pytest.raises(RuntimeError, match="the model failed"), _writer(tmp_path / name):
        raise RuntimeError("the model failed")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "a.wav", "a.flac"])
def test_nothing_written_is_an_error_and_no_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(MediaError, match=r"no (frame|sample) was written"), _writer(tmp_path / name) as writer:
        writer.write(_data(tmp_path / name)[:0] if name[0] == "v" else torch.zeros(2, 0))
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="mkdir") as caught:
        write_image(tmp_path / "none" / "a.png", torch.zeros(2, 2, 3, dtype=torch.uint8))
    assert caught.value.where == tmp_path / "none"


def test_a_folder_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(MediaError, match="a folder"):
        write_image(tmp_path / "a.png", torch.zeros(2, 2, 3, dtype=torch.uint8))
    with pytest.raises(MediaError, match="device"), atomic("/dev/null"):
        pass


def test_a_folder_that_refuses_files_is_blocked() -> None:
    with pytest.raises(BlockedError, match="refused") as caught, VideoWriter("/sys/a.mkv", rate=24, width=4, height=4):
        pass
    assert caught.value.exit_code == 3


def test_the_mode_follows_the_umask_or_the_old_file(tmp_path: Path) -> None:
    umask = os.umask(0o027)
    try:
        with atomic(tmp_path / "new"):
            pass
    finally:
        os.umask(umask)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o640
    (tmp_path / "new").chmod(0o604)
    with atomic(tmp_path / "new"):
        pass
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o604


def test_a_symbolic_link_stays_and_its_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "there" / "file")
    with atomic(link) as partial:
        partial.write_bytes(b"x")
    assert link.is_symlink()
    assert (tmp_path / "there" / "file").read_bytes() == b"x"


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "a.wav", "a.flac", "i.png", "i.bmp"])
def test_no_room_is_blocked_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    with file_size_limit(50_000), pytest.raises(BlockedError, match="larger than the system allows") as caught:
        _write_noise(tmp_path / name)
    assert caught.value.where == tmp_path / name
    assert not list(tmp_path.iterdir())


def _fail(error: BaseException, _: object) -> None:
    raise error


def _write_noise(path: Path) -> None:
    noise = torch.Generator().manual_seed(0)
    if path.name[0] == "i":
        write_image(path, torch.randint(0, 256, (256, 256, 3), dtype=torch.uint8, generator=noise))
        return
    with _writer(path) as writer:
        for _ in range(400):
            random = torch.randint(0, 256, _data(path).shape, generator=noise)
            writer.write(random.to(torch.uint8) if path.name[0] == "v" else random / 255)


def _writer(path: Path) -> VideoWriter | AudioWriter:
    if path.name[0] == "v":
        return VideoWriter(path, rate=24, width=64, height=48)
    return AudioWriter(path, rate=8000, channels=2)


def _data(path: Path) -> torch.Tensor:
    return torch.zeros(1, 48, 64, 3, dtype=torch.uint8) if path.name[0] == "v" else torch.zeros(2, 1000)
