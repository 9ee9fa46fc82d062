"""What a verb prints on stdout: for people, for agents, or as JSON, by options that every verb but `report` has.

`--format` takes the names that Hugging Face's command lines use. `agent` is plain text without alignment or colour:
`name=value` lines, and for tables a line of names and one of values per row, parted by tabs.
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import Annotated, Any, get_type_hints

import typer

from vaeport.errors import InputError


class Format(StrEnum):
    """How results are printed; `auto` is `agent` where an agent says that it runs the command, else `human`."""

    AUTO = "auto"
    HUMAN = "human"
    AGENT = "agent"
    JSON = "json"


AGENTS = ("AI_AGENT", "AGENT")
"""environment variables by which agents say who they are, as Hugging Face's command lines read them"""
Show = Callable[[Any, Sequence[str]], None]
"""Prints a result, given as data and as the lines for people."""
_FORMAT = Annotated[Format, typer.Option("--format", help="auto, human, agent or json.")]
_JSON = Annotated[bool, typer.Option("--json", help="The same as --format json.")]


def with_output(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameter `show`, a `Show`, becomes the options `--format` and `--json`."""
    hints = get_type_hints(command, include_extras=True)
    given = [p for p in inspect.signature(command).parameters.values() if p.name != "show"]
    options = [
        inspect.Parameter("output", inspect.Parameter.KEYWORD_ONLY, annotation=_FORMAT, default=Format.AUTO),
        inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, annotation=_JSON, default=False),
    ]

    def verb(*, output: Format, as_json: bool, **values: Any) -> None:
        if as_json and output not in (Format.AUTO, Format.JSON):
            raise InputError("two formats are asked for", expected="--json or --format", found=f"--json and {output}")
        asked = Format.JSON if as_json else output
        command(show=lambda result, lines: print(printed(result, lines, asked)), **values)

    verb.__doc__ = command.__doc__
    verb.__module__ = command.__module__
    parameters = [p.replace(kind=p.KEYWORD_ONLY, annotation=hints[p.name]) for p in given] + options
    verb.__annotations__ = {p.name: p.annotation for p in parameters}
    vars(verb)["__signature__"] = inspect.Signature(parameters)
    return verb


def printed(result: Any, lines: Sequence[str], output: Format) -> str:
    """A result as text of a format."""
    if output is Format.AUTO:
        output = Format.AGENT if any(map(os.environ.get, AGENTS)) else Format.HUMAN
    if output is Format.JSON:
        return json.dumps(result, indent=2, default=str)
    if output is Format.HUMAN:
        return "\n".join(lines)
    return "\n".join(_told(result, ""))


def _told(value: Any, name: str) -> Iterator[str]:
    """Lines for agents: the rows of a table under its name, or `name=value`; dots lead to what lies deeper."""
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        columns = list(dict.fromkeys(column for row in value for column in row))
        yield from [f"{name}:"] if name else []
        yield "\t".join(columns)
        yield from ("\t".join(_cell(row.get(column)) for column in columns) for row in value)
    elif isinstance(value, dict):
        for key, inner in sorted(value.items(), key=lambda pair: isinstance(pair[1], list | dict)):  # plain ones first
            yield from _told(inner, f"{name}.{key}" if name else str(key))
    else:
        yield f"{name or 'value'}={_cell(value)}"


def _cell(value: Any) -> str:
    """One field: without tabs or line breaks, JSON where it is not text."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return " ".join(text.split()) if any(c in text for c in "\t\r\n") else text
