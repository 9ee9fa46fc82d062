"""The command line: one file per verb, thin over the library.

Data goes to stdout, progress and errors to stderr. Exit codes: 0 pass, 1 a proof or check failed, 2 usage or bad input,
3 something outside is missing.
"""

from __future__ import annotations

import sys

import typer

from vaeport.cli import dataset, decode, demo, encode, inspect, models, plan, port, prove, report
from vaeport.errors import BlockedError, VaeportError

app = typer.Typer(name="vaeport", help="Run, check and port VAEs of diffusion models.", no_args_is_help=True)
for verb in (inspect, encode, decode, dataset, plan, prove, report, port, models, demo):
    app.command(name=verb.__name__.rpartition(".")[2])(verb.command)


def main() -> None:
    """Runs the command line; errors of vaeport print their four parts and set the exit code."""
    try:
        app()
    except VaeportError as error:
        print(f"vaeport: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(1)
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"):
            raise
        fix = (
            "give --budget to encode or decode in less, or another --dtype or --device; vaeport plan says what it takes"
        )
        print(f"vaeport: out of memory\n  found: {error}\n  fix: {fix}", file=sys.stderr)
        sys.exit(BlockedError.exit_code)
