"""`vaeport inspect`: what a checkpoint is and what it holds, from its headers alone."""

from __future__ import annotations

import atexit
import gc
from pathlib import Path
from typing import Annotated

import typer

from vaeport.cli.common import WeightsOption
from vaeport.cli.output import Show, with_output


@with_output
def command(
    show: Show,
    file: Annotated[Path, typer.Argument(help="Weight file, shard index or component folder.")],
    weights_variant: WeightsOption = None,
    depth: Annotated[int, typer.Option(help="How many levels of names are shown.")] = 3,
) -> None:
    """Say which VAE a checkpoint holds and how that shows, then its files, types, sizes and keys; reads no weights."""
    atexit.register(gc.freeze)  # or the interpreter looks for garbage in all of torch on its way out, for 0.4 s
    from vaeport.checkpoint import open_checkpoint, summarise
    from vaeport.runtime.inspection import inspect

    with open_checkpoint(file, variant=weights_variant) as checkpoint:
        inventory, identified = summarise(checkpoint), inspect(checkpoint)
    told = {**inventory.to_json(), "identified": identified.to_json()}
    show(told, [*identified.lines(), "", *inventory.lines(depth)])
