"""The words that contracts allow, and the forms of their fields: paths, names, hashes, times."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, WithJsonSchema

from vaeport.port.contracts.rules import broken

Mode = Literal["parity-scaffold", "prototype", "parity-debug"]
ComponentType = Literal["dit", "vae", "encoder", "scheduler", "conditioner", "upsampler", "vocoder", "generic"]
Modality = Literal["video", "image", "audio"]
SourceLayout = Literal["diffusers", "raw_official", "monolithic", "separate_components", "mixed", "custom"]
ConfigFile = Literal["config.json", "scheduler_config.json", "none", "unknown"]
Strictness = Literal["strict", "non_strict_with_allowed_keys", "stateless"]
LaterStrictness = Literal["strict", "non_strict_with_allowed_keys", "stateless", "unknown"]
StrictLoad = Literal["not_run", "pass", "pass_with_documented_exclusions", "blocked"]
ParityState = Literal["scaffold_skip", "debug_red", "non_skip_pass", "blocked"]
CoverageScope = Literal["production_loader", "implementation_subcomponent", "both"]
ConfigValidation = Literal["pass", "blocked", "not_applicable"]
DecisionType = Literal["scope", "dependency", "auth", "cost", "destructive", "ambiguity", "blocker"]
SuspectedFix = Literal["rename", "split", "fuse", "skip", "component bucket", "config", "unknown"]
StepStatus = Literal["not_started", "in_progress", "blocked", "complete"]
RowStatus = Literal["open", "resolved"]
ReuseVerdict = Literal["not_run", "reuse", "reuse_with_arguments", "port"]
NextStep = Literal["phase_5_conversion", "phase_5_conversion_retry", "phase_6_continue", "ask_user", "blocked"]


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, list | tuple) else value


SnakeCase = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(_[a-z0-9]+)*$", max_length=80)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Library = Annotated[str, Field(pattern=r"^(diffusers|transformers|fastvideo(\.[A-Za-z_]\w*)*|unknown|none)$")]
Text = Annotated[str, Field(min_length=1)]
# Any JSON value, and a JSON object; tuples become lists.
AnyJson = Annotated[JsonValue, BeforeValidator(_lists)]
Json = Annotated[dict[str, JsonValue], BeforeValidator(_lists)]

_SEARCHED = re.compile(r"(?:exact\s+)?search(?:ed)?(?:\s+made)?\b\s*:?\s*", re.IGNORECASE)
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]")


def unknown(search: str) -> str:
    """The value of an unknown path: `unknown (searched <the exact search that was made>)`."""
    return f"unknown (searched {' '.join(search.split())})"


def is_unknown(value: str) -> bool:
    """Whether a path says `unknown`, with or without its search."""
    return re.match(r"unknown\b", value, re.I) is not None


def search_of(value: str) -> str:
    """The search that an unknown path carries; empty if it carries none."""
    rest = value[len("unknown") :].lstrip(" \t\n:;,.–—-") if is_unknown(value) else ""
    if rest[:1] in ("(", "["):
        rest = rest[1:].removesuffix({"(": ")", "[": "]"}[rest[0]])
    return _SEARCHED.sub("", rest.strip(), count=1) if _SEARCHED.match(rest.strip()) else rest.strip()


def _read_unknown(value: Any) -> Any:
    if isinstance(value, dict):
        search = value.get("unknown", value.get("search", value.get("searched", "")))
        known = value.get("path", "unknown")
        if known == "unknown" and len(value) <= 2:
            return unknown(str(search)) if search else "unknown"
    if isinstance(value, str) and is_unknown(value) and search_of(value):
        return unknown(search_of(value))
    return value


def _has_search(value: str) -> str:
    if not value:
        raise broken("unknown-path", "a path, or `unknown (searched ...)`", "nothing", "name the path")
    if is_unknown(value) and not re.search(r"\w", search_of(value)):
        raise broken(
            "unknown-path",
            "unknown (searched <the exact search>)",
            value,
            "search for it, and write the command and the folder of the search behind `unknown`",
        )
    return value


def _is_relative(value: str) -> str:
    if is_unknown(value):
        return value
    if value.startswith(("/", "~", "\\")) or _WINDOWS.match(value) or ".." in re.split(r"[\\/]", value):
        raise broken("relative-path", "a path below the project root", value, "write it relative to the project root")
    return value


def _as_names(value: Any) -> Any:
    if value is None or value == "none":
        return ()
    return tuple(filter(None, re.split(r"[\s,]+", value))) if isinstance(value, str) else value


def _as_lines(value: Any) -> Any:
    if value is None or (isinstance(value, str) and value.strip().lower() in ("", "none")):
        return ()
    if isinstance(value, dict):
        return tuple(f"{key}: {text}" for key, text in value.items())
    return (value,) if isinstance(value, str) else value


def _as_yes(value: Any) -> Any:
    return ("no", "yes")[value] if isinstance(value, bool) else value


def _as_utc(value: str) -> str:
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        time = datetime.min
    if time.utcoffset() != timedelta(0):
        fix = "write the time as UTC"
        raise broken("wrong-form", "an ISO time in UTC, such as 2026-01-31T09:30:00Z", value, fix)
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


_UNKNOWN_FORMS = (BeforeValidator(_read_unknown), AfterValidator(_has_search))
# A path in the official source, relative to it where it can be.
OfficialPath = Annotated[str, *_UNKNOWN_FORMS]
# A path of the project, relative to its root.
ProjectPath = Annotated[str, *_UNKNOWN_FORMS, AfterValidator(_is_relative)]
# A path that comes into being during the port, or one of the words `planned`, `not_created`, `not_needed`, `unknown`.
LaterPath = Annotated[str, BeforeValidator(_read_unknown), AfterValidator(_is_relative), Field(min_length=1)]
# Names; a text is split at commas and spaces.
Names = Annotated[tuple[Text, ...], BeforeValidator(_as_names)]
# Notes, one each; a text is one, `none` is none.
Lines = Annotated[tuple[Text, ...], BeforeValidator(_as_lines)]
YesNo = Annotated[Literal["yes", "no"], BeforeValidator(_as_yes)]
Utc = Annotated[str, AfterValidator(_as_utc), WithJsonSchema({"type": "string", "format": "date-time"})]
