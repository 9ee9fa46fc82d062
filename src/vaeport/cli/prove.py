"""`vaeport prove`: is the native VAE the same function as a reference?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vaeport.cli.common import json_object, say
from vaeport.cli.output import Show, with_output
from vaeport.cli.reporting import GitHubOption, HtmlOption, JUnitOption, MarkdownOption, ReportOption, Reports
from vaeport.errors import InputError, VaeportError

if TYPE_CHECKING:
    from vaeport.drift.explanation import Explanation
    from vaeport.proof.prove import Proof
    from vaeport.report.watched import Watched


@with_output
def command(
    show: Show,
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
    reference_trace: Annotated[
        Path | None,
        typer.Option(help="Trace of a reference that ran elsewhere: compare it with the native side, run no gate."),
    ] = None,
    trace_tolerance: Annotated[
        float | None, typer.Option(help="Of --reference-trace, relative; by default as its type allows.")
    ] = None,
    report: ReportOption = None,
    html: HtmlOption = None,
    markdown: MarkdownOption = None,
    junit: JUnitOption = None,
    github: GitHubOption = False,
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
    reports = Reports(report, html, markdown, junit, github)
    reports.check()
    if reference_trace is not None:
        if reports.wanted:
            raise InputError("a report is of a proof, and --reference-trace runs none", fix="leave one of them out")
        _against(options, reference_trace, trace, trace_tolerance, show, asked=explain or repro is not None)
    if trace_tolerance is not None and reference_trace is None:
        raise InputError("--trace-tolerance is --reference-trace's", fix="give --reference-trace too")
    if repro is not None and not explain:
        raise InputError("--repro shrinks what --explain finds", fix="give --explain too")
    if repro is not None:
        from vaeport.drift.repro import require_free

        require_free(repro)
    if trace is not None:
        from vaeport.drift.tracing import make_folder

        make_folder(trace)
    proof = proof_of(**options)
    watched = reports.watched(proof)
    verdict = proof.run()
    told, lines, problems = verdict.to_json(), verdict.lines(), list[VaeportError]()
    failed = verdict.failed_gates()
    if explain and failed & {"S", "D"}:
        with _kept(problems):
            lines = [*_explained(proof, failed, options, repro, told, problems, watched), "", *lines]
    elif explain:
        names = ", ".join(sorted(failed))
        why = f"it looks for what fails gates S and D, and {names} failed" if failed else "both sides agree"
        say(f"nothing to explain{'' if repro is None else ', no repro'}: {why}")
        if watched is not None:
            watched.measure()
    if trace is not None:
        from vaeport.drift.tracing import write_traces

        with _kept(problems):
            told["trace"] = write_traces(proof, trace)
            lines += told["trace"]
    show(told, lines)
    if watched is not None:
        with _kept(problems):
            reports.write(watched.report(verdict, reports.commands(verdict, explain, repro)))
    for problem in problems:
        say(f"vaeport: {problem}")
    raise typer.Exit(1 if not verdict else max((problem.exit_code for problem in problems), default=0))


def _against(
    options: dict[str, Any], file: Path, folder: Path | None, tolerance: float | None, show: Show, asked: bool
) -> None:
    """`--reference-trace`: exit code 0 if no statistic differs, 1 if one does."""
    from vaeport.drift.trace_elsewhere import against_trace

    if asked:
        fix = "leave --explain and --repro out, or give --reference-python or --capture instead of the trace"
        raise InputError("a trace holds statistics alone, which --explain cannot work on", fix=fix)
    found = against_trace(options, file, folder=folder, tolerance=tolerance)
    show(found.to_json(), found.lines())
    raise typer.Exit(0 if found else 1)


def _explained(
    proof: Proof,
    failed: set[str],
    options: dict[str, Any],
    repro: Path | None,
    told: dict[str, Any],
    problems: list[VaeportError],
    watched: Watched | None,
) -> list[str]:
    """What `--explain` and `--repro` add to the lines, and to what is told as JSON."""
    from vaeport.drift import explain_gates
    from vaeport.drift.repro import write_repro

    explanation: Explanation = explain_gates(proof, failed) if watched is None else watched.explain(failed)
    told["explanation"] = explanation.to_json()
    if repro is not None:
        told["repro"] = None
        say(f"looking for a smaller model that differs alike, for {repro}")
        with _kept(problems):
            told["repro"] = str(write_repro(options, explanation, repro))
            say(f"wrote {told['repro']}")
    return [*explanation.lines(), "", *explanation.table()]


@contextmanager
def _kept(problems: list[VaeportError]) -> Iterator[None]:
    """What goes wrong after the proof is told after its verdict, which is not lost."""
    try:
        yield
    except VaeportError as problem:
        problems.append(problem)
