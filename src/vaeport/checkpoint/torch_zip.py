"""The zip archive around a pickle: torch maps its records in place without looking, so they are looked at here."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch

from vaeport.checkpoint.files import reading
from vaeport.checkpoint.text import cut, listing, short
from vaeport.errors import CorruptFileError, UnsafePickleError


def is_zip(path: Path) -> bool:
    """Whether torch will take the file for a zip archive: it looks at the first bytes alone."""
    with reading(path), path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def storage_sizes(path: Path, size: int) -> Counter[int]:
    """Sizes of the storages in a torch zip, which must lie in it uncompressed, since they are mapped in place."""
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
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
    for record in records:
        where = f"{short(record.filename)}: "
        if record.compress_type != zipfile.ZIP_STORED or record.compress_size != record.file_size:
            raise _bad_zip(path, "records stored uncompressed, as torch.save does", where + "compressed")
        if record.header_offset + record.file_size > size:
            raise _bad_zip(path, f"records inside the {size} bytes", f"{where}{record.file_size} bytes")
    if len(set(names)) != len(names):
        raise _bad_zip(path, "unique names", f"{short(Counter(names).most_common(1)[0][0])} twice")
    return Counter(record.file_size for record in records if "/data/" in record.filename)


def _bad_zip(path: Path, expected: str, found: str) -> CorruptFileError:
    return CorruptFileError(
        "the zip archive is not as torch.save writes it",
        where=path,
        expected=expected,
        found=found,
        fix="download or copy the file again, or load it with torch.load(FILE, weights_only=True) and save it anew",
    )


def require_storages(tensors: Mapping[str, torch.Tensor], records: Counter[int], path: Path) -> None:
    """A mapped storage may claim more bytes than its record has; torch does not look, so its size is compared here."""
    claimed = {(t.untyped_storage().data_ptr(), t.untyped_storage().nbytes()): name for name, t in tensors.items()}
    for size, count in Counter(nbytes for _, nbytes in claimed if nbytes).items():
        if count > records[size]:
            name = next(name for (_, nbytes), name in claimed.items() if nbytes == size)
            raise CorruptFileError(
                "a tensor claims bytes that its storage does not have",
                where=f"{path}, tensor {short(name)}",
                expected=f"a storage of {size} bytes in the archive",
                found=f"storages of {listing([str(n) for n in sorted(records)])} bytes",
                fix="download or copy the file again",
            )
