"""One safetensors file: its header is checked here first, its values are mapped by the safetensors library."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vaeport.checkpoint.entry import Entry
from vaeport.checkpoint.files import describe_start, reading, require_file
from vaeport.checkpoint.strict_json import JsonProblemError, parse_json_object
from vaeport.checkpoint.text import cut, short
from vaeport.errors import CheckpointError, CorruptFileError

MAX_HEADER_BYTES = 100_000_000  # the format's own limit
MAX_RANK = 64  # torch's own limit
AGAIN = "download or copy the file again"

DTYPES: dict[str, torch.dtype] = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "U16": torch.uint16,
    "I16": torch.int16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F8_E8M0": torch.float8_e8m0fnu,
}


class SafetensorsFile:
    """A safetensors file whose header has been checked against the file; values are mapped on demand, never copied.

    Raises:
        CorruptFileError: the file is truncated, malformed, or its header does not describe its bytes.
    """

    format = "safetensors"
    ignored: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        self.path = require_file(path)
        self.metadata, self.entries = read_header(path)
        self._handle: Any = None

    def tensor(self, name: str) -> torch.Tensor:
        """Map one tensor, on the CPU."""
        from safetensors import SafetensorError, safe_open

        try:
            if self._handle is None:
                self._handle = safe_open(str(self.path), framework="pt", device="cpu")
            tensor: torch.Tensor = self._handle.get_tensor(name)
        except (SafetensorError, OSError, RuntimeError, ValueError, OverflowError) as error:
            raise CheckpointError(
                "the tensor cannot be mapped",
                where=f"{self.path}, tensor {short(name)}",
                found=cut(str(error)),
                fix="the file may have changed since it was opened; open it again",
            ) from error
        # A header of odd length puts values on odd addresses, which kernels need not accept.
        return tensor.clone() if tensor.data_ptr() % tensor.element_size() else tensor


def read_header(path: Path) -> tuple[dict[str, str], dict[str, Entry]]:
    """Read and check the header alone: metadata, and the entries in the order of their bytes.

    Raises:
        CorruptFileError: the header lies about the file, or is no safetensors header at all.
    """
    with reading(path), path.open("rb") as file:
        size = path.stat().st_size
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= length <= min(size - 8, MAX_HEADER_BYTES):
            raise CorruptFileError(
                "not a whole safetensors file",
                where=f"{path}, header length (bytes 0 to 8)",
                expected=f"a header of 2 to {max(min(size - 8, MAX_HEADER_BYTES), 2)} bytes in a file of {size} bytes",
                found=f"a header of {length} bytes; the file looks like {describe_start(path)}",
                fix=AGAIN,
            )
        raw = file.read(length)
    try:
        table = parse_json_object(raw)
    except JsonProblemError as error:
        raise CorruptFileError(
            "the safetensors header is not sound JSON",
            where=f"{path}, bytes 8 to {8 + length}",
            expected="one JSON object with unique keys",
            found=f"{cut(str(error))}; the file looks like {describe_start(path)}",
            fix=AGAIN,
        ) from error
    metadata = _metadata(table.pop("__metadata__", {}), path)
    return metadata, _entries(table, path, size - 8 - length)


def _metadata(value: object, path: Path) -> dict[str, str]:
    if isinstance(value, dict) and all(isinstance(item, str) for item in value.values()):
        return value
    raise CorruptFileError(
        "the safetensors metadata is malformed",
        where=f"{path}, __metadata__",
        expected="an object of strings",
        found=short(value),
        fix=AGAIN,
    )


def _entries(table: Mapping[str, Any], path: Path, data_bytes: int) -> dict[str, Entry]:
    spans = sorted((_span(name, spec, path), name) for name, spec in table.items())
    entries: dict[str, Entry] = {}
    position = 0
    for (begin, end), name in spans:
        if begin != position:
            raise _lie(path, name, "data_offsets", f"begin {position}, where the tensor before it ends", str(begin))
        entries[name] = _entry(name, table[name], path, end - begin)
        position = end
    if position != data_bytes:
        raise CorruptFileError(
            "the file is truncated" if position > data_bytes else "the file holds bytes that no tensor owns",
            where=path,
            expected=f"{position} bytes of tensor data, as the header says",
            found=f"{data_bytes} bytes",
            fix=AGAIN,
        )
    return entries


def _span(name: str, spec: object, path: Path) -> tuple[int, int]:
    if not isinstance(spec, dict) or not {"dtype", "shape", "data_offsets"} <= spec.keys():
        raise _lie(path, name, "entry", "an object with dtype, shape and data_offsets", short(spec))
    offsets = spec["data_offsets"]
    if not _is_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _lie(path, name, "data_offsets", "[begin, end] with 0 <= begin <= end", short(offsets))
    return offsets[0], offsets[1]


def _entry(name: str, spec: Mapping[str, Any], path: Path, nbytes: int) -> Entry:
    dtype = DTYPES.get(spec["dtype"]) if isinstance(spec["dtype"], str) else None
    if dtype is None:
        raise _lie(path, name, "dtype", "one of " + ", ".join(DTYPES), short(spec["dtype"]))
    shape = spec["shape"]
    if not _is_sizes(shape) or len(shape) > MAX_RANK:
        raise _lie(path, name, "shape", f"at most {MAX_RANK} sizes from 0", short(shape))
    needed = math.prod(shape) * dtype.itemsize
    if needed != nbytes:
        raise _lie(path, name, "size", f"{needed} bytes for {spec['dtype']} {short(shape)}", f"{nbytes} bytes")
    return Entry(name, tuple(shape), dtype, nbytes, path)


def _is_sizes(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)


def _lie(path: Path, name: str, field: str, expected: str, found: str) -> CorruptFileError:
    return CorruptFileError(
        f"the safetensors header is wrong about the {field} of a tensor",
        where=f"{path}, tensor {short(name)}",
        expected=expected,
        found=found,
        fix=AGAIN,
    )
