"""`vaeport prove`: is the native VAE the same function as a reference?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from vaeport.cli.common import json_object, say
from vaeport.errors import InputError


def command(
    reference: Annotated[str, typer.Option(help="Import path of the reference, e.g. diffusers:AutoencoderKL.")],
    native: Annotated[
        str, typer.Option(help="Native name, e.g. autoencoder_kl, or an import path package.module:Class.")
    ],
    variant: Annotated[
        str | None, typer.Option(help="Published configuration of the native model, e.g. flux1.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A config.json instead of --variant.")] = None,
    reference_args: Annotated[str | None, typer.Option(help="Constructor arguments of the reference as JSON.")] = None,
    adapter: Annotated[
        Path | None, typer.Option(help="File with build, encode, decode or normalize for the reference.")
    ] = None,
    reference_python: Annotated[
        str | None, typer.Option(help="Interpreter of the environment that has the reference.")
    ] = None,
    capture: Annotated[
        Path | None, typer.Option(help="Folder that keeps the reference's captures for later runs.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Weight file, folder or hub id; otherwise weights are drawn from --seed.")
    ] = None,
    subfolder: Annotated[str | None, typer.Option(help="Folder in it, e.g. vae.")] = None,
    filename: Annotated[str | None, typer.Option(help="File in it, e.g. Wan2.1_VAE.pth.")] = None,
    tiling: Annotated[
        str | None, typer.Option(help="Published tiling that both sides run, e.g. diffusers-framewise; else none.")
    ] = None,
    call_args: Annotated[
        str | None,
        typer.Option(
            help='How the reference is called, as JSON: {"encode": {...}, "decode": {...}, "attributes": {...}}.'
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of drawn weights and inputs.")] = 0,
    dtypes: Annotated[str, typer.Option(help="Types for gates P and D.")] = "float32,bfloat16",
    device: Annotated[str, typer.Option(help="Device for both sides.")] = "cpu",
    explain: Annotated[bool, typer.Option(help="If gate S fails: say where, why, and which change mends it.")] = False,
    repro: Annotated[
        Path | None, typer.Option(help="With --explain: folder for a small script that fails until it is mended.")
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(help="Folder for activation traces of both sides (FastVideo's JSONL).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole verdict as JSON.")] = False,
) -> None:
    """Prove that a native VAE equals its reference: gates S (same function), P (same precision), D (same types)."""
    from vaeport.proof.calling import Convention
    from vaeport.proof.setup import proof_of

    options: dict[str, Any] = {
        "reference": reference,
        "native": native,
        "variant": variant,
        "config": config,
        "reference_args": None if reference_args is None else json_object(reference_args, "--reference-args"),
        "adapter": adapter,
        "reference_python": reference_python,
        "capture": capture,
        "weights": weights,
        "subfolder": subfolder,
        "filename": filename,
        "tiling": tiling,
        "convention": None if call_args is None else Convention.of_calls(json_object(call_args, "--call-args")),
        "seed": seed,
        "dtypes": tuple(filter(None, dtypes.split(","))),
        "device": device,
    }
    if repro is not None and not explain:
        raise InputError("--repro shrinks what --explain finds", fix="give --explain too")
    proof = proof_of(**options)
    verdict = proof.run()
    told, lines = verdict.to_json(), verdict.lines()
    if explain and "S" in verdict.failed_gates():
        from vaeport.drift import explain as explained

        explanation = explained(proof)
        told["explanation"] = explanation.to_json()
        lines = [*explanation.lines(), "", *explanation.table(), "", *lines]
        if repro is not None and explanation.findings:
            from vaeport.drift.repro import write_repro

            say(f"writing {write_repro(options, explanation, repro)}")
    if trace is not None:
        from vaeport.drift.tracing import write_traces

        lines += write_traces(proof, trace)
    print(json.dumps(told, indent=2) if as_json else "\n".join(lines))
    raise typer.Exit(0 if verdict else 1)
