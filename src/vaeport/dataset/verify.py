"""Whether an output folder holds what its manifest says: every byte, and every item once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaeport.dataset.formats import WRITERS
from vaeport.dataset.log import OutputFile, Shard, committed
from vaeport.dataset.manifest import MANIFEST, QUARANTINE, listing_of, read_manifest
from vaeport.dataset.summary import Summary, status
from vaeport.errors import VaeportError


@dataclass(frozen=True)
class Verified:
    """What was looked at, and what is wrong with it: nothing, if the output is whole."""

    summary: Summary
    files: int
    bytes: int
    faults: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values, by name."""
        told = {"passed": not self.faults, "files": self.files, "bytes": self.bytes, "faults": list(self.faults)}
        return told | self.summary.to_json()


def verify(folder: str | Path) -> Verified:
    """Reads every file; DatasetError if it is no output of `vaeport dataset`."""
    folder = Path(folder)
    run, done = read_manifest(folder)["run"], committed(folder)
    files = [file for shard in done.values() for file in shard.files]
    faults = [*_faults(folder, run, done)]
    return Verified(status(folder), len(files), sum(file.bytes for file in files), tuple(faults))


def _faults(folder: Path, run: dict[str, Any], done: dict[int, Shard]) -> Iterator[str]:
    shards, layout = -(-run["source"]["items"] // run["settings"]["shard_items"]), run["settings"]["layout"]
    missing = [n for n in range(shards) if n not in done]
    if missing:
        yield f"{len(missing)} of {shards} shards are not committed, the first is {missing[0]}"
    manifest = read_manifest(folder)
    if not missing and not manifest["complete"]:
        yield "all shards are committed, but the manifest does not list them: run the same command again"
    if manifest["complete"]:
        yield from _differing(folder, manifest, done)
    ids: Counter[str] = Counter()
    for shard in done.values():
        ids.update([*shard.ids, *(one["id"] for one in shard.quarantined)])
        found, whole = list[str](), True
        for file in shard.files:
            fault = _fault(folder, file)
            if fault:
                yield f"{file.name}: {fault}"
                whole = False
                continue
            try:
                found += WRITERS[layout].ids(folder, file.name)
            except VaeportError as error:
                yield f"{file.name}: {error.what}: {error.found}"
                whole = False
        if whole and sorted(found) != sorted(shard.ids):
            yield f"shard {shard.shard} holds other items than the log says"
    twice = [key for key, times in ids.items() if times > 1]
    if twice:
        yield f"{len(twice)} items are there more than once, the first is {twice[0]!r}"
    if not missing and len(ids) != run["source"]["items"]:
        yield f"{len(ids)} items are there, of {run['source']['items']}"
    listed = {file.name for shard in done.values() for file in shard.files}
    for path in sorted(path for name in ("data", "latents") for path in (folder / name).rglob("*") if path.is_file()):
        if path.relative_to(folder).as_posix() not in listed and not path.match(".vaeport-*.partial"):
            yield f"{path.relative_to(folder)}: no committed shard holds it"


def _differing(folder: Path, manifest: dict[str, Any], done: dict[int, Shard]) -> Iterator[str]:
    listing, quarantine = listing_of(done.values())
    try:
        shards = [Shard.from_json(shard).to_json() for shard in manifest["shards"]]
        same = listing == {name: manifest[name] for name in listing} | {"shards": shards}
    except (KeyError, TypeError):
        same = False
    if not same:
        yield f"{MANIFEST} says otherwise than the log"
    try:
        same = (folder / QUARANTINE).read_bytes() == quarantine.encode()
    except OSError:
        same = False
    if not same:
        yield f"{QUARANTINE} says otherwise than the log"


def _fault(folder: Path, file: OutputFile) -> str | None:
    try:
        found = OutputFile.of(folder, file.name, file.items)
    except OSError as error:
        return error.strerror or str(error)
    if found.bytes != file.bytes:
        return f"{found.bytes} bytes, of {file.bytes}"
    return None if found.sha256 == file.sha256 else "its checksum is another"
