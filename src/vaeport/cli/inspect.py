"""`vaeport inspect`: what a checkpoint is and what it holds, from its headers alone."""

from __future__ import annotations

import atexit
import gc
import json
from pathlib import Path
from typing import Annotated

import typer

from vaeport.cli.common import WeightsOption


def command(
    file: Annotated[Path, typer.Argument(help="Weight file, shard index or component folder.")],
    weights_variant: WeightsOption = None,
    depth: Annotated[int, typer.Option(help="How many levels of names are shown.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say which VAE a checkpoint holds and how that shows, then its files, types, sizes and keys; reads no weights."""
    atexit.register(gc.freeze)  # or the interpreter looks for garbage in all of torch on its way out, for 0.4 s
    from vaeport.checkpoint import open_checkpoint, summarise
    from vaeport.runtime.inspection import inspect

    with open_checkpoint(file, variant=weights_variant) as checkpoint:
        inventory, identified = summarise(checkpoint), inspect(checkpoint)
    if as_json:
        print(json.dumps({**inventory.to_json(), "identified": identified.to_json()}, indent=2))
    else:
        print("\n".join([*identified.lines(), "", *inventory.lines(depth)]))
