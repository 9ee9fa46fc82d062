"""A safetensors header is believed only as far as the file bears it out."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from vaeport.checkpoint import open_checkpoint
from vaeport.checkpoint.safetensors_file import DTYPES, read_header
from vaeport.errors import CheckpointError, CorruptFileError

AGAIN = "download or copy the file again"


def entry(shape: Any = (2,), dtype: Any = "F32", offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_every_dtype_is_read_as_the_library_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "all.safetensors"
    state = {str(dtype): torch.zeros(3, 2, dtype=dtype) for dtype in DTYPES.values()}
    save_file(state, path, metadata={"format": "pt"})
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.metadata == {"format": "pt"}
        for dtype in DTYPES.values():
            listed, tensor = checkpoint.entries[str(dtype)], checkpoint.tensor(str(dtype))
            assert (listed.shape, listed.dtype, listed.nbytes) == ((3, 2), dtype, 6 * dtype.itemsize)
            assert (tensor.shape, tensor.dtype) == ((3, 2), dtype)


def test_values_on_odd_addresses_are_moved(write_safetensors: Callable[..., Path]) -> None:
    header = b'{"x":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}}'
    header += b" " * ((1 - len(header)) % 8)
    path = write_safetensors(header, struct.pack("<3f", 1, 2, 3))
    with open_checkpoint(path) as checkpoint:
        tensor = checkpoint.tensor("x")
    assert tensor.tolist() == [1, 2, 3]
    assert tensor.data_ptr() % 4 == 0


@pytest.mark.parametrize("cut", [0, 5, 8, 40, -1])
def test_truncated(tmp_path: Path, refuses: Any, cut: int) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"x": torch.ones(20)}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    if cut < 0:
        expected, found = "80 bytes of tensor data, as the header says", "79 bytes"
        with refuses(CorruptFileError, "the file is truncated", where=path, expected=expected, found=found, fix=AGAIN):
            open_checkpoint(path)
    else:
        place = f"{path}, header length (bytes 0 to 8)"
        expected = f"in a file of {cut} bytes"
        with refuses(CorruptFileError, "not a whole safetensors file", where=place, expected=expected, fix=AGAIN):
            open_checkpoint(path)


def test_header_claiming_a_huge_size(tmp_path: Path, refuses: Any) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", 2**60) + b"{}")
    expected, found = "a header of 2 to 2 bytes in a file of 10 bytes", f"a header of {2**60} bytes"
    with refuses(CorruptFileError, "not a whole safetensors file", where=path, expected=expected, found=found):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "a Git LFS pointer"),
        (b"PK\x03\x04" + bytes(60), "a zip archive, as torch.save writes it"),
        (b"<!DOCTYPE html><html>not found</html>", "a web page or XML"),
        (b"", "an empty file"),
    ],
)
def test_another_kind_of_file_is_named(tmp_path: Path, refuses: Any, start: bytes, words: str) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(start)
    with refuses(CorruptFileError, "not a whole safetensors file", where=path, found=f"the file looks like {words}"):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (b"[]", "a JSON list, not an object"),
        (b"{nonsense}", "Expecting property name"),
        (b'{"a":\xff\xff}', "can't decode byte"),
        (b"[" * 50_000, "nested too deeply"),
        (b'{"a":' + b"9" * 5000 + b"}", "Exceeds the limit"),
        (b'{"a":{},"a":{}}', "the key 'a' stands twice"),
        (b'{"a":{"dtype":"F32","dtype":"F16"}}', "the key 'dtype' stands twice"),
        (b'{"\\ud800":{}}', "half of a surrogate pair"),
    ],
)
def test_header_that_is_not_sound_json(
    write_safetensors: Callable[..., Path], refuses: Any, header: bytes, found: str
) -> None:
    path = write_safetensors(header, b"")
    place = f"{path}, bytes 8 to {8 + len(header)}"
    what, expected = "the safetensors header is not sound JSON", "one JSON object with unique keys"
    with refuses(CorruptFileError, what, where=place, expected=expected, found=found, fix=AGAIN):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("spec", "field", "expected", "found"),
    [
        (entry(dtype="F4"), "dtype", "one of BOOL, U8", "'F4'"),
        (entry(dtype=None), "dtype", "F32", "None"),
        (entry(shape=[-2]), "shape", "at most 64 sizes from 0", "[-2]"),
        (entry(shape=[2.0]), "shape", "sizes", "[2.0]"),
        (entry(shape=[True, 2]), "shape", "sizes", "[True, 2]"),
        (entry(shape=[2**63]), "shape", "sizes", str(2**63)),
        (entry(shape=[1] * 65), "shape", "at most 64 sizes", "[1, 1"),
        (entry(shape="2"), "shape", "sizes", "'2'"),
        (entry(shape=[3]), "size", "12 bytes for F32 [3]", "8 bytes"),
        (entry(shape=[1]), "size", "4 bytes for F32 [1]", "8 bytes"),
        (entry(shape=[2**40, 2**40]), "size", f"{2**82} bytes", "8 bytes"),
        (entry(offsets=[8, 0]), "data_offsets", "[begin, end] with 0 <= begin <= end", "[8, 0]"),
        (entry(offsets=[0]), "data_offsets", "[begin, end]", "[0]"),
        (entry(offsets=[0, 8, 9]), "data_offsets", "[begin, end]", "[0, 8, 9]"),
        (entry(offsets=[-1, 7]), "data_offsets", "0 <= begin", "[-1, 7]"),
        (entry(offsets=[0, 2**64]), "data_offsets", "[begin, end]", str(2**64)),
        (entry(offsets=[4, 12]), "data_offsets", "begin 0, where the tensor before it ends", "4"),
        ({"dtype": "F32"}, "entry", "an object with dtype, shape and data_offsets", "{'dtype': 'F32'}"),
        (3, "entry", "an object with dtype, shape and data_offsets", "3"),
    ],
)
def test_header_that_lies_about_a_tensor(
    write_safetensors: Callable[..., Path], refuses: Any, spec: Any, field: str, expected: str, found: str
) -> None:
    path = write_safetensors({"w": spec}, bytes(8))
    what = f"the safetensors header is wrong about the {field} of a tensor"
    with refuses(CorruptFileError, what, where=f"{path}, tensor 'w'", expected=expected, found=found, fix=AGAIN):
        open_checkpoint(path)


def test_overlapping_tensors(write_safetensors: Callable[..., Path], refuses: Any) -> None:
    path = write_safetensors({"a": entry(), "b": entry(offsets=[4, 12])}, bytes(12))
    what = "the safetensors header is wrong about the data_offsets of a tensor"
    with refuses(CorruptFileError, what, where="tensor 'b'", expected="begin 8", found="4"):
        open_checkpoint(path)


def test_bytes_that_no_tensor_owns(write_safetensors: Callable[..., Path], refuses: Any) -> None:
    path = write_safetensors({"a": entry()}, bytes(9))
    what = "the file holds bytes that no tensor owns"
    with refuses(CorruptFileError, what, where=path, expected="8 bytes", found="9 bytes"):
        open_checkpoint(path)


@pytest.mark.parametrize("metadata", [None, [], "x", {"a": 1}])
def test_malformed_metadata(write_safetensors: Callable[..., Path], refuses: Any, metadata: Any) -> None:
    path = write_safetensors({"__metadata__": metadata}, b"")
    what = "the safetensors metadata is malformed"
    with refuses(CorruptFileError, what, where=f"{path}, __metadata__", expected="strings", found=repr(metadata)):
        open_checkpoint(path)


def test_hostile_names_neither_flood_nor_steer_the_terminal(
    write_safetensors: Callable[..., Path], refuses: Any
) -> None:
    path = write_safetensors({"\x1b[2J" + "n" * 10_000: entry(dtype="?")}, bytes(8))
    with refuses(CorruptFileError, "the safetensors header is wrong about the dtype of a tensor", where="\\x1b[2Jnnn"):
        open_checkpoint(path)


def test_a_file_that_changes_after_it_was_opened(tmp_path: Path, refuses: Any) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"w": torch.ones(1000)}, path)
    with open_checkpoint(path) as checkpoint:
        path.write_bytes(b"")
        what, fix = "the tensor cannot be mapped", "open it again"
        with refuses(CheckpointError, what, where=f"{path}, tensor 'w'", found="header", fix=fix):
            checkpoint.tensor("w")
        path.unlink()
        with refuses(CheckpointError, what, where=path, found="No such file", fix=fix):
            checkpoint.tensor("w")


def test_the_header_alone_is_read(write_safetensors: Callable[..., Path]) -> None:
    path = write_safetensors({"a": entry(shape=[2**30], offsets=[0, 2**32])}, b"")
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + 2**32)  # sparse: 4 GB of nothing
    assert read_header(path)[1]["a"].nbytes == 2**32
