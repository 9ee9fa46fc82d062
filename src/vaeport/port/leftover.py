"""What a port can leave behind, and the verdict of the cleanup gate on it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["pass", "fail", "incomplete"]
UNCHECKED = "unchecked"


@dataclass(frozen=True)
class Leftover:
    """One thing that is not as it should be at the end of a port.

    kind    hook, patch, mode, toggle, edited, untracked, hidden, package, stray; or `unchecked`: what could not be seen
    where   module, function or file, relative to its tree
    found   what is there
    fix     what removes it
    """

    kind: str
    where: str
    found: str
    fix: str

    def __str__(self) -> str:
        return f"{self.kind} {self.where}: {self.found}; {self.fix}"


def unchecked(where: str, reason: str, fix: str = "look at it by hand") -> Leftover:
    """What could not be looked at, which is never clean."""
    return Leftover(UNCHECKED, where, f"{reason}, so not checked", fix)


def outcome(leftovers: Iterable[Leftover]) -> Outcome:
    """`fail` if anything was left behind, `incomplete` if something could not be looked at, else `pass`."""
    kinds = {one.kind for one in leftovers}
    return "fail" if kinds - {UNCHECKED} else "incomplete" if kinds else "pass"
