"""What a source holds: ids, captions, and everything that is wrong with one told before anything runs."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.dataset.material import tar
from vaeport.dataset.items import file_name, id_of, require_names
from vaeport.dataset.sources import list_source
from vaeport.errors import BlockedError, InputError, MediaError


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def test_a_folder_is_searched_with_all_in_it(tmp_path: Path) -> None:
    touch(tmp_path, "b.png", "deep/er/a.JPG", "clip.v2.mp4", "notes.md", ".hidden.png", ".cache/b.png", "deep/.x/c.png")
    (tmp_path / "b.txt").write_text(" a caption\n")
    found = list_source(tmp_path, "video")
    assert [item.id for item in found.items] == ["b", "clip.v2", "deep/er/a"]
    assert [item.caption for item in found.items] == ["a caption", "", ""]
    assert found.items[2].name == "deep/er/a.JPG"
    assert (found.kind, found.left_out) == ("folder", 1)
    assert [item.id for item in list_source(tmp_path, "image").items] == ["b", "deep/er/a"]


def test_links_are_followed_and_no_folder_is_searched_twice(tmp_path: Path) -> None:
    touch(tmp_path / "other", "x.png", "in/y.png")
    touch(tmp_path / "src", "a.png")
    (tmp_path / "src" / "l").symlink_to(tmp_path / "other")
    (tmp_path / "src" / "m").symlink_to(tmp_path / "other")
    (tmp_path / "other" / "in" / "up").symlink_to(tmp_path / "src")
    (tmp_path / "src" / "z.png").symlink_to(tmp_path / "src" / "a.png")
    assert [item.id for item in list_source(tmp_path / "src", "image").items] == ["a", "l/in/y", "l/x", "z"]


def test_a_folder_that_cannot_be_searched_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may do everything, as the tests may, is not refused by the system."""
    touch(tmp_path, "a.png", "secret/b.png")
    scandir = os.scandir

    def refused(path: str) -> Any:
        if Path(path).name == "secret":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(BlockedError, match="cannot be searched") as error:
        list_source(tmp_path, "image")
    assert (error.value.where, error.value.found) == (str(tmp_path / "secret"), "Permission denied")


def test_a_name_that_is_not_text_is_told(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "\udcff.png")
    with pytest.raises(InputError, match="a name is not text") as error:
        list_source(tmp_path, "image")
    assert error.value.found == r"'\udcff.png'"
    str(error.value).encode()


def test_half_a_pair_in_a_caption_is_replaced(tmp_path: Path) -> None:
    told = {"1.json": b'{"caption": "cut \\ud83d"}', "2.json": b'{"caption": "whole \\ud83d\\ude00"}'}
    found = list_source(tar(tmp_path / "a.tar", {"1.png": b"x", "2.png": b"x"} | told), "image")
    assert [item.caption for item in found.items] == ["cut \ufffd", "whole \U0001f600"]


def test_two_files_of_one_name_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.png", "a/x.jpg")
    with pytest.raises(InputError, match="same id") as error:
        list_source(tmp_path, "image")
    assert all(str(tmp_path / name) in str(error.value) for name in ("a/x.png", "a/x.jpg"))


@pytest.mark.parametrize("extension", ["csv", "parquet"])
def test_lists(tmp_path: Path, extension: str) -> None:
    table = {"path": ["sub/a.png", "b.png"], "id": ["one", None], "caption": ["an a", None], "more": ["x", "y"]}
    file = tmp_path / f"list.{extension}"
    if extension == "parquet":
        pq.write_table(pa.table(table), file)
    else:
        file.write_text("path,id,caption,more\nsub/a.png,one,an a,x\nb.png,,,y\n")
    found = {item.id: item for item in list_source(file, "image").items}
    assert list(found) == ["b", "one"]
    assert (found["one"].file, found["one"].caption) == (tmp_path / "sub/a.png", "an a")
    assert (found["b"].file, found["b"].caption) == (tmp_path / "b.png", "")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name\nx.png\n", "names no file"),
        ("path\n\xff.png\n", "cannot be read"),
        ("path\n.\n", "names no file"),
        ("path\n/\n", "names no file"),
        ("path\n", "nothing to encode"),
        ("path,id\na.png,1\nb.png,1\n", "same id"),
    ],
)
def test_lists_that_are_none(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "list.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=says):
        list_source(tmp_path / "list.csv", "image")


def test_a_list_as_excel_writes_it(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path,caption\r\na.png,b\r\n", "utf-8-sig")
    assert [(item.id, item.caption) for item in list_source(tmp_path / "list.csv", "image").items] == [("a", "b")]


def test_a_damaged_parquet_list(tmp_path: Path) -> None:
    text = pa.array([b"\xff.png"]).view(pa.string())
    pq.write_table(pa.table({"path": text}), tmp_path / "list.parquet")
    with pytest.raises(InputError, match="cannot be read"):
        list_source(tmp_path / "list.parquet", "image")
    (tmp_path / "list.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match="cannot be read"):
        list_source(tmp_path / "list.parquet", "image")


def test_tars(tmp_path: Path) -> None:
    told = json.dumps({"caption": "from json"}).encode()
    tar(tmp_path / "a-000.tar", {"x/1.mp4": b"video", "x/1.jpg": b"preview", "x/1.json": told, "x/1.cls": b"7"})
    tar(tmp_path / "a-001.tar", {"2.png": b"picture", "2.txt": b"from txt", "3.json": b"[", "readme.md": b"-"})
    for pattern in ("a-{000..001}.tar", "a-*.tar", "a-00{0,1}.tar"):
        found = list_source(f"{tmp_path}/{pattern}", "video")
        assert [(item.id, item.name, item.caption) for item in found.items] == [
            ("2", "2.png", "from txt"),
            ("x/1", "x/1.mp4", "from json"),
        ]
    offset, size = found.items[1].member or (0, 0)
    assert (tmp_path / "a-000.tar").read_bytes()[offset : offset + size] == b"video"
    assert [item.name for item in list_source(tmp_path / "a-000.tar", "image").items] == ["x/1.jpg"]


def test_tars_that_are_damaged_or_ambiguous(tmp_path: Path) -> None:
    whole = tar(tmp_path / "whole.tar", {"1.png": b"x" * 5000, "2.png": b"y" * 5000}).read_bytes()
    (tmp_path / "short.tar").write_bytes(whole[:7000])
    (tmp_path / "no.tar").write_bytes(b"no tar at all" * 100)
    for name in ("short.tar", "no.tar"):
        with pytest.raises(MediaError, match="tar cannot be read"):
            list_source(tmp_path / name, "image")
    for name, damaged in {
        "middle": whole[:5632] + b"\xff" * 100 + whole[5732:],  # the header of the second member
        "blank": whole[:5632] + bytes(512) + whole[6144:],
        "cut": whole[:11264],  # both are there
        "first": whole[:5632],
    }.items():
        (tmp_path / f"{name}.tar").write_bytes(damaged)
        with pytest.raises(MediaError, match="tar cannot be read"):
            list_source(tmp_path / f"{name}.tar", "image")
    tar(tmp_path / "two.tar", {"1.png": b"x", "1.jpg": b"y"})
    with pytest.raises(InputError, match=r"1\.png and 1\.jpg"):
        list_source(tmp_path / "two.tar", "image")
    tar(tmp_path / "again.tar", {"1.png": b"x"})
    with pytest.raises(InputError, match="same id"):
        list_source(f"{tmp_path}/{{whole,again}}.tar", "image")


@pytest.mark.parametrize("name", ["missing", "data.tar.gz", "data-{0..3}.tar", "none-*.tar", "file.png"])
def test_sources_that_are_none(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "file.png", "data.tar.gz")
    with pytest.raises(InputError):
        list_source(f"{tmp_path}/{name}", "image")


def test_an_empty_folder_says_what_is_there_instead(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "b.wav")
    with pytest.raises(InputError, match="2 files are of other kinds"):
        list_source(tmp_path, "image")


def test_the_fingerprint_sees_names_captions_and_tars(tmp_path: Path) -> None:
    prints = []
    for step in ("a.png", "b.png", "a.txt"):
        touch(tmp_path, step)
        prints.append(list_source(tmp_path, "image").fingerprint())
    assert len(set(prints)) == 3
    assert list_source(tmp_path, "image").fingerprint() == prints[-1]
    for name in ("1.tar", "2.tar"):
        prints.append(list_source(tar(tmp_path / name, {"a.png": b"x", "b.png": b"x"}), "image").fingerprint())
    assert len(set(prints)) == 5


def test_ids_as_names_stay_in_the_folder_and_differ() -> None:
    ids = ["a", "a.b", "a%2Eb", "../x", "/abs", "a//b", "", "a/", "ä ö", "x\ny", "."]
    names = [file_name(key) for key in ids]
    assert len(set(names)) == len(ids)
    assert [id_of(name) for name in names] == ids
    assert not any("." in name or name.startswith("/") or "\n" in name for name in names)


def test_an_id_that_is_too_long_is_told_before_anything_runs(tmp_path: Path) -> None:
    touch(tmp_path, "x" * 240 + ".png")
    with pytest.raises(InputError, match="too long"):
        require_names(list_source(tmp_path, "image").items)
