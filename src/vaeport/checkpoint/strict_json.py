"""JSON without surprises: one object, unique keys, printable text."""

from __future__ import annotations

import json
from typing import Any

from vaeport.checkpoint.text import is_unicode, short


class JsonProblemError(ValueError):
    """Text that is not one JSON object with unique keys; the message says why."""


def parse_json_object(raw: bytes) -> dict[str, Any]:
    """Parse UTF-8 JSON that must be one object in which no key stands twice and all text is Unicode.

    Raises:
        JsonProblemError: anything else.
    """
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except JsonProblemError:
        raise
    except RecursionError as error:
        raise JsonProblemError("nested too deeply") from error
    except ValueError as error:  # bad UTF-8, bad JSON, and integers beyond Python's digit limit
        raise JsonProblemError(str(error)) from error
    if not isinstance(value, dict):
        raise JsonProblemError(f"a JSON {type(value).__name__}, not an object")
    return value


def _no_constant(name: str) -> None:
    raise JsonProblemError(f"{name} is no JSON number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise JsonProblemError(f"the key {short(twice)} stands twice")
    for text in (*result, *result.values()):
        if isinstance(text, str) and not is_unicode(text):
            raise JsonProblemError(f"half of a surrogate pair in {short(text)}")
    return result
