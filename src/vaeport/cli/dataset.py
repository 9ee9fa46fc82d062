"""`vaeport dataset`: videos, images or recordings into a folder of latents."""

from __future__ import annotations

import functools
import re
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from vaeport.cli.common import Opener, say, with_vae_options, without_weights
from vaeport.cli.output import Show, with_output
from vaeport.errors import InputError

_SPAN = {True: 0.5, False: 10.0}
"""seconds between two lines of progress, on a terminal and elsewhere"""


@with_output
@with_vae_options
def command(
    show: Show,
    source: Annotated[str, typer.Argument(help="Folder, WebDataset tar(s), or list (.csv, .parquet).")],
    target: Annotated[Path | None, typer.Option("-o", "--output", help="Folder to write.")] = None,
    vae: Opener | None = None,
    layout: Annotated[str, typer.Option("--as", help="parquet, webdataset or safetensors.")] = "parquet",
    batch: Annotated[int, typer.Option(help="Items of one shape that are encoded together.")] = 1,
    sample: Annotated[int | None, typer.Option(help="Sample the posterior with this seed; otherwise its mode.")] = None,
    normalize: Annotated[bool, typer.Option(help="Apply the family's latent normalisation.")] = False,
    size: Annotated[str | None, typer.Option(help="HEIGHTxWIDTH: scale and crop to the middle.")] = None,
    frames: Annotated[int | None, typer.Option(help="The first so many frames of each clip.")] = None,
    fps: Annotated[str | None, typer.Option(help="Frames per second to take of each clip.")] = None,
    resample: Annotated[bool, typer.Option("--resample", help="Convert audio of another sample rate.")] = False,
    upmix: Annotated[bool, typer.Option("--upmix", help="Use a mono recording for every channel.")] = False,
    shard_items: Annotated[int, typer.Option(help="Items that are committed at once.")] = 64,
    shard_size: Annotated[str, typer.Option(help="Size from which another file is begun.")] = "256MiB",
    engine: Annotated[str, typer.Option(help="local, or ray for a cluster.")] = "local",
    workers: Annotated[int | None, typer.Option(help="Encoding processes, or actors of Ray.")] = None,
    readers: Annotated[int, typer.Option(help="Reading processes beside each of them.")] = 2,
    timeout: Annotated[float, typer.Option(help="Seconds after which a reader that gives nothing is replaced.")] = 60,
    retry: Annotated[bool, typer.Option("--retry", help="Try again what was quarantined.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="SRC is an output: read it and check it.")] = False,
    status: Annotated[bool, typer.Option("--status", help="SRC is an output: say what is done.")] = False,
) -> None:
    """Encode a data set; the same command goes on where it was interrupted. Exit code 1 if items were quarantined."""
    if verify:
        _verify(show, source)
        return
    if status:
        _status(show, source)
        return
    if vae is None or target is None or getattr(vae, "func", None) is without_weights:
        raise InputError("what is to be encoded, and whereto?", expected="SRC -o OUT --vae VAE")

    from vaeport.dataset import Settings, encode_dataset
    from vaeport.dataset.local import Resources
    from vaeport.dataset.share import share_of_torchrun
    from vaeport.runtime.parallel import bytes_of

    settings = Settings(
        layout=layout,  # type: ignore[arg-type]  # looked at there
        batch=batch,
        seed=sample,
        normalize=normalize,
        size=None if size is None else _size(size),
        frames=frames,
        fps=fps,
        resample=resample,
        upmix=upmix,
        shard_items=shard_items,
        shard_bytes=bytes_of(shard_size),
    )
    telling = _Telling()
    found = encode_dataset(
        functools.partial(vae, load_decoder=False),
        source,
        target,
        settings,
        engine=engine,  # type: ignore[arg-type]  # looked at there
        workers=workers,
        resources=Resources(readers, timeout),
        retry=retry,
        tell=telling.done,
        total=telling.add,
    )
    telling.end()
    result = found.to_json() | {"encoded_now": telling.items, "seconds": round(telling.seconds, 3)}
    lines = [f"{found.items} items in {found.folder}, {found.shards} of {found.of_shards} shards"]
    if telling.items:
        lines.append(f"{telling.items} done now, {telling.items / telling.seconds:.2f} items/s")
    if found.quarantined:
        lines.append(f"{found.quarantined} quarantined: see quarantine.jsonl there; --retry tries them again")
    show(result, lines)
    if found.quarantined and found.complete and share_of_torchrun() is None:  # it would end the other ranks
        raise typer.Exit(1)


def _verify(show: Show, folder: str) -> None:
    from vaeport.dataset import verify

    found = verify(folder)
    what = f"{found.summary.items} items in {found.files} files, {found.bytes} bytes"
    lines = [f"{what}: {'whole' if not found.faults else 'not whole'}", *found.faults]
    show(found.to_json(), lines)
    if found.faults:
        raise typer.Exit(1)


def _status(show: Show, folder: str) -> None:
    from vaeport.dataset import status

    found = status(folder)
    done = "complete" if found.complete else "not complete: run the same command again"
    lines = [
        f"{found.items + found.quarantined} of {found.of_items} items, {found.shards} of {found.of_shards} shards",
        f"{found.quarantined} quarantined",
        done,
    ]
    show(found.to_json(), lines)


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    if found is None:
        raise InputError("--size is no size", expected="HEIGHTxWIDTH, such as 480x832", found=text)
    return int(found[1]), int(found[2])


class _Telling:
    """Says on stderr how far it is: on a terminal in one line."""

    def __init__(self) -> None:
        self.items = self.quarantined = self.total = 0
        self._terminal = sys.stderr.isatty()
        self._start = self._last = time.monotonic()

    @property
    def seconds(self) -> float:
        return max(time.monotonic() - self._start, 1e-9)

    def add(self, items: int) -> None:
        if not self.total:
            self._start = time.monotonic()
        self.total += items

    def done(self, items: int, quarantined: int) -> None:
        """So many more items are written, or quarantined."""
        self.items += items
        self.quarantined += quarantined
        if time.monotonic() - self._last >= _SPAN[self._terminal]:
            self._last = time.monotonic()
            self._say()

    def end(self) -> None:
        if self._terminal and self.items:
            self._say()
            say("")

    def _say(self) -> None:
        rate = self.items / self.seconds
        left = (self.total - self.items) / rate if rate else 0
        bad = f", {self.quarantined} quarantined" if self.quarantined else ""
        minutes, seconds = divmod(round(left), 60)
        text = f"{self.items} of {self.total} items{bad}, {rate:.2f} items/s, {minutes}:{seconds:02d} left"
        if self._terminal:
            print(f"\r{text}\x1b[K", end="", file=sys.stderr, flush=True)
        else:
            say(text)
