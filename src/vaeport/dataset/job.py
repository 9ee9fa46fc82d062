"""A run of a data set: its shards, and which of them are left."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from vaeport.dataset.formats import WRITERS
from vaeport.dataset.formats.layout import ShardWriter
from vaeport.dataset.items import Item, require_names
from vaeport.dataset.log import Shard, committed
from vaeport.dataset.manifest import claim, made_with, run_of
from vaeport.dataset.settings import Settings
from vaeport.dataset.sources import list_source
from vaeport.errors import DatasetError
from vaeport.media import LatentHeader, Source
from vaeport.registry import ModelRegistry
from vaeport.vae import VAE

Tell = Callable[[int, int], None]
"""Called with the items that are done since the last call, and how many of them were quarantined."""


@dataclass
class Job:
    """One data set on its way into a folder. Making it lists the source, and claims the folder.

    Raises InputError or MediaError for a source that cannot be listed, DatasetError for a folder of another run,
    BlockedError for one that cannot be written.
    """

    vae: VAE
    source: str | Path
    folder: Path
    settings: Settings
    items: Sequence[Item] = field(init=False)
    left_out: int = field(init=False)

    def __post_init__(self) -> None:
        self.vae._half("encoder")
        listing = list_source(self.source, self.vae.contract.modality)
        self.items, self.left_out = listing.items, listing.left_out
        if self.settings.layout != "parquet":
            require_names(self.items)
        self.run = run_of(self.vae, listing, self.settings)
        claim(self.folder, self.run, made_with(self.vae))
        self._require_same_items()

    @property
    def shards(self) -> int:
        """How many there are."""
        return -(-len(self.items) // self.settings.shard_items)

    def items_of(self, shard: int) -> Sequence[Item]:
        """The items of one shard."""
        n = self.settings.shard_items
        return self.items[shard * n : (shard + 1) * n]

    def left(self, retry: bool = False) -> list[int]:
        """Shards that are not committed, or whose files are not there; `retry`: and those with quarantined items."""
        done = committed(self.folder)

        def good(shard: Shard) -> bool:
            return all(file.is_there(self.folder) for file in shard.files) and not (retry and shard.quarantined)

        return [n for n in range(self.shards) if n not in done or not good(done[n])]

    def _require_same_items(self) -> None:
        """DatasetError if what was encoded is not what the source holds now; what was quarantined may be mended."""
        for shard in committed(self.folder).values():
            if not shard.sizes:
                continue  # a line of an earlier version
            items = {item.id: item for item in self.items_of(shard.shard)}
            for key, size in zip(shard.ids, shard.sizes, strict=True):
                if items[key].size != size:
                    raise DatasetError(
                        "an item is another than the one that was encoded",
                        where=items[key].place,
                        expected=f"{size} bytes",
                        found="no file" if items[key].size is None else f"{items[key].size} bytes",
                        fix="give the source that the folder was begun with, or write to another folder",
                    )

    @cached_property
    def _header(self) -> LatentHeader:
        return LatentHeader(
            model=ModelRegistry.find_class(type(self.vae)).name,
            class_name=type(self.vae).__name__,
            contract=self.vae.contract.to_json(),
            posterior=self.run["latents"]["posterior"],
            normalized=self.run["latents"]["normalized"],
            source=Source(modality="image", height=1, width=1),
            dtype=self.run["vae"]["dtype"],
            weights_hash=self.run["vae"]["encoder_sha256"],
        )

    def writer(self, shard: int) -> ShardWriter:
        """What writes the files of a shard."""
        options = (self._header, self._provenance, self.settings.shard_bytes)
        return WRITERS[self.settings.layout](self.folder, shard, *options)

    @cached_property
    def _provenance(self) -> dict[str, str]:
        return {f"vaeport.{name}": json.dumps(told, sort_keys=True) for name, told in self.run.items()}


def items_in(job: Job, shards: Iterable[int]) -> Iterator[Item]:
    """The items of several shards, in their order."""
    for shard in shards:
        yield from job.items_of(shard)
