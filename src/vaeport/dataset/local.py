"""One process that makes its share of the shards: readers ahead of the encoder, the writer behind it."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from vaeport.closing import Closing
from vaeport.dataset.job import Job, Tell, items_in
from vaeport.dataset.making import Done, make_shards
from vaeport.dataset.readers import Opened, Read, Readers
from vaeport.dataset.reading import Reading
from vaeport.errors import InputError
from vaeport.media.files import extra
from vaeport.runtime.overlap import Ahead
from vaeport.vae import VAE


@dataclass(frozen=True)
class Resources:
    """What a process may use: nothing that it makes depends on it.

    readers     processes that read files ahead
    timeout     seconds that one may take for the next part of an item before it is replaced
    InputError for none, or no time.
    """

    readers: int = 2
    timeout: float = 60.0

    def __post_init__(self) -> None:
        if self.readers < 1 or not self.timeout > 0:
            found = f"readers = {self.readers}, timeout = {self.timeout}"
            raise InputError("nothing would be read", expected="readers >= 1, timeout > 0", found=found)


def run(job: Job, shards: Sequence[int], done: Done, resources: Resources, tell: Tell | None = None) -> None:
    """Makes these shards; `done` is called with each in a thread, when its files are whole. See `make_shards`."""
    require_libraries(job.vae)
    reading = Reading.of(job.settings, job.vae.contract.modality, pieces_of(job.vae))
    with opened_items(job, shards, reading, resources) as items:
        make_shards(job, shards, items, done, tell)


@contextmanager
def opened_items(job: Job, shards: Sequence[int], read: Read, resources: Resources) -> Iterator[Iterator[Opened]]:
    """The items of these shards, read ahead."""
    pin = job.vae.device.type == "cuda"
    settings = job.settings
    # what does not run in batches is not held whole, unless it is small
    most = settings.short if settings.batch > 1 else min(settings.short, 8 << 20)
    with (
        Readers(read, count=resources.readers, timeout=resources.timeout, pin=pin) as readers,
        Ahead(readers.opened(items_in(job, shards), most), max(2, settings.batch)) as ahead,
        _first(readers),
    ):
        yield ahead


@contextmanager
def _first(readers: Closing) -> Iterator[None]:
    """Ends the readers before the thread that waits for them."""
    try:
        yield
    finally:
        readers.close()


def pieces_of(vae: VAE) -> tuple[int, int]:
    """Frames or samples of the first piece and of every other, in which the VAE is given media."""
    if vae.contract.modality == "audio":
        size = 16 * vae.contract.axes[0].multiple
        return size, size
    return vae.encode_pieces or (1, 4)


def require_libraries(vae: VAE) -> None:
    """BlockedError if what reads the VAE's media is not installed: that is no fault of any item."""
    names = {"image": [("pillow", "PIL", "video")], "audio": [("soundfile", "soundfile", "audio")]}
    video = [("av", "av", "video"), ("pillow", "PIL", "video")]
    for package, module, name in names.get(vae.contract.modality, video):
        with extra(package, name):
            importlib.import_module(module)
