"""What an output folder holds so far, by its manifest and its log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaeport.dataset.lock import in_turn
from vaeport.dataset.log import Log, committed
from vaeport.dataset.manifest import complete, read_manifest, reopen


@dataclass(frozen=True)
class Summary:
    """An output folder.

    items, quarantined      in all committed shards; `of_items` are to be
    shards, of_shards       committed, and in all
    """

    folder: Path
    items: int
    quarantined: int
    of_items: int
    shards: int
    of_shards: int

    @property
    def complete(self) -> bool:
        """Whether all shards are committed."""
        return self.shards == self.of_shards

    def to_json(self) -> dict[str, Any]:
        """Plain values, by name."""
        return {
            "folder": str(self.folder),
            "complete": self.complete,
            "items": self.items,
            "quarantined": self.quarantined,
            "of_items": self.of_items,
            "shards": self.shards,
            "of_shards": self.of_shards,
        }


def status(folder: str | Path) -> Summary:
    """What is committed in an output folder; DatasetError if it is none."""
    folder = Path(folder)
    run = read_manifest(folder)["run"]
    done = committed(folder)
    of = run["source"]["items"]
    return Summary(
        folder,
        sum(len(shard.ids) for shard in done.values()),
        sum(len(shard.quarantined) for shard in done.values()),
        of,
        len(done),
        -(-of // run["settings"]["shard_items"]),
    )


def withdraw(folder: Path, log: Log, shards: Sequence[int]) -> None:
    """Of shards that are to be made, those that are committed are no longer: their files are about to go."""
    with in_turn(folder):
        old = sorted(committed(folder).keys() & set(shards))
        if old:
            reopen(folder)
            log.withdraw(old)


def concluded(folder: Path) -> Summary:
    """The same; if all is committed, the manifest is completed. Of several ranks the last one finds it so."""
    with in_turn(folder):
        found = status(folder)
        if found.complete:
            complete(folder, committed(folder).values())
    return found
