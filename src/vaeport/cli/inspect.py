"""`vaeport inspect`: what a checkpoint holds, from its headers alone."""

from __future__ import annotations

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
    """Show files, types, sizes and keys of a checkpoint without reading its weights."""
    from vaeport.checkpoint import open_checkpoint, summarise

    with open_checkpoint(file, variant=weights_variant) as checkpoint:
        inventory = summarise(checkpoint)
    print(json.dumps(inventory.to_json(), indent=2) if as_json else "\n".join(inventory.lines(depth)))
