"""Reports read from files and written to them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from vaeport.checkpoint.strict_json import JsonProblemError, parse_json_object
from vaeport.errors import BlockedError, InputError
from vaeport.media.atomic import atomic
from vaeport.media.files import extra, input_file, writing
from vaeport.report.build import is_verdict, of_verdict
from vaeport.report.schema import SCHEMA, VERSION, Report

LARGEST = 32_000_000
"""Bytes of a file that is read."""


def read_report(path: Path) -> Report:
    """A report, or the JSON of a verdict, which makes one with fewer sections. InputError for anything else."""
    file = input_file(path, InputError)
    if file.stat().st_size > LARGEST:
        raise InputError(
            "too large for a report", where=file, expected=f"at most {LARGEST:,} bytes", found=file.stat().st_size
        )
    fix = "vaeport prove ... --report FILE.json writes one"
    try:
        told = parse_json_object(file.read_bytes())
        if is_verdict(told):
            return of_verdict(told)
        if told.get("schema") != SCHEMA:
            raise InputError("this is no report", where=file, expected=f'"schema": "{SCHEMA}", or a verdict', fix=fix)
        if told.get("version") != VERSION:
            found = told.get("version")
            raise InputError("a report of another version", where=file, expected=VERSION, found=found, fix=fix)
        return Report.model_validate(told)
    except JsonProblemError as error:
        raise InputError("the report is not JSON", where=file, found=error, fix=fix) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        says = first["msg"].removeprefix("Value error, ")
        raise InputError("the report is malformed", where=f"{file}: {place}", found=says, fix=fix) from error


def write_text(path: Path, text: str) -> None:
    """The file, whole or not at all. InputError if its folder is missing, BlockedError if the system refuses."""
    with atomic(path, InputError) as partial, writing(path, InputError):
        partial.write_text(text, "utf-8", errors="replace", newline="\n")


def require_writable(targets: Mapping[str, Path]) -> None:
    """Before anything runs: every file, by its option, can be written where it is wanted, and no two are the same."""
    places: dict[Path, str] = {}
    for option, path in targets.items():
        place = Path(os.path.realpath(path))
        if place in places:
            raise InputError("two reports under one name", where=path, found=f"{places[place]} and {option}")
        places[place] = option
        if not place.parent.is_dir():
            raise InputError("the folder does not exist", where=place.parent, fix=f"mkdir -p '{place.parent}'")
        if place.exists() and not place.is_file():
            raise InputError("this name is taken", where=path, expected="a file, or nothing", found="something else")
        if not os.access(place if place.exists() else place.parent, os.W_OK):
            raise BlockedError("the report cannot be written here", where=path, fix="name another file")
    if "--html" in targets:
        with extra("jinja2", "report"):
            import jinja2  # noqa: F401
