"""The zip archive around a pickle: torch maps its records in place without looking, so they are looked at here."""

from __future__ import annotations

import mmap
import struct
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import torch

from vaeport.checkpoint.files import reading
from vaeport.checkpoint.text import cut, short
from vaeport.errors import CorruptFileError, UnsafePickleError


def is_zip(path: Path) -> bool:
    """Whether torch will take the file for a zip archive: it looks at the first bytes alone."""
    with reading(path), path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def storage_records(path: Path, size: int) -> dict[int, int]:
    """Bytes of each storage in a torch zip by its offset in the file.

    Raises:
        UnsafePickleError: the archive is a TorchScript program.
        CorruptFileError: a record is compressed, doubled, or not where the archive says.
    """
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            records = archive.infolist()
            offsets = [_offset(record, file) for record in records]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
        raise _bad_zip(path, "a sound zip archive", cut(str(error))) from error
    names = [record.filename for record in records]
    if any(name.partition("/")[2] == "constants.pkl" for name in names):
        raise UnsafePickleError(
            "a TorchScript archive is a program; it was not run",
            where=path,
            expected="a file written by torch.save",
            found="constants.pkl in the archive",
            fix='where you trust the file: torch.save(torch.jit.load(FILE).state_dict(), "weights.pt")',
        )
    if len(set(names)) != len(names):
        raise _bad_zip(path, "unique names", f"{short(Counter(names).most_common(1)[0][0])} twice")
    for record, offset in zip(records, offsets, strict=True):
        name = short(record.filename)
        if record.compress_type != zipfile.ZIP_STORED or record.compress_size != record.file_size:
            raise _bad_zip(path, "records stored as they are, which torch.save does", f"{name} compressed")
        if offset + record.file_size > size:
            raise _bad_zip(path, f"records inside the {size} bytes", f"{name} ends beyond")
    return {
        offset: record.file_size
        for record, offset in zip(records, offsets, strict=True)
        if "/data/" in record.filename and record.file_size
    }


def _offset(record: zipfile.ZipInfo, file: IO[bytes]) -> int:
    """Where the values of a record start, by the record's own header, which is the one that torch follows."""
    file.seek(record.header_offset)
    header = file.read(30)
    name_length, extra_length = struct.unpack("<HH", header[26:30])
    name = record.orig_filename.encode("utf-8" if record.flag_bits & 0x800 else "cp437")
    if not header.startswith(b"PK\x03\x04") or file.read(name_length) != name:
        raise ValueError(f"no header of {short(record.filename)} at byte {record.header_offset}")
    return record.header_offset + 30 + int(name_length) + int(extra_length)


def _bad_zip(path: Path, expected: str, found: str) -> CorruptFileError:
    return CorruptFileError(
        "the zip archive is not as torch.save writes it",
        where=path,
        expected=expected,
        found=found,
        fix="download or copy the file again, or load it with torch.load(FILE, weights_only=True) and save it anew",
    )


def require_storages(tensors: Mapping[str, torch.Tensor], records: Mapping[int, int], path: Path) -> None:
    """Check that each mapped storage is one whole record.

    A pickle may claim more bytes than a record has, and torch then maps whatever lies behind it. All storages are
    slices of one mapping, which starts on a page; so one page must turn all their addresses into offsets of records.

    Raises:
        CorruptFileError: some storage is no record.
    """
    storages = {(t.untyped_storage().data_ptr(), t.untyped_storage().nbytes()): name for name, t in tensors.items()}
    claims = {address: (nbytes, name) for (address, nbytes), name in storages.items() if nbytes}
    if not claims:
        return
    first = min(claims)
    starts = [first - offset for offset, nbytes in records.items() if nbytes == claims[first][0]]
    aligned = [start for start in starts if start % mmap.PAGESIZE == 0]
    if any(all(records.get(at - start) == nbytes for at, (nbytes, _) in claims.items()) for start in aligned):
        return
    sizes = set(records.values())
    odd = [name for nbytes, name in claims.values() if nbytes not in sizes]
    raise CorruptFileError(
        "the checkpoint's tensors do not lie in its storages",
        where=f"{path}, tensor {short(odd[0])}" if odd else path,
        expected="each storage to be one whole record of the archive",
        found="a storage of a size that no record has" if odd else "storages that start or end inside records",
        fix="download or copy the file again",
    )
