"""The options by which verbs write reports."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vaeport.cli.common import say

if TYPE_CHECKING:
    from vaeport.port.run import Port
    from vaeport.proof.prove import Proof
    from vaeport.report.ported import WatchedPort
    from vaeport.report.schema import Report
    from vaeport.report.watched import Watched

ReportOption = Annotated[Path | None, typer.Option("--report", help="Write the report as JSON: FILE.json.")]
HtmlOption = Annotated[Path | None, typer.Option("--html", help="Write the report as one page that needs no network.")]
MarkdownOption = Annotated[Path | None, typer.Option("--markdown", help="Write the report for a pull request.")]
JUnitOption = Annotated[Path | None, typer.Option("--junit", help="Write a JUnit file, a test case per gate and case.")]
GitHubOption = Annotated[
    bool, typer.Option("--github", help="Print annotations for GitHub Actions, and add to the job's summary there.")
]
_OWN = ("--report", "--html", "--markdown", "--junit")


@dataclass(frozen=True)
class Reports:
    """What is asked for."""

    report: Path | None = None
    html: Path | None = None
    markdown: Path | None = None
    junit: Path | None = None
    github: bool = False

    @property
    def wanted(self) -> bool:
        """Anything at all."""
        return self.github or any((self.report, self.html, self.markdown, self.junit))

    def check(self) -> None:
        """Refuses what could not be written, before anything runs."""
        if self.wanted:
            from vaeport.report.files import require_writable

            files = zip(_OWN, (self.report, self.html, self.markdown, self.junit), strict=True)
            require_writable({option: path for option, path in files if path is not None})

    def watched(self, proof: Proof) -> Watched | None:
        """The proof with what a report shows of it, if one is wanted; it is to be asked for before it runs."""
        if not self.wanted:
            return None
        from vaeport.report.watched import Watched

        return Watched(proof)

    def watched_port(self, port: Port) -> WatchedPort | None:
        """The same of a port."""
        if not self.wanted:
            return None
        from vaeport.report.ported import WatchedPort

        return WatchedPort(port)

    @staticmethod
    def commands(passed: object, explained: bool, repro: Path | None) -> list[tuple[str, str]]:
        """What to run: the same again, and what tells more of a proof that failed."""
        line = command_line()
        told = [("Run the same proof again", line)]
        if not passed and not explained:
            told.append(("Find out why it fails, and which change mends it", f"{line} --explain"))
        elif not passed and repro is None:
            told.append(("Leave a small script that fails until the source is mended", f"{line} --repro repro"))
        return told

    def write(self, report: Report) -> None:
        """All that is asked for; annotations go to stderr, which GitHub reads too."""
        from vaeport.report.files import write_text

        if self.report is not None:
            write_text(self.report, report.to_text())
        if self.html is not None:
            from vaeport.report.html import html

            write_text(self.html, html(report))
        if self.markdown is not None:
            from vaeport.report.markdown import markdown

            write_text(self.markdown, markdown(report))
        if self.junit is not None:
            from vaeport.report.junit import junit

            write_text(self.junit, junit(report))
        if self.github:
            self._annotate(report)

    def _annotate(self, report: Report) -> None:
        from vaeport.errors import InputError
        from vaeport.media.files import writing
        from vaeport.report.github import workflow_commands
        from vaeport.report.markdown import markdown

        say("\n".join(workflow_commands(report, Path.cwd())))
        place = os.environ.get("GITHUB_STEP_SUMMARY")
        if place:
            with writing(Path(place), InputError), Path(place).open("a", encoding="utf-8") as summary:
                summary.write(markdown(report) + "\n")


def command_line(without: Sequence[str] = ()) -> str:
    """The command that runs, without the options of reports, to be repeated."""
    words, kept, skip = sys.argv[1:], [], False
    for word in words:
        name = word.partition("=")[0]
        if skip:
            skip = False
        elif name in _OWN or name in without:
            skip = name in _OWN and "=" not in word
        elif word != "--github":
            kept.append(word)
    return shlex.join(["vaeport", *kept])
