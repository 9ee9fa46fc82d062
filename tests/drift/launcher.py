"""Scripts in processes of their own, without the seconds that each would take to import torch.

One process imports torch and what a repro needs, and nothing else; every script runs in a fork of it.
"""

from __future__ import annotations

import atexit
import json
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ABSENT = ("diffusers", "transformers", "pydantic", "typer", "rich")
_SERVE = """
import json, os, runpy, sys, traceback
import torch._dynamo, vaeport.drift.repro_script
for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if child == 0:
        status = 70
        try:
            for number, file in ((1, asked["stdout"]), (2, asked["stderr"])):
                os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            sys.argv = asked["argv"]
            sys.path[:0] = asked["path"]
            try:
                runpy.run_path(sys.argv[0], run_name="__main__")
                status = 0
            except SystemExit as stop:
                status = stop.code
            except BaseException:
                traceback.print_exc()
                status = 1
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def launched(script: Path, *arguments: str, path: str = "") -> tuple[int, str, str]:
    """Exit status, stdout and stderr of `python SCRIPT ARGUMENTS`, with `path` as PYTHONPATH; see `ABSENT`."""
    server, place = _server()
    out, err = place / "stdout", place / "stderr"
    paths = [part for part in path.split(":") if part]
    asked = {"argv": [str(script), *arguments], "path": paths, "stdout": str(out), "stderr": str(err)}
    assert server.stdin is not None
    assert server.stdout is not None
    print(json.dumps(asked), file=server.stdin, flush=True)
    answer = server.stdout.readline()
    assert answer, "the process that scripts are forked from has ended"
    return int(answer), out.read_text("utf-8"), err.read_text("utf-8")


@cache
def _server() -> tuple[subprocess.Popen[str], Path]:
    place = Path(tempfile.mkdtemp(prefix="vaeport-tests-"))
    for package in ABSENT:
        (place / f"{package}.py").write_text("raise ImportError('vaeport and torch are all it needs')\n", "utf-8")
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=place,
        env={"PYTHONPATH": f"{place}:{ROOT / 'src'}", "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
    )
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    atexit.register(server.kill)
    return server, place
