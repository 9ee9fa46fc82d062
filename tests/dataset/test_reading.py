"""What a reader makes of a file: sizes, frames and rates as they are asked for, and members of tars."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.dataset.material import clip, pixels, sound, tar
from tests.media.material import file_size_limit
from vaeport.dataset import reading
from vaeport.dataset.items import Item
from vaeport.dataset.reading import Head, Notes, Reading
from vaeport.dataset.sources import list_source
from vaeport.errors import BlockedError, MediaError
from vaeport.media import write_image


def item(path: Path) -> Item:
    return Item(id=path.stem, file=path, name=path.name)


def read(reading: Reading, one: Item) -> tuple[Head, list[Tensor]]:
    head, *parts, notes = list(reading(one))
    assert isinstance(head, Head)
    assert isinstance(notes, Notes)
    return head, [part for part in parts if isinstance(part, Tensor)]


def test_a_clip_comes_in_pieces_with_its_rate(tmp_path: Path) -> None:
    head, parts = read(Reading("video", 1, 4), item(clip(tmp_path / "a.mkv", 7, rate=Fraction(30000, 1001))))
    assert [len(part) for part in parts] == [1, 4, 2]
    assert torch.equal(torch.cat(parts), pixels(7, 16, 24))
    assert (head.height, head.width, head.rate) == (16, 24, Fraction(30000, 1001))


@pytest.mark.parametrize(
    ("fps", "frames", "indices"),
    [
        (Fraction(24), None, [0, 1, 2, 3, 4, 5, 6]),
        (Fraction(12), None, [0, 2, 4, 6]),
        (Fraction(16), None, [0, 1, 3, 4, 6]),
        (Fraction(48), 5, [0, 0, 1, 1, 2]),
        (None, 3, [0, 1, 2]),
        (Fraction(8), 2, [0, 3]),
    ],
)
def test_frames_are_those_on_screen_at_their_time(
    tmp_path: Path, fps: Fraction | None, frames: int | None, indices: list[int]
) -> None:
    head, parts = read(Reading("video", 2, 2, frames=frames, fps=fps), item(clip(tmp_path / "a.mkv", 7)))
    assert torch.equal(torch.cat(parts), pixels(7, 16, 24)[indices])
    assert head.rate == (fps or 24)


def test_a_clip_that_is_too_short_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="too short") as error:
        read(Reading("video", 1, 4, frames=8), item(clip(tmp_path / "a.mkv", 7)))
    assert (error.value.expected, error.value.found) == ("8 frames", "7 frames")
    assert error.value.where == str(tmp_path / "a.mkv")


@pytest.mark.parametrize(
    ("size", "kept"), [((8, 8), "width"), ((8, 16), None), ((4, 16), "height"), ((32, 32), "width")]
)
def test_pictures_are_scaled_and_cropped_to_the_middle(tmp_path: Path, size: tuple[int, int], kept: str | None) -> None:
    picture = torch.zeros(16, 32, 3, dtype=torch.uint8)
    picture[:, :, 0] = torch.arange(32, dtype=torch.uint8) * 8  # brighter to the right
    picture[:, :, 1] = (torch.arange(16, dtype=torch.uint8) * 16)[:, None]  # and downwards
    write_image(tmp_path / "a.png", picture)
    head, (found,) = read(Reading("image", 1, 1, crop=size), item(tmp_path / "a.png"))
    assert tuple(found.shape) == (1, *size, 3)
    assert (head.height, head.width, head.original) == (*size, (16, 32))
    middle = found[0].float().mean((0, 1))
    assert abs(middle[0] - 124) < 4
    assert abs(middle[1] - 120) < 4
    across, down = (found[0].float()[..., c].amax() - found[0].float()[..., c].amin() for c in (0, 1))
    assert (across < 200) == (kept == "width")
    assert (down < 200) == (kept == "height")


def test_a_size_that_it_has_changes_nothing(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", pixels(16, 24))
    _, (found,) = read(Reading("image", 1, 1, crop=(16, 24)), item(tmp_path / "a.png"))
    assert torch.equal(found[0], pixels(16, 24))


def test_members_of_tars_are_what_the_files_are(tmp_path: Path) -> None:
    write_image(tmp_path / "p.png", pixels(16, 24))
    files = {
        "1.png": tmp_path / "p.png",
        "2.mkv": clip(tmp_path / "c.mkv", 5),
        "3.flac": sound(tmp_path / "s.flac", 99),
    }
    source = tar(tmp_path / "all.tar", {name: path.read_bytes() for name, path in files.items()})
    for modality in ("video", "audio"):
        for one in list_source(source, modality).items:
            reading = Reading(modality, 4, 4)
            (head, parts), (told, same) = read(reading, one), read(reading, item(files[one.name]))
            assert head == told
            assert len(parts) == len(same) > 0
            assert all(map(torch.equal, parts, same))


def test_a_broken_member_is_told_by_its_place(tmp_path: Path) -> None:
    source = tar(tmp_path / "all.tar", {"1.png": b"no picture"})
    (one,) = list_source(source, "image").items
    with pytest.raises(MediaError) as error:
        read(Reading("image", 1, 1), one)
    assert error.value.where == f"{source}, member 1.png"
    source.write_bytes(source.read_bytes()[:515])
    with pytest.raises(MediaError, match="cut short"):
        read(Reading("image", 1, 1), one)


def test_a_full_disk_is_no_fault_of_the_member_that_is_copied_there(tmp_path: Path) -> None:
    (one,) = list_source(tar(tmp_path / "all.tar", {"1.png": b"no picture" * 100}), "image").items
    with file_size_limit(500), pytest.raises(BlockedError, match="larger than the system allows"):
        read(Reading("image", 1, 1), one)


def test_a_file_that_may_not_be_opened_is_a_broken_item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> Path:
        raise BlockedError("the file cannot be opened", where=path, found="Permission denied")

    monkeypatch.setattr(reading, "input_file", refused)
    with pytest.raises(MediaError, match="cannot be opened") as error:
        read(Reading("image", 1, 1), item(tmp_path / "a.png"))
    assert (error.value.where, error.value.found) == (str(tmp_path / "a.png"), "Permission denied")


def test_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="another kind"):
        read(Reading("image", 1, 1), item(clip(tmp_path / "a.mkv", 1)))
