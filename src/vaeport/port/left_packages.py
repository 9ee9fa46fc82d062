"""Files of installed packages that are not as they were installed: held against the hashes of their RECORD."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import sys
from collections.abc import Collection, Iterable, Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

from vaeport.port.leftover import Leftover, unchecked


def owners(files: Iterable[Path]) -> tuple[dict[Path, Distribution], list[Path]]:
    """The installed distribution whose RECORD lists each file, and the files that none lists."""
    found: dict[Path, Distribution] = {}
    rest = []
    for file in files:
        places = [Path(place) for place in sys.path if place and file.is_relative_to(place)]
        owner = next((one for place in places for one in distributions(path=[str(place)]) if _lists(one, file)), None)
        if owner is None:
            rest.append(file)
        else:
            found[file] = owner
    return found, rest


def package_leftovers(
    dist: Distribution, only: Collection[Path] | None = None, expected: Collection[Path] = ()
) -> Iterator[Leftover]:
    """Files that differ from the RECORD of their distribution, are gone, or stand in its folders unlisted.

    only        hash these files alone, and look for no others
    expected    files that may differ and stand there: the port's own
    """
    name = f"{dist.name} {dist.version}"
    if _is_editable(dist):
        yield unchecked(name, "it is an editable install", "see that its source tree is clean")
        return
    rows = list(_rows(dist))
    if not rows:
        yield unchecked(name, "it has no RECORD", f"pip install --force-reinstall {dist.name}")
        return
    fix = f"pip install --force-reinstall --no-deps {dist.name}=={dist.version}"
    wanted = None if only is None else {one.resolve() for one in only}
    for path, algorithm, digest in rows:
        file = Path(str(dist.locate_file(path)))
        if not digest or file in expected or (wanted is not None and file.resolve() not in wanted):
            continue
        if not file.is_file():
            yield Leftover("package", f"{name}: {path}", "the file is gone", fix)
        elif _digest(file, algorithm) != digest:
            yield Leftover("package", f"{name}: {path}", f"its {algorithm} differs from the RECORD", fix)
    if wanted is None:
        root = Path(str(dist.locate_file("")))
        theirs = {one.relative_to(root).as_posix() for one in expected if one.is_relative_to(root)}
        yield from _strays(dist, root, name, {path for path, _, _ in rows} | theirs)


def _strays(dist: Distribution, root: Path, name: str, listed: Collection[str]) -> Iterator[Leftover]:
    folders = {path.split("/")[0] for path in listed if "/" in path}
    folders = {one for one in folders if one != ".." and not one.endswith((".dist-info", ".data", "__pycache__"))}
    unlisted = [
        file
        for folder in sorted(folders)
        for file in sorted((root / folder).rglob("*"))
        if file.suffix != ".pyc" and not file.is_dir() and file.relative_to(root).as_posix() not in listed
    ]
    if not unlisted:
        return
    others = list(distributions(path=[str(root)]))
    for file in unlisted:
        if not any(_lists(other, file) for other in others):  # packages share namespaces
            where = f"{name}: {file.relative_to(root).as_posix()}"
            yield Leftover("package", where, "no RECORD lists this file", "remove it")


def _lists(dist: Distribution, file: Path) -> bool:
    root = Path(str(dist.locate_file("")))
    record = dist.read_text("RECORD") if file.is_relative_to(root) else None
    path = file.relative_to(root).as_posix() if record else ""
    return record is not None and any(
        f"{start}{path}{end}" in f"\n{record}" for start, end in (("\n", ","), ('\n"', '"'))
    )


def _rows(dist: Distribution) -> Iterator[tuple[str, str, str]]:
    """Path, hash algorithm and hash of each line of the RECORD; empty where the line has no hash."""
    for row in csv.reader((dist.read_text("RECORD") or "").splitlines()):
        if row:
            algorithm, _, digest = (row[1] if len(row) > 1 else "").partition("=")
            yield row[0], algorithm, digest


def _digest(file: Path, algorithm: str) -> str:
    with file.open("rb") as opened:
        held = hashlib.file_digest(opened, algorithm).digest()
    return base64.urlsafe_b64encode(held).rstrip(b"=").decode()


def _is_editable(dist: Distribution) -> bool:
    try:
        return bool(json.loads(dist.read_text("direct_url.json") or "{}").get("dir_info", {}).get("editable"))
    except ValueError:
        return False
