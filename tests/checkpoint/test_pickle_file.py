"""Pickles: tensors are mapped, code is named and never run, lies are refused."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vaeport.checkpoint import open_checkpoint
from vaeport.errors import CheckpointError, CorruptFileError, UnsafePickleError

CORRUPT = "not a readable torch checkpoint"
BAD_ZIP = "the zip archive is not as torch.save writes it"


class Code:
    """Unpickling this makes a folder; `torch.load` with its protection off would do so."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.canary),)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".bin", ".PT"])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model_state_dict"])
def test_every_layout(
    tmp_path: Path, tensors: dict[str, torch.Tensor], suffix: str, zipped: bool, wrapper: str | None
) -> None:
    path = tmp_path / f"weights{suffix}"
    value = tensors if wrapper is None else {wrapper: OrderedDict(tensors), "epoch": 3}
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    with open_checkpoint(path) as checkpoint:
        assert list(checkpoint.entries) == sorted(tensors)
        assert checkpoint.ignored == (() if wrapper is None else ("epoch (int)",))
        assert checkpoint.format == "pickle"
        for name, tensor in tensors.items():
            listed, read = checkpoint.entries[name], checkpoint.tensor(name)
            assert (listed.shape, listed.dtype, listed.nbytes) == (tensor.shape, tensor.dtype, tensor.nbytes)
            assert torch.equal(read, tensor)


def test_parameters_shared_and_foreign_leaves(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    base = torch.randn(4, 4)
    value = {"w": torch.nn.Parameter(base), "row": base[1], "tied": base, "name": "x", 7: base, "opt": {"lr": 0.1}}
    torch.save(value, path)
    with open_checkpoint(path) as checkpoint:
        assert list(checkpoint.entries) == ["row", "tied", "w"]
        assert set(checkpoint.ignored) == {"name (str)", "7 (Tensor)", "opt (dict of 0 tensors among 1 items)"}
        weight = checkpoint.tensor("w")
        assert type(weight) is torch.Tensor
        assert not weight.requires_grad
        assert torch.equal(checkpoint.tensor("row"), base[1])


def test_tensors_under_another_key_are_named(tmp_path: Path, refuses: Any) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"ema": {"w": torch.ones(2)}, "model": {"w": torch.ones(2), "n": 3}, "step": 5}, path)
    what = "the checkpoint holds no tensors where they are looked for"
    found = "ema (dict of 1 tensors among 1 items), model (dict of 1 tensors among 2 items), step (int)"
    fix = 'torch.save(torch.load(FILE, weights_only=True)[KEY], "weights.pt")'
    with refuses(CheckpointError, what, where=path, expected="'state_dict'", found=found, fix=fix):
        open_checkpoint(path)


@pytest.mark.parametrize(("value", "found"), [(torch.ones(2), "Tensor"), ([1], "list"), ({}, "dict of 0 tensors")])
def test_no_dict_of_tensors(tmp_path: Path, refuses: Any, value: Any, found: str) -> None:
    path = tmp_path / "weights.pt"
    torch.save(value, path)
    what = "the checkpoint holds no tensors where they are looked for"
    with refuses(CheckpointError, what, where=path, expected="a dict of tensors", found=found):
        open_checkpoint(path)


def _zip(value: Any, path: Path) -> None:
    torch.save(value, path)


def _legacy(value: Any, path: Path) -> None:
    torch.save(value, path, _use_new_zipfile_serialization=False)


def _plain(protocol: int) -> Callable[[Any, Path], None]:
    def write(value: Any, path: Path) -> None:
        path.write_bytes(pickle.dumps(value, protocol=protocol))

    return write


def _zip_of_protocol_4(value: Any, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps(value, protocol=4))
        archive.writestr("x/version", "3")


WRITERS = {
    "zip": _zip,
    "legacy": _legacy,
    "protocol 0": _plain(0),
    "protocol 2": _plain(2),
    "protocol 4": _plain(4),
    "protocol 5": _plain(5),
    "zip of protocol 4": _zip_of_protocol_4,
}


@pytest.mark.parametrize("writer", WRITERS)
def test_code_is_named_and_never_run(tmp_path: Path, refuses: Any, writer: str) -> None:
    path, canary = tmp_path / "weights.pt", tmp_path / "canary"
    WRITERS[writer]({"w": 1.5, "callback": Code(canary)}, path)
    what = "the pickle asks for code; it was not run"
    fix = "get these weights as .safetensors; or, where you trust the file, torch.save("
    with refuses(
        UnsafePickleError, what, where=path, expected="tensors and plain containers only", found="posix.mkdir", fix=fix
    ):
        open_checkpoint(path)
    assert not canary.exists()


class OtherCode:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.rmdir, ("nowhere",)


def test_all_code_is_named_though_its_module_is_written_once(tmp_path: Path, refuses: Any) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(pickle.dumps([Code(tmp_path / "canary"), "a string between", OtherCode()], protocol=4))
    what, found = "the pickle asks for code; it was not run", "it wants posix.mkdir, posix.rmdir"
    with refuses(UnsafePickleError, what, where=path, found=found):
        open_checkpoint(path)


def test_the_canary_would_sing(tmp_path: Path) -> None:
    path, canary = tmp_path / "weights.pt", tmp_path / "canary"
    torch.save({"callback": Code(canary)}, path)
    torch.load(path, weights_only=False)
    assert canary.exists()


def test_a_whole_module_is_named(tmp_path: Path, refuses: Any) -> None:
    path = tmp_path / "weights.pt"
    torch.save(torch.nn.Linear(2, 2), path)
    what = "the pickle asks for code; it was not run"
    with refuses(UnsafePickleError, what, where=path, found="torch.nn.modules.linear.Linear"):
        open_checkpoint(path)


def test_torchscript_is_refused(tmp_path: Path, refuses: Any) -> None:
    path = tmp_path / "weights.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", b"")
        archive.writestr("x/constants.pkl", b"")
    what, fix = "a TorchScript archive is a program; it was not run", "torch.jit.load(FILE).state_dict()"
    with refuses(UnsafePickleError, what, where=path, found="constants.pkl in the archive", fix=fix):
        open_checkpoint(path)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("zipped", [True, False])
def test_truncated(tmp_path: Path, refuses: Any, tensors: dict[str, torch.Tensor], share: float, zipped: bool) -> None:
    path = tmp_path / "weights.pt"
    torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    again = "download or copy the file again"
    if zipped and share:
        with refuses(CorruptFileError, BAD_ZIP, where=path, expected="a sound zip archive", found="zip", fix=again):
            open_checkpoint(path)
    else:
        found = "a Python pickle; torch says" if share else "an empty file; torch says"
        with refuses(CorruptFileError, CORRUPT, where=path, expected="torch.save", found=found, fix=again):
            open_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"<html></html>", "a web page"), (b"version https://git-lfs", "Git LFS"), (b"abc", "b'abc'")],
)
def test_not_a_pickle(tmp_path: Path, refuses: Any, content: bytes, words: str) -> None:
    path = tmp_path / "weights.ckpt"
    path.write_bytes(content)
    with refuses(CorruptFileError, CORRUPT, where=path, expected="a file written by torch.save", found=words):
        open_checkpoint(path)


def test_the_advice_to_switch_protection_off_is_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(b"\x80\x02}q\x00\x99.")
    with pytest.raises(CorruptFileError) as caught:
        open_checkpoint(path)
    assert "Unsupported operand 153" in str(caught.value)
    assert "weights_only" not in str(caught.value)


def _repack(path: Path, change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path) as archive:
        records = [(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in records:
            archive.writestr(name, change(name, content))


def test_compressed_records_are_refused_since_they_are_mapped(tmp_path: Path, refuses: Any) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"w": torch.zeros(100)}, path)
    _repack(path, lambda name, content: content, zipfile.ZIP_DEFLATED)
    expected = "records stored as they are, which torch.save does"
    with refuses(CorruptFileError, BAD_ZIP, where=path, expected=expected, found="compressed", fix="save it anew"):
        open_checkpoint(path)


def test_doubled_records(tmp_path: Path, refuses: Any) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"w": torch.zeros(100)}, path)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("weights/data.pkl", b"")
    with refuses(CorruptFileError, BAD_ZIP, where=path, expected="unique names", found="'weights/data.pkl' twice"):
        open_checkpoint(path)


def _patch(path: Path, marker: bytes, at: int, new: bytes) -> None:
    """Overwrite bytes counted from the last `marker` in the file."""
    content = bytearray(path.read_bytes())
    start = content.rindex(marker) + at
    content[start : start + len(new)] = new
    path.write_bytes(content)


def test_record_that_ends_beyond_the_file(tmp_path: Path, refuses: Any) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"w": torch.zeros(100)}, path)
    _patch(path, b"weights/data/0", -26, b"\xff\xff\xff\x7f" * 2)  # both sizes, in the directory at the end
    expected, found = f"records inside the {path.stat().st_size} bytes", "'weights/data/0' ends beyond"
    with refuses(CorruptFileError, BAD_ZIP, where=path, expected=expected, found=found):
        open_checkpoint(path)


def test_directory_that_disagrees_with_the_records(tmp_path: Path, refuses: Any) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"w": torch.zeros(100), "x": torch.zeros(100)}, path)
    _patch(path, b"weights/data/0", 0, b"weights/data/7")
    found = "no header of 'weights/data/7' at byte"
    with refuses(CorruptFileError, BAD_ZIP, where=path, expected="a sound zip archive", found=found):
        open_checkpoint(path)


def test_storage_that_is_longer_than_its_record(tmp_path: Path, refuses: Any) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"w": torch.arange(100.0), "x": torch.arange(50.0)}, path)
    _repack(path, lambda name, content: content[:200] if name.endswith("data/0") else content)
    # torch itself maps it without a word, with the next record's bytes as its values:
    assert torch.load(path, weights_only=True, mmap=True)["w"].shape == (100,)
    with refuses(
        CorruptFileError,
        "the checkpoint's tensors do not lie in its storages",
        where=f"{path}, tensor 'w'",
        expected="each storage to be one whole record of the archive",
        found="a storage of a size that no record has",
    ):
        open_checkpoint(path)


def test_storage_that_takes_anothers_record(tmp_path: Path, refuses: Any) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"w": torch.arange(100.0), "x": torch.arange(50.0)}, path)
    contents = {"data/0": bytes(200), "data/1": bytes(400)}  # the sizes fit, the records do not
    _repack(path, lambda name, content: contents.get(name.partition("/")[2], content))
    what, found = "the checkpoint's tensors do not lie in its storages", "storages that start or end inside records"
    with refuses(CorruptFileError, what, where=path, found=found):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("tensor", "found"),
    [
        (torch.eye(3).to_sparse(), "a sparse, quantized or nested tensor"),
        (torch.empty(3, device="meta"), "a tensor on meta, without values"),
        (torch.ones(1).expand(2**40), f"a tensor of {2**42} bytes"),
    ],
    ids=["sparse", "meta", "expanded"],
)
def test_tensor_without_plain_values(tmp_path: Path, refuses: Any, tensor: torch.Tensor, found: str) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"w": tensor}, path)
    what = "the checkpoint holds a tensor without plain values of its own"
    with refuses(CorruptFileError, what, where="tensor 'w'", expected="a dense tensor inside the", found=found):
        open_checkpoint(path)


def test_name_with_half_a_surrogate_pair(tmp_path: Path, refuses: Any) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"\ud800": torch.ones(1)}, path)
    what = "the checkpoint holds a tensor without plain values of its own"
    with refuses(CorruptFileError, what, where="tensor '\\ud800'", found="a name with half of a surrogate pair"):
        open_checkpoint(path)
