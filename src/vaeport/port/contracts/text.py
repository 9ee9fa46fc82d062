"""What no record of a port may hold: secrets, paths of one machine, dumps. And how to write text without them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from vaeport.checkpoint.text import is_unicode
from vaeport.port.contracts.rules import Finding, finding

LONGEST = 20_000  # characters of one text
_TOKEN = re.compile(
    r"\bhf_[A-Za-z0-9]{16,}|\bsk-[A-Za-z0-9_-]{16,}|\bgh[opsru]_[A-Za-z0-9]{16,}|\bgithub_pat_[A-Za-z0-9_]{16,}"
    r"|\bglpat-[\w-]{16,}|\bxox[abprs]-[\w-]{10,}|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bAIza[\w-]{30,}"
    r"|\bBearer\s+[\w.~+/-]{16,}=*|\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]+|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|(?<=://)[^\s/:@]+:[^\s/@]+(?=@)"
)
_SECRET_NAME = r"(?:token|secret|password|passwd|pwd|api[_-]?key|access[_-]?key|private[_-]?key|credentials?)"
_SECRET_KEY = re.compile(rf"(?:^|[\W_]){_SECRET_NAME}$", re.IGNORECASE)
_ASSIGNED = re.compile(rf"(?<![^\W_]){_SECRET_NAME}[\"']?\s*[:=]\s*[\"']?([\w+/=.~$-]{{12,}})", re.IGNORECASE)
_MACHINE = re.compile(
    r"(?<![\w./)}>~-])/(?:home/[^/\s\"']+|Users/[^/\s\"']+|root|tmp|work|var/(?:tmp|folders)|private/(?:tmp|var))(?![\w.-])"
    r"|~?[/\\]\.cache(?=[/\\])|\b[A-Za-z]:\\Users\\[^\\\s\"']+"
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f\u2028\u2029]")
_UNFILLED = re.compile(r"`?<(?:TODO|TBD|FIXME|paths?|name|component|(?:model_)?family|snake_case)\b[^<>]*>`?", re.I)
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


def is_high_entropy(text: str) -> bool:
    """Whether a text of at least 12 characters looks drawn at random rather than written."""
    if len(text) < 12 or text.startswith("$") or re.fullmatch(r"[A-Z][A-Z0-9_]*", text):
        return False  # the name of an environment variable
    shares = [text.count(letter) / len(text) for letter in set(text)]
    kinds = sum(bool(re.search(kind, text)) for kind in ("[a-z]", "[A-Z]", "[0-9]"))
    return kinds >= 2 and -sum(share * math.log2(share) for share in shares) >= 3


def secrets(text: str, key: str = "") -> list[tuple[int, int]]:
    """Spans of `text` that look like secrets; `key` is the name that the text is assigned to."""
    spans = [match.span() for match in _TOKEN.finditer(text)]
    spans += [match.span(1) for match in _ASSIGNED.finditer(text) if is_high_entropy(match[1])]
    if not spans and _SECRET_KEY.search(key) and is_high_entropy(text):
        spans = [(0, len(text))]
    return spans


def shown(path: str) -> str:
    """A path as a view shows it: a home folder becomes `~`, of any other absolute path the last two names stay."""
    home = re.match(r"(?:/(?:(?:home|Users)/[^/]+|root)|[A-Za-z]:\\Users\\[^\\]+)(?=[/\\]|$)", path)
    if home:
        return "~" + path[home.end() :].replace("\\", "/")
    names = [name for name in re.split(r"[/\\]", path) if name]
    return "/".join(("...", *names[-2:])) if re.match(r"/|[A-Za-z]:\\", path) else path


def tidy(text: str, limit: int = 2000) -> str:
    """Captured output as a record may hold it: no colours, secrets or machine paths, and its end when it is long."""
    text = _ANSI.sub("", text).encode("utf-8", "replace").decode()
    for start, end in sorted(secrets(text), reverse=True):
        text = text[:start] + "[secret]" + text[end:]
    text = _CONTROL.sub(" ", _MACHINE.sub("~", text.replace("\r\n", "\n"))).strip()
    return text if len(text) <= limit else "... " + text[4 - limit :]


def problems(value: Any, may_name_machine: frozenset[str] = frozenset()) -> Iterator[Finding]:
    """All that must not stand in a record, anywhere in nested data; nothing of a secret is repeated.

    may_name_machine    top-level fields in which the user's own paths are kept
    """
    for place, key, item in _leaves(value):
        where = ".".join(place)
        if isinstance(item, float) and not math.isfinite(item):
            yield finding("plain-text", where, "a finite number", item, "write the number as text")
        if not isinstance(item, str):
            continue
        if len(item) > LONGEST:
            fix = "store the dump in a file of its own and give its path"
            yield finding("large-text", where, f"at most {LONGEST} characters", f"{len(item)} characters", fix)
            item = item[:LONGEST]
        for start, end in secrets(item, key)[:1]:
            yield finding(
                "token-value",
                where,
                "the name of an environment variable, such as HF_TOKEN",
                f"{item[start : start + 3]}... ({end - start} characters)",
                "take the value out of the file, withdraw the secret, and name its environment variable instead",
            )
        if not is_unicode(item) or _CONTROL.search(item):
            yield finding("plain-text", where, "printable text", ascii(item)[:80], "remove the control characters")
        if _UNFILLED.fullmatch(item):
            fix = "fill it in; an unknown path says `unknown (searched <the exact search>)`"
            yield finding("unfilled", where, "a value", item, fix)
        if (match := _MACHINE.search(item)) and not may_name_machine.intersection(place[:1]):
            fix = "write the path relative to the project root, or to the official source"
            yield finding("machine-path", where, "a path that holds on every machine", match[0], fix)


def _leaves(value: Any, place: tuple[str, ...] = (), key: str = "") -> Iterator[tuple[tuple[str, ...], str, Any]]:
    if isinstance(value, BaseModel):
        value = dict(value)
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield (*place, str(name)), "", name
            yield from _leaves(item, (*place, str(name)), str(name))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _leaves(item, (*place, str(index)), key)
    else:
        yield place, key, value
