"""`vaeport decode`: a latent file into an image, video or audio file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from vaeport.cli.common import BudgetOption, Opener, progress, with_vae_options


@with_vae_options
def command(
    source: Annotated[Path, typer.Argument(help="Latent file that `vaeport encode` wrote.")],
    target: Annotated[Path, typer.Option("-o", "--output", help="File to write: .png, .mp4, .mkv, .wav, .flac, ...")],
    vae: Opener,
    budget: BudgetOption = None,
    preset: Annotated[
        str | None, typer.Option(help="Of x264, for .mp4: how long it may take; superfast by default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Decode latents into a file of exactly the size and length that was encoded."""
    from vaeport.runtime.files import decode_file

    loaded = vae(load_encoder=False)
    with progress("decoding") as advance:
        report = decode_file(loaded, source, target, budget=budget, preset=preset, progress=advance)
    result = {"file": str(report.file), "shape": list(report.shape), "notes": list(report.notes)}
    print(json.dumps(result, indent=2) if as_json else "\n".join(f"{k}: {v}" for k, v in result.items() if v))
