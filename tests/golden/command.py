"""The command line that makes committed files from official code, or checks them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection
from pathlib import Path

from vaeport.errors import VaeportError

CACHE = Path.home() / ".cache" / "vaeport" / "official"


def command(doc: str | None, names: Collection[str], make: Callable[..., str]) -> None:
    """Call `make(name, cache, mirrors, check_only=...)` for the names on the command line, or for all; print its words.

    `cache` is the folder of official files; `mirrors` maps `owner/name` to a git directory to take it from.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}; all by default")
    parser.add_argument("--check", action="store_true", help="compare with the committed files, write nothing")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where official files are kept (%(default)s)")
    parser.add_argument("--mirror", action="append", default=[], metavar="OWNER/NAME=GITDIR", help="take it from here")
    options = parser.parse_args()
    if unknown := set(options.names) - set(names):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    mirrors = {repo: Path(folder).resolve() for repo, _, folder in (entry.partition("=") for entry in options.mirror)}
    try:
        for name in options.names or names:
            print(f"{name}: {make(name, options.cache.resolve(), mirrors, check_only=options.check)}", flush=True)
    except VaeportError as error:
        sys.exit(f"{error}")
