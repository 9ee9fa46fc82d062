"""What a source holds: a folder, WebDataset tars, or a list in Parquet or CSV."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vaeport.dataset.items import Item, Listing, listed
from vaeport.dataset.tars import expanded, tar_items
from vaeport.errors import BlockedError, InputError
from vaeport.media.files import extra, input_file
from vaeport.runtime.inputs import AUDIO, IMAGES

VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".flv", ".ogv", ".gif")
KINDS: Mapping[str, tuple[str, ...]] = {"image": IMAGES, "video": (*VIDEOS, *IMAGES), "audio": AUDIO}
"""extensions that a VAE of a modality takes; where a key has several, the first are preferred"""


def list_source(source: str | Path, modality: str) -> Listing:
    """All items of a source for a VAE of that modality.

    source  a folder, which is searched with all in it but what is hidden; a tar, or several by `*`, `{000..012}` or
            `{a,b}`; a `.csv` or `.parquet` with a column `path` or `file_name`, relative to its folder, and maybe `id`,
            `caption`

    Raises InputError for a source that is not there, is empty, has an id twice, or is not such a list; MediaError for a
    tar that is damaged; BlockedError if pyarrow is missing, or a folder cannot be searched.
    """
    kinds, path = KINDS[modality], Path(source)
    if path.is_dir():
        return _folder(path, kinds)
    if path.suffix.lower() in (".csv", ".parquet"):
        return listed("list", _list(input_file(path, InputError)), path)
    if path.name.lower().endswith((".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2")):
        raise InputError("a compressed tar cannot be read from its middle", where=path, fix="decompress it first")
    if path.suffix.lower() == ".tar":
        return listed("webdataset", (item for tar in expanded(str(source)) for item in tar_items(tar, kinds)), source)
    found = "another file" if path.exists() else "nothing"
    expected = "a folder, a .tar or several, a .csv or a .parquet"
    raise InputError("this is not a data set", where=source, expected=expected, found=found)


def _folder(folder: Path, kinds: tuple[str, ...]) -> Listing:
    files = sorted(_files(folder))
    media = [path for path in files if path.suffix.lower() in kinds]
    captions = {path for path in files if path.suffix == ".txt"}
    items = (
        Item(
            id=path.relative_to(folder).with_suffix("").as_posix(),
            file=path,
            name=path.relative_to(folder).as_posix(),
            caption=_text(path.with_suffix(".txt")) if path.with_suffix(".txt") in captions else "",
        )
        for path in media
    )
    return listed("folder", items, folder, len(files) - len(media) - len(captions))


def _files(folder: Path) -> Iterator[Path]:
    """All below a folder and not hidden; links are followed, but no folder is searched twice."""

    def refused(error: OSError) -> None:
        fix = "make it readable, or move it elsewhere"
        raise BlockedError("a folder cannot be searched", where=error.filename, found=error.strerror, fix=fix)

    def first(path: Path) -> bool:
        found = path.stat()
        known = (found.st_dev, found.st_ino) in seen
        seen.add((found.st_dev, found.st_ino))
        return not known

    seen = set[tuple[int, int]]()
    first(folder)
    for place, folders, names in os.walk(folder, onerror=refused, followlinks=True):
        here = Path(place)
        folders[:] = [name for name in sorted(folders) if not name.startswith(".") and first(here / name)]
        yield from (here / name for name in names if not name.startswith("."))


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("the caption cannot be read", where=path, expected="text in UTF-8", found=error) from error


def _list(path: Path) -> Iterator[Item]:
    for number, row in enumerate(_rows(path), 1):
        name = row.get("path") or row.get("file_name")
        if not isinstance(name, str) or not Path(name).name:
            where = f"{path}, row {number}"
            raise InputError("a row names no file", where=where, expected="a column `path` or `file_name`", found=name)
        told = row.get("id")
        key = Path(name).with_suffix("").as_posix() if told in (None, "") else str(told)
        yield Item(id=key, file=path.parent / name, name=name, caption=str(row.get("caption") or ""))


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    if path.suffix.lower() == ".csv":
        try:
            with path.open(newline="", encoding="utf-8-sig") as stream:
                yield from csv.DictReader(stream, strict=True)
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError("the list cannot be read", where=path, expected="CSV in UTF-8", found=error) from error
        return
    with extra("pyarrow", "dataset"):
        import pyarrow
        import pyarrow.parquet
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = [name for name in ("path", "file_name", "id", "caption") if name in file.schema_arrow.names]
            for batch in file.iter_batches(columns=names):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError("the list cannot be read", where=path, expected="a Parquet file", found=error) from error
