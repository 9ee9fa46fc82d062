"""Runs the command line: as its users do, in a process of its own, or here, which saves starting one."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import traceback
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from vaeport.cli import main
from vaeport.cli.output import AGENTS

FOR_PEOPLE = dict.fromkeys(AGENTS, "")
"""output does not depend on who runs the tests"""


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    stdout: str
    stderr: str


def vaeport(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> Done:
    """`vaeport ARGUMENTS`."""
    done = subprocess.run(
        [sys.executable, "-m", "vaeport.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, **FOR_PEOPLE, **environment},
    )
    return Done(done.returncode, done.stdout, done.stderr)


def here(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> Done:
    """The same in this process; what a process would end with as a traceback is one on stderr."""
    code: object = None
    out, err = io.StringIO(), io.StringIO()
    with (
        chdir(cwd or Path.cwd()),
        patch.dict(os.environ, {**FOR_PEOPLE, **environment}),
        patch.object(sys, "argv", ["vaeport", *map(str, arguments)]),
        patch.object(sys, "excepthook", sys.excepthook),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code
        except Exception:
            traceback.print_exc()
            code = 1
    return Done(code if isinstance(code, int) else 0, out.getvalue(), err.getvalue())
