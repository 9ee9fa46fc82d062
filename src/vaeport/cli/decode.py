"""`vaeport decode`: a latent file into an image, video or audio file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from vaeport.cli.common import (
    DeviceOption,
    DtypeOption,
    FilenameOption,
    ModelOption,
    RevisionOption,
    SubfolderOption,
    VAEOption,
    VariantOption,
    WeightsOption,
    opened,
    progress,
)


def command(
    source: Annotated[Path, typer.Argument(help="Latent file that `vaeport encode` wrote.")],
    target: Annotated[Path, typer.Option("-o", "--output", help="File to write: .png, .mp4, .mkv, .wav, .flac, ...")],
    vae: VAEOption,
    subfolder: SubfolderOption = None,
    model: ModelOption = None,
    variant: VariantOption = None,
    weights_variant: WeightsOption = None,
    filename: FilenameOption = None,
    revision: RevisionOption = None,
    dtype: DtypeOption = None,
    device: DeviceOption = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Decode latents into a file of exactly the size and length that was encoded."""
    from vaeport.runtime.files import decode_file

    loaded = opened(
        vae,
        subfolder=subfolder,
        filename=filename,
        revision=revision,
        variant=weights_variant,
        model=model,
        model_variant=variant,
        dtype=dtype,
        device=device,
        load_encoder=False,
    )
    with progress("decoding") as advance:
        report = decode_file(loaded, source, target, progress=advance)
    result = {"file": str(report.file), "shape": list(report.shape), "notes": list(report.notes)}
    print(json.dumps(result, indent=2) if as_json else "\n".join(f"{k}: {v}" for k, v in result.items() if v))
