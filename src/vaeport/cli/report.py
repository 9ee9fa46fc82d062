"""`vaeport report`: a page, Markdown or JUnit, made of a report's JSON alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vaeport.cli.reporting import GitHubOption, HtmlOption, JUnitOption, MarkdownOption, Reports
from vaeport.errors import InputError


def command(
    file: Annotated[Path, typer.Argument(help="report.json of `prove` or `port`, or the JSON of a verdict.")],
    html: HtmlOption = None,
    markdown: MarkdownOption = None,
    junit: JUnitOption = None,
    github: GitHubOption = False,
) -> None:
    """Render a report: as a page, as Markdown, as JUnit, as annotations. Markdown is printed if nothing is named."""
    reports = Reports(None, html, markdown, junit, github)
    reports.check()
    from vaeport.report.files import read_report

    report = read_report(file)
    if any(option is not None and option.resolve() == file.resolve() for option in (html, markdown, junit)):
        raise InputError("the report would be written over itself", where=file, fix="name another file")
    reports.write(report)
    if not reports.wanted:
        from vaeport.report.markdown import markdown as rendered

        print(rendered(report))
