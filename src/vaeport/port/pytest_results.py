"""The outcomes of all parity tests of a run: in the terminal's summary, and in the file of `--parity-json`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from vaeport.errors import VaeportError


class Results:
    """Gathers what the reports carry, in the process that controls the run."""

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self.rows: list[dict[str, Any]] = []
        self.unwritten: VaeportError | None = None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Takes the outcomes out of a report, be it from here or from a worker."""
        self.rows += getattr(report, "parity", ())

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Writes the file. If that fails, the summary says why and the exit code is 3."""
        if self.file is None:
            return
        try:
            self._write(self.file)
        except VaeportError as error:
            self.unwritten, session.exitstatus = error, error.exit_code

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """One line per parity test."""
        if self.rows or self.unwritten:
            terminalreporter.section("parity")
        for row in self.rows:
            digest = f", verdict sha256 {row['verdict_sha256']}" if row["verdict_sha256"] else ""
            said = "" if row["status"] == "non_skip_pass" else f": {row['result']}"
            terminalreporter.line(f"parity {row['family']} {row['component']}: {row['status']}{digest}{said}")
        if self.unwritten:
            terminalreporter.line(f"--parity-json: {self.unwritten}")

    def _write(self, file: Path) -> None:
        """The verdicts first, then the list that names them, relative to its own folder."""
        from vaeport.errors import BlockedError
        from vaeport.media.atomic import atomic

        def write(path: Path, text: str) -> None:
            with atomic(path, BlockedError) as partial:
                partial.write_text(text, "utf-8")

        names: set[str] = set()
        listed = []
        for row in self.rows:
            name = None
            if row["verdict"] is not None:
                name = _free(re.sub(r"[^\w.-]", "_", f"{file.stem}.{row['family']}_{row['component']}"), names)
                names.add(name)
                write(file.with_name(name), row["verdict"])
            listed.append({**row, "verdict": name})
        write(file, json.dumps(listed, indent=1) + "\n")


def _free(stem: str, taken: set[str]) -> str:
    """A file name that no other verdict of this run has."""
    name, count = f"{stem}.verdict.json", 1
    while name in taken:
        count += 1
        name = f"{stem}_{count}.verdict.json"
    return name
