"""`vaeport decode`: a latent file into an image, video or audio file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vaeport.cli.common import BudgetOption, Opener, progress, with_vae_options
from vaeport.cli.output import Show, with_output


@with_output
@with_vae_options
def command(
    show: Show,
    source: Annotated[Path, typer.Argument(help="Latent file that `vaeport encode` wrote.")],
    vae: Opener,
    target: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="File to write: .png, .mp4, .mkv, .wav, ...; NAME-decoded, if left out."),
    ] = None,
    budget: BudgetOption = None,
    preset: Annotated[
        str | None, typer.Option(help="Of x264, for .mp4: how long it may take; superfast by default.")
    ] = None,
) -> None:
    """Decode latents into a file of exactly the size and length that was encoded."""
    from vaeport.runtime.files import decode_file, named

    target = target or named(source)
    loaded = vae(load_encoder=False)
    with progress("decoding") as advance:
        report = decode_file(loaded, source, target, budget=budget, preset=preset, progress=advance)
    result = {"file": str(report.file), "shape": list(report.shape), "notes": list(report.notes)}
    show(result, [f"{k}: {v}" for k, v in result.items() if v])
