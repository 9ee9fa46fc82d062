"""Words for messages and tables; what a hostile file says is cut and escaped before it is shown."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence


def nearest_names(name: str, names: Iterable[str], count: int = 3) -> str:
    """The names most like `name`, in words, for an error message."""
    known = sorted(names)
    near = difflib.get_close_matches(name, known, n=count, cutoff=0.5)
    if near:
        return "nearest names: " + ", ".join(cut(name, 80) for name in near)
    return f"{len(known)} names, none like it" if known else "nothing"


def listing(names: Sequence[str], limit: int = 5) -> str:
    """At most `limit` names and how many more there are."""
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")


def cut(text: str, limit: int = 200) -> str:
    """One printable line of at most `limit` characters: a hostile file chooses neither length nor control codes."""
    line = " ".join(text.split())
    line = line if line.isprintable() else line.encode("unicode_escape").decode("ascii")
    return line if len(line) <= limit else line[:limit] + "..."


def short(value: object) -> str:
    """`repr(value)`, cut."""
    return cut(repr(value), 80)


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key under which `block.2` comes before `block.10`."""
    parts = re.findall(r"0*([0-9]+)|([^0-9]+)", name)
    return [(0, len(number), number) if number else (1, 0, text) for number, text in parts]


def size_text(nbytes: int) -> str:
    """Bytes in decimal units, three significant digits: `335 MB`."""
    value, unit = float(nbytes), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if value >= 100 or unit == "B" else f"{value:.3g} {unit}"


def is_unicode(text: str) -> bool:
    """Whether the text can be printed and written: it holds no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
