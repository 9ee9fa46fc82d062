"""A report as workflow commands of GitHub Actions: an error for each failed check, at the line that has to change."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from vaeport.report.checks import checks
from vaeport.report.schema import Found, Report
from vaeport.report.summary import cause, summary

MOST = 10
"""Annotations of one kind that GitHub shows for a step."""
_PLACE = re.compile(r"(?P<file>.+):(?P<line>\d+)")


def workflow_commands(report: Report, root: Path) -> list[str]:
    """Lines to print, at most `MOST`; files below `root` are named relative to it, so that GitHub finds them."""
    told = summary(report)
    if told.passed:
        return [_command("notice", f"{told.answer}: {report.title}", {"title": "vaeport"})]
    lines = list(_errors(report, root))
    if not lines:
        lines = [_command("error", " ".join(told.fails) or told.answer, {"title": f"vaeport: {told.answer}"})]
    if len(lines) > MOST:
        rest = len(lines) - MOST + 1
        lines = [*lines[: MOST - 1], _command("error", f"{rest} more checks failed", {"title": "vaeport"})]
    return lines


def _errors(report: Report, root: Path) -> Iterator[str]:
    for finding in report.explanation.findings if report.explanation else ():
        yield _command("error", cause(finding), {**_at(finding, root), "title": f"vaeport: gate {finding.gate}"})
    for check in checks(report.proved) if report.proved else ():
        if check.passed:
            continue
        worst = next((row for row in check.rows if not row.passed), None)
        failure = check.failures[0] if check.failures else None
        says = f"{failure.where}: {failure.says}" if failure else f"{worst.output}: {worst.figure}" if worst else ""
        more = f" (and {len(check.failures) - 1} more)" if len(check.failures) > 1 else ""
        title = f"vaeport: gate {check.gate}" if check.gate != "evidence" else "vaeport: evidence"
        yield _command("error", says + more, {"title": f"{title}, {check.label}"})
    for stage in report.stages:
        if stage.status == "blocked":
            yield _command("error", stage.note, {"title": f"vaeport port: {stage.name}"})


def _at(finding: Found, root: Path) -> dict[str, str]:
    found = _PLACE.fullmatch(finding.places[0])
    if found is None:
        return {}
    for place in (root / found["file"], root / "src" / found["file"]):
        # Path.is_file raises for a name that is too long
        if os.path.isfile(place) and place.resolve().is_relative_to(root.resolve()):  # noqa: PTH113
            return {"file": place.resolve().relative_to(root.resolve()).as_posix(), "line": found["line"]}
    return {}


def _command(kind: str, message: str, properties: dict[str, str]) -> str:
    told = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    return f"::{kind} {told}::{_data(message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
