"""An index is believed only where its shards bear it out, and it never leads out of its folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from vaeport.checkpoint import open_checkpoint
from vaeport.errors import CheckpointError, CorruptFileError

INDEX = "model.safetensors.index.json"
OUTSIDE = "the index points outside its folder; nothing was opened there"
MALFORMED = "the shard index is malformed"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two shards: a and b in the first, c in the second."""
    folder = tmp_path / "model"
    folder.mkdir()
    save_file({"a": torch.ones(1), "b": torch.ones(1)}, folder / "one.safetensors")
    save_file({"c": torch.ones(1)}, folder / "two.safetensors")
    return folder


@pytest.fixture
def write(folder: Path) -> Callable[..., Path]:
    def write_index(**changes: Any) -> Path:
        weight_map = {"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"} | changes
        path = folder / INDEX
        path.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
        return path

    return write_index


def test_sound(folder: Path, write: Callable[..., Path]) -> None:
    with open_checkpoint(write()) as checkpoint:
        assert [(name, entry.file.name) for name, entry in checkpoint.entries.items()] == [
            ("a", "one.safetensors"),
            ("b", "one.safetensors"),
            ("c", "two.safetensors"),
        ]
        assert checkpoint.files == (folder / "one.safetensors", folder / "two.safetensors")


@pytest.mark.parametrize(
    "shard",
    ["../x.safetensors", "/etc/passwd", "sub/../../x.safetensors", "..", "", ".", "..\\x", "C:\\x", "C:x", "a\0b"],
)
def test_names_that_lead_out(write: Callable[..., Path], refuses: Any, shard: str) -> None:
    path = write(c=shard)
    with refuses(
        CorruptFileError,
        OUTSIDE,
        where=path,
        expected="shards beside the index",
        found=repr(shard),
        fix="beside the index",
    ):
        open_checkpoint(path)


def test_links_that_lead_out(tmp_path: Path, folder: Path, write: Callable[..., Path], refuses: Any) -> None:
    save_file({"c": torch.ones(1)}, tmp_path / "outside.safetensors")
    (folder / "two.safetensors").unlink()
    (folder / "two.safetensors").symlink_to("../outside.safetensors")
    path = write()
    found = "'two.safetensors', a link to ../outside.safetensors"
    with refuses(CorruptFileError, OUTSIDE, where=path, found=found):
        open_checkpoint(path)


@pytest.mark.parametrize("target", ["two.safetensors", "/", "/dev/zero"])
def test_links_to_themselves_and_devices(folder: Path, write: Callable[..., Path], refuses: Any, target: str) -> None:
    (folder / "two.safetensors").unlink()
    (folder / "two.safetensors").symlink_to(target)
    path = write()
    with refuses(CorruptFileError, OUTSIDE, where=path, found=f"a link to {target}"):
        open_checkpoint(path)


def test_links_inside_the_folder(folder: Path, write: Callable[..., Path]) -> None:
    (folder / "two.safetensors").rename(folder / "real.safetensors")
    (folder / "two.safetensors").symlink_to("real.safetensors")
    with open_checkpoint(write()) as checkpoint:
        assert checkpoint.tensor("c").tolist() == [1]


def test_links_of_a_hub_cache_lead_to_the_blobs_of_their_repository_alone(
    tmp_path: Path, folder: Path, write: Callable[..., Path], refuses: Any
) -> None:
    write()
    repository = tmp_path / "models--org--name"
    snapshot = repository / "snapshots" / "0123" / "vae"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for number, file in enumerate(sorted(folder.iterdir())):
        file.rename(repository / "blobs" / str(number))
        (snapshot / file.name).symlink_to(f"../../../blobs/{number}")
    with open_checkpoint(snapshot) as checkpoint:
        assert checkpoint.tensor("c").tolist() == [1]
    save_file({"c": torch.ones(1)}, tmp_path / "outside.safetensors")
    (snapshot / "two.safetensors").unlink()
    save_file({"c": torch.ones(1)}, repository / "blobs" / "c.safetensors")
    sound = (snapshot / INDEX).read_text()
    (snapshot / INDEX).unlink()
    (snapshot / INDEX).write_text(sound.replace("two.safetensors", "../../../blobs/c.safetensors"))
    with refuses(CorruptFileError, OUTSIDE, where=snapshot / INDEX, found="'../../../blobs/c.safetensors'"):
        open_checkpoint(snapshot)
    (snapshot / INDEX).write_text(sound)
    (snapshot / "two.safetensors").symlink_to(tmp_path / "outside.safetensors")
    with refuses(CorruptFileError, OUTSIDE, where=snapshot / INDEX, found="'two.safetensors'"):
        open_checkpoint(snapshot)


def test_missing_shards_are_named(folder: Path, write: Callable[..., Path], refuses: Any) -> None:
    (folder / "two.safetensors").unlink()
    path = write(d="three.safetensors", e="x" * 300)
    expected = "4 shards beside the index"
    found = "3 missing: three.safetensors, two.safetensors, xxx"
    what, fix = "shards named by the index are missing", "download the missing shards"
    with refuses(CorruptFileError, what, where=path, expected=expected, found=found, fix=fix):
        open_checkpoint(path)


def test_name_that_no_shard_holds(write: Callable[..., Path], refuses: Any) -> None:
    path = write(d="two.safetensors")
    what, place = "the index and its shards disagree about 1 tensor(s)", f"{path}, tensor 'd'"
    expected, found, fix = "in two.safetensors", "no shard holds it", "from one revision"
    with refuses(CorruptFileError, what, where=place, expected=expected, found=found, fix=fix):
        open_checkpoint(path)


def test_name_that_another_shard_holds(write: Callable[..., Path], refuses: Any) -> None:
    path = write(b="two.safetensors")
    what, place = "the index and its shards disagree about 1 tensor(s)", f"{path}, tensor 'b'"
    with refuses(
        CorruptFileError, what, where=place, expected="in two.safetensors", found="it lies in one.safetensors"
    ):
        open_checkpoint(path)


def test_name_that_two_shards_hold(folder: Path, write: Callable[..., Path], refuses: Any) -> None:
    save_file({"b": torch.zeros(1), "c": torch.ones(1)}, folder / "two.safetensors")
    path = write()
    what, place = "two shards hold the same tensor", f"{path}, tensor 'b'"
    expected, found = "each tensor in one shard", "one.safetensors and two.safetensors"
    with refuses(CorruptFileError, what, where=place, expected=expected, found=found):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "Expecting value"),
        ("[]", "a JSON list, not an object"),
        ("{}", "weight_map is None"),
        ('{"weight_map":{}}', "weight_map is {}"),
        ('{"weight_map":["a"]}', "weight_map is ['a']"),
        ('{"weight_map":{"a":3}}', "weight_map['a'] is 3"),
        ('{"weight_map":{"a":"x","a":"y"}}', "the key 'a' stands twice"),
        ("[" * 50_000, "nested too deeply"),
        ("version https://git-lfs.github.com/spec/v1", "the file looks like a Git LFS pointer"),
    ],
)
def test_malformed(folder: Path, refuses: Any, text: str, found: str) -> None:
    path = folder / INDEX
    path.write_text(text)
    expected, fix = 'a JSON object with "weight_map": {tensor name: file name}', "download the index again"
    with refuses(CorruptFileError, MALFORMED, where=path, expected=expected, found=found, fix=fix):
        open_checkpoint(path)


def test_an_index_of_a_huge_size_is_not_read(folder: Path, refuses: Any) -> None:
    path = folder / INDEX
    with path.open("wb") as file:
        file.truncate(2**40)
    with refuses(CorruptFileError, MALFORMED, where=path, found=f"{2**40} bytes, more than any index has"):
        open_checkpoint(path)


def test_shard_that_is_no_weight_file(write: Callable[..., Path], refuses: Any) -> None:
    path = write(c=INDEX)
    with refuses(CheckpointError, "not a known kind of weight file", where=path.parent / INDEX, found=".json"):
        open_checkpoint(path)
