"""`vaeport encode`: an image, video or audio file into a latent file."""

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
    source: Annotated[Path, typer.Argument(help="Image, video or audio file.")],
    vae: Opener,
    target: Annotated[
        Path | None, typer.Option("-o", "--output", help="Latent file; SOURCE's name with .safetensors, if left out.")
    ] = None,
    sample: Annotated[int | None, typer.Option(help="Sample the posterior with this seed; otherwise its mode.")] = None,
    normalize: Annotated[bool, typer.Option(help="Apply the family's latent normalisation.")] = False,
    resample: Annotated[bool, typer.Option("--resample", help="Convert audio of another sample rate.")] = False,
    upmix: Annotated[bool, typer.Option("--upmix", help="Use a mono recording for every channel.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Decode again and compare with the input.")] = False,
    budget: BudgetOption = None,
) -> None:
    """Encode a file into latents; sizes and lengths that break the model's rule are padded, and decoding crops them."""
    from vaeport.runtime.files import compare_files, encode_file

    target = target or Path(source.name).with_suffix(".safetensors")
    loaded = vae(load_decoder=check)
    with progress("encoding") as advance:
        report = encode_file(
            loaded,
            source,
            target,
            seed=sample,
            normalize=normalize,
            resample=resample,
            upmix=upmix,
            budget=budget,
            progress=advance,
        )
    result: dict[str, object] = {"file": str(report.file), "latent": list(report.shape), "notes": list(report.notes)}
    found = compare_files(loaded, source, target, resample=resample, upmix=upmix) if check else {}
    result["round_trip"] = found
    show(result, [f"{k}: {_text(v)}" for k, v in result.items() if v])
    if check and not found["complete"]:
        raise typer.Exit(1)


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    return "; ".join(value) if isinstance(value, list) and value and isinstance(value[0], str) else str(value)
