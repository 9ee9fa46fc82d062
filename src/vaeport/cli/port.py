"""`vaeport port`: one official VAE -> native, converted, proved, handed over."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vaeport.cli.common import json_object
from vaeport.cli.output import Show, with_output
from vaeport.cli.reporting import (
    GitHubOption,
    HtmlOption,
    JUnitOption,
    MarkdownOption,
    ReportOption,
    Reports,
    command_line,
)
from vaeport.errors import InputError

if TYPE_CHECKING:
    from vaeport.port.state import PortState


@with_output
def command(
    show: Show,
    source: Annotated[
        str | None, typer.Argument(help="Official code: folder/file.py:Class, a folder, or package.module:Class.")
    ] = None,
    family: Annotated[str | None, typer.Option(help="Model family, snake_case, e.g. wan.")] = None,
    component: Annotated[str, typer.Option(help="Component, snake_case.")] = "vae",
    args: Annotated[str, typer.Option(help="Constructor arguments: JSON, or a .json file.")] = "{}",
    call_args: Annotated[
        str, typer.Option(help='How it is called, as JSON: {"encode": {...}, "decode": {...}, "attributes": {...}}.')
    ] = "{}",
    weights: Annotated[str | None, typer.Option(help="Official checkpoint: file or folder.")] = None,
    prefix: Annotated[str, typer.Option(help="What stands before the VAE's keys in it.")] = "",
    drop: Annotated[list[str] | None, typer.Option(help='Keys that are left out: "REGEX=REASON". Repeatable.')] = None,
    variant: Annotated[str | None, typer.Option(help="Published configuration, where the code cannot tell.")] = None,
    native: Annotated[str | None, typer.Option(help="Native class outside the library: package.module:Class.")] = None,
    native_args: Annotated[str, typer.Option(help="Constructor arguments of --native: JSON, or a .json file.")] = "{}",
    official_python: Annotated[str | None, typer.Option(help="Interpreter that has the official code.")] = None,
    stub: Annotated[
        list[str] | None, typer.Option(help="What stands in for a missing name: module.Name=module:object. Repeatable.")
    ] = None,
    dtypes: Annotated[str, typer.Option(help="Types for gates P and D; empty: gate S alone.")] = "float32,bfloat16",
    until: Annotated[
        str, typer.Option(help="Last step: context, official, reuse, prototype, map, convert, parity, handoff.")
    ] = "handoff",
    into: Annotated[str | None, typer.Option(help="Folder of the port below the current one.")] = None,
    status: Annotated[bool, typer.Option("--status", help="Print where the port stands; run nothing.")] = False,
    check: Annotated[
        Path | None, typer.Option(help="Check a packet (YAML, JSON, Markdown) or a model file (.py).")
    ] = None,
    report: ReportOption = None,
    html: HtmlOption = None,
    markdown: MarkdownOption = None,
    junit: JUnitOption = None,
    github: GitHubOption = False,
) -> None:
    """Port one official VAE: probe it, prove reuse, derive the weight map, convert, run the parity test, hand over."""
    if check is not None:
        _check(check, show)
    if source is None and not status:
        raise InputError(
            "no official source",
            expected="folder/file.py:Class or package.module:Class",
            fix="vaeport port SOURCE --family NAME",
        )
    if family is None:
        raise InputError("no family", expected="--family NAME in snake_case, e.g. --family wan")
    reports = Reports(report, html, markdown, junit, github)
    if status and reports.wanted:
        raise InputError("--status runs nothing that could be reported", fix="leave it or the reports out")
    reports.check()
    from vaeport.cli.common import say
    from vaeport.port.request import Request
    from vaeport.port.store import PortStore

    if status:
        state = PortStore(Path(into or f"ports/{family}_{component}") / "port_state.json").load()
        if state is None:
            raise InputError(
                "no such port",
                where=into or f"ports/{family}_{component}",
                fix="start it: vaeport port SOURCE --family ...",
            )
        show(state.plain(), _lines(state))
        return
    assert source is not None
    from vaeport.port.run import Port

    request = Request(
        source,
        family,
        component,
        arguments=json_object(args, "--args"),
        call_arguments=json_object(call_args, "--call-args"),
        weights=weights,
        prefix=prefix,
        drops=tuple(drop or ()),
        variant=variant,
        native=native,
        native_arguments=json_object(native_args, "--native-args"),
        python=official_python,
        stubs=_stubs(stub or []),
        dtypes=tuple(filter(None, dtypes.split(","))),
        until=until,
        folder=into,
    )
    running = Port(request, say)
    watched = reports.watched_port(running)
    done, code = running.run()
    show(done.plain(), _lines(done))
    if watched is not None:
        reports.write(watched.report(done, [("Run the same port again", command_line())]))
    raise typer.Exit(code)


def _check(path: Path, show: Show) -> None:
    if path.suffix == ".py":
        from vaeport.port.model_checks import check_model

        findings = check_model(path)
    else:
        from vaeport.port.check import check_packet

        findings = check_packet(path)
    show([vars(finding) for finding in findings], [*map(str, findings)] or [f"{path}: no finding"])
    raise typer.Exit(1 if findings else 0)


def _lines(state: PortState) -> list[str]:
    from vaeport.port.contracts.steps import STEPS

    lines = [f"{state.model_family} {state.component}: {state.reuse.verdict} {state.reuse.native}".rstrip()]
    for name in STEPS:
        step = state.steps.of(name)
        lines.append(f"  {name:<10} {step.status:<12} {step.note}")
    lines.append(f"  parity     {state.parity.status:<12} {state.parity.result}")
    left = len(state.cleanup.leftovers)
    told = f"{left} left behind or not checked" if left else ""
    lines.append(f"  cleanup    {state.cleanup.outcome:<12} {told}".rstrip())
    lines += [f"    {line}" for line in state.cleanup.leftovers]
    return lines + [f"  {row.id}: {row.hatch.question}" for row in state.open_rows("escape_hatches")]


def _stubs(given: list[str]) -> dict[str, str]:
    for text in given:
        if "=" not in text or ":" not in text:
            raise InputError("--stub names what stands in", expected="module.Name=module:object", found=text)
    return dict(text.split("=", 1) for text in given)
