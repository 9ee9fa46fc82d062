"""WebDataset tars as a list of items, each with its place in the tar, so that any of them can be read by itself."""

from __future__ import annotations

import glob
import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

from vaeport.dataset.items import Item
from vaeport.errors import InputError, MediaError
from vaeport.media.files import input_file
from vaeport.runtime.inputs import IMAGES

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def expanded(pattern: str) -> list[Path]:
    """The tars that a name with `*`, `{000..012}` or `{a,b}` stands for; InputError if there is none."""
    names = [name for one in _braced(pattern) for name in _matching(one)]
    if not names:
        raise InputError("no tar has such a name", where=pattern, expected="at least one file", found="none")
    return [Path(name) for name in names]


def _matching(name: str) -> list[str]:
    return sorted(glob.glob(name)) if glob.has_magic(name) else [name]  # noqa: PTH207 - an absolute pattern, too


def _braced(pattern: str) -> Iterator[str]:
    found = _BRACES.search(pattern)
    if found is None:
        yield pattern
        return
    numbers = _RANGE.fullmatch(found[1])
    if numbers:
        first, last = numbers.groups()
        step = 1 if int(first) <= int(last) else -1
        options = [f"{n:0{len(first)}d}" for n in range(int(first), int(last) + step, step)]
    else:
        options = found[1].split(",")
    for option in options:
        yield from _braced(pattern[: found.start()] + option + pattern[found.end() :])


def tar_items(path: Path, kinds: tuple[str, ...]) -> Iterator[Item]:
    """The items of one tar: files whose names agree up to the first dot are one item.

    The item is the file with one of the extensions `kinds`; its caption is in `.txt` or, as "caption", in `.json`.

    Raises InputError if a key has two such files, MediaError for a tar that is damaged or cut short.
    """
    file, size = input_file(path, InputError), path.stat().st_size
    media: dict[str, tuple[str, str, tuple[int, int]]] = {}
    captions: dict[str, str] = {}
    try:
        with tarfile.open(file, "r:") as tar:
            for member in tar:
                folder, _, base = member.name.rpartition("/")
                stem, _, extension = base.partition(".")
                key = f"{folder}/{stem}" if folder else stem
                if not member.isreg() or not stem:
                    continue
                if member.offset_data + member.size > size:
                    raise _damaged(path, f"{member.name} ends after the tar does")
                if f".{extension.lower()}" in kinds:
                    if key in media and _rank(media[key][1], kinds) == _rank(extension, kinds):
                        found = f"{media[key][0]} and {member.name}"
                        raise InputError("one key has two files", where=path, expected="one per key", found=found)
                    if key not in media or _rank(extension, kinds) < _rank(media[key][1], kinds):
                        media[key] = (member.name, extension, (member.offset_data, member.size))
                elif extension in ("txt", "json"):
                    stream = tar.extractfile(member)
                    assert stream is not None
                    captions.update(_caption(key, extension, stream.read()))
        _require_end(path, tar.offset)
    except (tarfile.TarError, OSError, ValueError) as error:
        raise _damaged(path, error) from error
    for key, (name, _, place) in media.items():
        yield Item(id=key, file=path, name=name, member=place, caption=captions.get(key, ""))


def _require_end(path: Path, offset: int) -> None:
    """MediaError unless the tar ends there, in zeros: `tarfile` takes what is no header for the end."""
    with path.open("rb") as stream:
        stream.seek(offset)
        block = stream.read(tarfile.BLOCKSIZE)
        if len(block) < tarfile.BLOCKSIZE:
            raise _damaged(path, f"it ends without a mark at byte {offset}")
        while block:
            if any(block):
                raise _damaged(path, f"after byte {offset} there is more, but no member")
            block = stream.read(1 << 20)


def _damaged(path: Path, found: object) -> MediaError:
    fix = "fetch or copy it again"
    return MediaError(
        "the tar cannot be read", where=path, expected="a whole tar, not compressed", found=found, fix=fix
    )


def _rank(extension: str, kinds: tuple[str, ...]) -> bool:
    """Whether it is a picture, which in the tar of a video VAE may be the preview of a clip."""
    return kinds != IMAGES and f".{extension.lower()}" in IMAGES


def _caption(key: str, extension: str, content: bytes) -> dict[str, str]:
    """The caption, if there is one; an odd `.json` beside the media is none of ours."""
    try:
        text = content.decode("utf-8")
        if extension == "txt":
            return {key: text.strip()}
        told = json.loads(text)
        return {key: told["caption"]} if isinstance(told, dict) and isinstance(told.get("caption"), str) else {}
    except ValueError:
        return {}
