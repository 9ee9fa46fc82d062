"""Items to latents: buckets of one shape, batches, and what becomes of an item that cannot be encoded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vaeport.dataset.inputs import Batch, input_of
from vaeport.dataset.items import Item
from vaeport.dataset.readers import Opened, ReaderLostError
from vaeport.dataset.settings import Settings
from vaeport.errors import InputError, MediaError, VaeportError
from vaeport.media import HostCopies, Source
from vaeport.runtime.passes import is_out_of_memory
from vaeport.vae import VAE


@dataclass(frozen=True)
class Record:
    """The latents of one item, [C, ...] in host memory, and what they are of.

    source      sizes as they were encoded, before padding, as latent files have it
    original    (height, width) in the file
    """

    item: Item
    latents: Tensor
    source: Source
    original: tuple[int, int] | None = None
    seed: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Quarantined:
    """An item that could not be read or encoded, and why."""

    item: Item
    error: VaeportError

    def to_json(self) -> dict[str, Any]:
        """Plain text, by name."""
        e = self.error
        told = {"reason": e.what, "expected": e.expected, "found": e.found, "fix": e.fix}
        return {"id": self.item.id, "file": self.item.place} | {k: str(v) for k, v in told.items() if v is not None}


Outcome = Record | Quarantined
Finish = Callable[[], list[Outcome]]
"""waits for what the device was told to make"""


@dataclass
class Encoding:
    """Encodes the items of one shard, in their order or, if they come in batches, bucket by bucket.

    most    bytes of media that may wait in buckets; the fullest is encoded then
    """

    vae: VAE
    settings: Settings
    most: int = 1 << 30
    _buckets: dict[tuple[Any, ...], list[Opened]] = field(default_factory=dict)
    _copies: HostCopies = field(default_factory=HostCopies)

    def begun(self, items: Iterable[Opened]) -> Iterator[Finish]:
        """Has the device encode batch after batch; each gives the outcomes of its items, once it is done."""
        return map(self._begun, self._batches(items))

    def _batches(self, items: Iterable[Opened]) -> Iterator[list[Opened]]:
        for opened in items:
            if opened.failure is not None or not opened.whole or self.settings.batch == 1:
                yield [opened]
                continue
            bucket = self._buckets.setdefault(_shape(opened), [])
            bucket.append(opened)
            if len(bucket) == self.settings.batch:
                yield self._buckets.pop(_shape(opened))
            while sum(map(_size, self._buckets.values())) > self.most:
                yield self._buckets.pop(max(self._buckets, key=lambda k: _size(self._buckets[k])))
        while self._buckets:
            yield self._buckets.pop(next(iter(self._buckets)))

    def _begun(self, batch: list[Opened]) -> Finish:
        """Has the device encode a batch; the outcomes, once it has, or if it fails, those of each item alone."""
        held = all(one.whole for one in batch)
        while True:
            try:
                records = self._run(batch)
                break
            except ReaderLostError as lost:  # of an item alone: those of a batch are held whole
                batch[0].again(lost)
                batch[0].prefetch(1)
                continue
            except (InputError, MediaError) as error:
                failure: VaeportError = error
            except (MemoryError, RuntimeError) as error:
                if not (isinstance(error, MemoryError) or is_out_of_memory(error)):
                    raise
                fix = "take less of it by --size and --frames, leave out --graphs, or use another --dtype or device"
                failure = InputError("encoding it takes more memory than there is", where=batch[0].item.place, fix=fix)
                if held and self.vae.drop_graphs():
                    continue
            # not where it was caught: what failed would be held, with all that it had made
            return self._apart(batch, failure.with_traceback(None))

        def finish() -> list[Outcome]:
            try:
                return list(records())
            except InputError as error:
                failure = error
            return self._apart(batch, failure.with_traceback(None))()

        return finish

    def _apart(self, batch: list[Opened], error: VaeportError) -> Finish:
        """What becomes of a batch that failed; nothing of it is left with a reader."""
        if len(batch) == 1:
            batch[0].drain()
            quarantined = Quarantined(batch[0].item, error)
            return lambda: [quarantined]
        outcomes = [outcome for one in batch for outcome in self._begun([one])()]
        return lambda: outcomes

    def _run(self, batch: list[Opened]) -> Callable[[], Iterator[Record]]:
        vae, settings = self.vae, self.settings
        seeds = [settings.seed_of(one.item.id) for one in batch]
        noise = [None if seed is None else torch.Generator(vae.device).manual_seed(seed) for seed in seeds]
        with Batch([input_of(vae, one, resample=settings.resample, upmix=settings.upmix) for one in batch]) as media:
            pieces = media.pieces()
            dists = vae.stream_encode(pieces) if media.streams else (vae.encode(x).latent_dist for x in pieces)
            # noise is drawn for each item as if it were alone
            parts = [
                d.mode()
                if settings.seed is None
                else torch.cat([vae._posterior(m).sample(g) for m, g in zip(d.parameters.split(1), noise, strict=True)])
                for d in dists
            ]
            if not parts:
                raise MediaError("there is nothing to encode", where=batch[0].item.place, found="no frame or sample")
            latents = torch.cat(parts, 2) if len(parts) > 1 else parts[0]
            latents = vae.normalize(latents) if settings.normalize else latents
            wait = self._copies.start(latents, latents.flatten(1).isfinite().all(1))
            read = [(one.head, part.source(), tuple(part.notes)) for one, part in zip(batch, media.inputs, strict=True)]

        def records() -> Iterator[Record]:
            for one, z, finite, seed, (head, source, notes) in zip(batch, *wait(), seeds, read, strict=True):
                if not finite:
                    fix = "encode in float32 or bfloat16, and check the checkpoint"
                    raise InputError("the latents are not finite", where=one.item.place, found=f"in {z.dtype}", fix=fix)
                # a file's latents wait for each other, and pinned memory is scarce
                z = z.clone() if z.is_pinned() else z.contiguous()
                yield Record(one.item, z, source, head.original if head else None, seed, notes)

        return records


def _shape(opened: Opened) -> tuple[Any, ...]:
    """What decides whether two items can be of one batch."""
    head = opened.head
    assert head is not None
    return (head.kind, head.rate if head.kind == "audio" else 0, *(tuple(part.shape) for part in opened.held))


def _size(bucket: Iterable[Opened]) -> int:
    return sum(part.nbytes for one in bucket for part in one.held)
