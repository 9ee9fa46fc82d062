"""A shard index: which tensor lies in which file, all of them beside the index."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath

from vaeport.checkpoint.entry import Entry
from vaeport.checkpoint.files import describe_start, exists, reading, require_file
from vaeport.checkpoint.strict_json import JsonProblemError, parse_json_object
from vaeport.checkpoint.text import cut, listing, short
from vaeport.errors import CorruptFileError

MAX_INDEX_BYTES = 100_000_000


def read_index(index: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Read and check an index: the file of each tensor name, and the index's own metadata as strings.

    Raises:
        CorruptFileError: malformed, a shard is missing, or a shard lies outside the index's folder.
    """
    with reading(index):
        size = require_file(index).stat().st_size
        raw = index.read_bytes() if size <= MAX_INDEX_BYTES else b""
    try:
        if size > MAX_INDEX_BYTES:
            raise JsonProblemError(f"{size} bytes, more than any index has")
        table = parse_json_object(raw)
    except JsonProblemError as error:
        raise _malformed(index, f"{cut(str(error))}; the file looks like {describe_start(index)}") from error
    weight_map = table.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise _malformed(index, f"weight_map is {short(weight_map)}")
    wrong = next((name for name, shard in weight_map.items() if not isinstance(shard, str)), None)
    if wrong is not None:
        raise _malformed(index, f"weight_map[{short(wrong)}] is {short(weight_map[wrong])}")
    shards = {shard: _shard(index, shard) for shard in sorted(set(weight_map.values()))}
    missing = [cut(name, 80) for name, path in shards.items() if not (exists(path) and path.is_file())]
    if missing:
        raise CorruptFileError(
            "shards named by the index are missing",
            where=index,
            expected=f"{len(shards)} shards beside the index",
            found=f"{len(missing)} missing: {listing(missing)}",
            fix="download the missing shards",
        )
    metadata = table.get("metadata")
    own = {key: str(value) for key, value in metadata.items()} if isinstance(metadata, dict) else {}
    return {name: shards[shard] for name, shard in weight_map.items()}, own


def require_agreement(index: Path, weight_map: Mapping[str, Path], entries: Mapping[str, Entry]) -> None:
    """Check that every tensor of the index lies in the shard the index names.

    Raises:
        CorruptFileError: the index and the shards disagree.
    """
    wrong = [name for name, file in weight_map.items() if name not in entries or entries[name].file != file]
    if wrong:
        name = wrong[0]
        actual = f"it lies in {entries[name].file.name}" if name in entries else "no shard holds it"
        raise CorruptFileError(
            f"the index and its shards disagree about {len(wrong)} tensor(s)",
            where=f"{index}, tensor {short(name)}",
            expected=f"in {weight_map[name].name}",
            found=actual,
            fix="download the index and its shards again, from one revision",
        )


def _malformed(index: Path, found: str) -> CorruptFileError:
    return CorruptFileError(
        "the shard index is malformed",
        where=index,
        expected='a JSON object with "weight_map": {tensor name: file name}',
        found=found,
        fix="download the index again",
    )


def _shard(index: Path, shard: str) -> Path:
    pure = PurePosixPath(shard)
    plain = not (pure.is_absolute() or ".." in pure.parts or "\\" in shard or "\0" in shard or not pure.parts)
    file = index.parent / pure
    try:
        inside = plain and not PureWindowsPath(shard).drive and _is_inside(file, index.parent)
    except (OSError, RuntimeError, ValueError):  # a loop of links, a name too long for the disk
        inside = False
    if inside:
        return file
    raise CorruptFileError(
        "the index points outside its folder; nothing was opened there",
        where=index,
        expected="shards beside the index",
        found=short(shard) + (f", a link to {file.readlink()}" if plain and file.is_symlink() else ""),
        fix="put the shards themselves beside the index, and their names in it",
    )


def _is_inside(file: Path, folder: Path) -> bool:
    """Links count as inside only in a Hub cache, where every file is a link into the blobs of the same repository."""
    roots = [folder.resolve()]
    roots += [
        (parent.parent / "blobs").resolve()
        for parent in folder.absolute().parents
        if parent.name == "snapshots" and "--" in parent.parent.name
    ]
    return any(file.resolve().is_relative_to(root) for root in roots)
