"""One place where types differ: the modules that may be meant, and the changes that give one the reference's types."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from vaeport.drift.edits.casting import cast_edits, typed_calls
from vaeport.drift.edits.edit import Edit
from vaeport.drift.prepare import within
from vaeport.drift.typed_reference import TypedReference
from vaeport.drift.typed_runs import Call, Differing, TypedCopy
from vaeport.proof.gates import rms
from vaeport.proof.recording import first_tensor

_AS_NEAR = 1.5
"""Of changes that give the right types, those are equally good whose results are within this factor of the nearest."""

_ENOUGH = 3
"""Changes that give the right types, where nothing tells which is nearest."""


@dataclass(frozen=True)
class Good:
    """A change that gives a module the reference's types, and how far its result is from the reference's then."""

    edit: Edit
    distance: float | None


class TypedPlace:
    """The module `module`, changes of which may mend the rows `here` of `path`.

    copies      of the native side, in the types that differ
    before      relative rms distance of its result from the reference's, on the reference's input
    """

    def __init__(
        self, copies: Sequence[TypedCopy], path: str, module: str, here: Sequence[Differing], reference: TypedReference
    ) -> None:
        self.copies, self.path, self.module, self.here, self.reference = copies, path, module, here, reference
        self.before: float | None = None
        self.tried = 0

    def good(self, deadline: float, only: str | None = None) -> list[Good]:
        """Changes that give it the reference's types when it runs alone, the best first, or that of these words."""
        calls = [copy.calls(self.module) for copy in self.copies]
        if not calls[0]:
            return []
        self.before = self._distance(calls[0][0]) if only is None else None
        known = [{d.row.native for d in self._differing(*pair) or ()} for pair in zip(self.copies, calls, strict=True)]
        if self.path.startswith("free ") and not self._missing and self.path not in known[0]:
            return []
        vae = self.copies[0].vae
        seen = typed_calls(vae, self.module, lambda: self.copies[0].seen(calls[0][0]))
        found: list[Good] = []
        for edit in cast_edits(self.module, seen, self._type, outside=self.module == self.path):
            if time.monotonic() > deadline or (len(found) >= _ENOUGH and found[0].distance is None):
                break
            if only not in (None, edit.change):
                continue
            self.tried += 1
            if self._right(edit, calls, known):
                with edit.applied(vae):
                    found.append(Good(edit, self._distance(calls[0][0]) if only is None else None))
        near = min((g.distance for g in found if g.distance is not None), default=0.0)
        return sorted(found, key=lambda g: g.distance is not None and g.distance > _AS_NEAR * near)

    def _right(self, edit: Edit, calls: Sequence[Sequence[Call]], known: Sequence[set[str]]) -> bool:
        for copy, own, before in zip(self.copies, calls, known, strict=True):
            with edit.applied(copy.vae):
                found = self._differing(copy, own)
            if found is None or any(d.path == self.path or d.row.native not in before for d in found):
                return False
        return True

    def _differing(self, copy: TypedCopy, calls: Sequence[Call]) -> list[Differing] | None:
        """Rows that differ when the module runs alone; None if it raises, or leaves out what is asked for."""
        seen = copy.seen(lambda: [call() for call in calls], (*copy.watched, self.module))
        if seen.raised:
            return None
        if self.path.startswith("free "):
            # with the module watched, its own rows are those that were nobody's
            rows = dict(seen.rows)
            own = rows.pop(f"{self.module}: accumulation", [])
            seen = replace(seen, rows={**rows, self.path: own})
            if self._missing and not self._missing & set(own):
                return None
        elif self.here and not within(self.path, self.module):
            given = seen.rows.get(f"{self.module}: output")
            if tuple(given or ()) != self.here[0].row.theirs:
                return None
        # what runs before its call, when it is bound to conditions, does not show here
        return [d for d in copy.differing(seen, self.module) if d.path == self.path or d.row.ours]

    @property
    def _missing(self) -> set[str]:
        """Types in which the reference runs something, and the native side nothing."""
        return {t for d in self.here for t in d.row.theirs} - {t for d in self.here for t in d.row.ours}

    @property
    def _type(self) -> torch.dtype:
        """The type beside the model's own."""
        named = [t for side in ("theirs", "ours") for d in self.here for t in getattr(d.row, side) if t != d.dtype]
        return getattr(torch, named[0], torch.float32) if named else torch.float32

    @torch.no_grad()
    def _distance(self, call: Call) -> float | None:
        copy = self.copies[0]
        given = first_tensor(call.args)
        wanted_in = None if given is None else self.reference.tensor(copy.dtype, self.module, "in", given)
        if given is None or wanted_in is None:
            return None
        args = tuple(wanted_in.to(a) if a is given else a for a in call.args)
        try:
            out = first_tensor(call.module(*args, **call.kwargs))
        except Exception:  # a wrong port may raise anything
            return None
        wanted = None if out is None else self.reference.tensor(copy.dtype, self.module, "out", out)
        if out is None or wanted is None:
            return None
        return rms(out.double() - wanted.double().to(out.device)) / max(rms(wanted), 1e-300)


def candidates(copy: TypedCopy, path: str, here: Sequence[Differing]) -> Iterator[str]:
    """Modules that may make the rows of `path` differ, the likeliest first."""
    if path.startswith("free "):
        yield from _free(copy, here)
        return
    parts = path.split(".")
    around = [".".join(parts[:n]) for n in range(len(parts) - 1, 0, -1)]
    if any(d.row.native == f"{path}: input" for d in here):
        yield from _producers(copy, path, next(d for d in here if d.row.native == f"{path}: input"))
        yield from around
        yield path
    else:
        yield path
        yield from around


def _free(copy: TypedCopy, here: Sequence[Differing]) -> Iterator[str]:
    """Modules that compute beside those that have rows; those that do it in a type that the reference has not."""
    names = [name for name, _ in copy.vae.named_modules() if name]
    seen = copy.seen(paths=names)
    own = [p for p in seen.order if f"{p}: accumulation" in seen.rows and not any(within(p, w) for w in copy.watched)]
    foreign = [p for p in own if {*seen.rows[f"{p}: accumulation"]} - {*here[0].row.theirs}]
    return iter(foreign or own)


def _producers(copy: TypedCopy, path: str, here: Differing) -> Iterator[str]:
    """The last module that ended before `path` began and gave a type, which it did not get, that `path` should not get;
    the innermost of it first.
    """
    wrong = {*here.row.ours} - {*here.row.theirs}
    if not wrong:
        return iter(())
    seen = copy.seen(paths=[name for name, _ in copy.vae.named_modules() if name])
    rows = list(seen.rows)
    ended = [r.removesuffix(": output") for r in rows[: rows.index(f"{path}: input")] if r.endswith(": output")]
    found = [
        name
        for name in reversed(ended)
        if {*seen.rows[f"{name}: output"]} & wrong and not {*seen.rows.get(f"{name}: input", [])} & wrong
    ]
    # what holds it gives the same type, and is no origin
    return reversed([name for name in found if within(name, found[0])])
