"""The native side in all types of a proof: seen, changed and compared as one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from vaeport.drift.edits.edit import Edit
from vaeport.drift.typed_place import Good
from vaeport.drift.typed_runs import Differing, Seen, TypedCopy
from vaeport.errors import ProofError
from vaeport.mapping import Plan
from vaeport.proof.dtypes import Signature
from vaeport.proof.prove import Proof


class TypedCopies:
    """One copy per type; `signatures` are the reference's rows. ProofError if the native side gives one model twice."""

    def __init__(self, proof: Proof, mapped: Plan, weights: Path, signatures: Mapping[str, Signature]) -> None:
        self._copies = {dtype: TypedCopy(proof, mapped, weights, dtype, rows) for dtype, rows in signatures.items()}
        if len({id(copy.vae) for copy in self._copies.values()}) < len(self._copies):
            raise ProofError("the native side gives one model for all types", fix="open a new one each time")

    def __getitem__(self, dtype: str) -> TypedCopy:
        """The copy in a type."""
        return self._copies[dtype]

    @property
    def first(self) -> TypedCopy:
        """Any of them."""
        return next(iter(self._copies.values()))

    def seen(self) -> dict[str, Seen]:
        """Types of a run of each."""
        return {dtype: copy.seen() for dtype, copy in self._copies.items()}

    def differing(self, seen: Mapping[str, Seen]) -> list[Differing]:
        """What differs in any type, in the order of execution."""
        ranked = []
        for dtype, copy in self._copies.items():
            order = seen[dtype].order
            ranked += [(order.get(d.path, len(order)), d) for d in copy.differing(seen[dtype])]
        return [d for _, d in sorted(ranked, key=lambda pair: pair[0])]

    @contextmanager
    def applied(self, edit: Edit) -> Iterator[ExitStack]:
        """The change in all copies, and how to take it back."""
        with ExitStack() as undo:
            for copy in self._copies.values():
                undo.callback(edit.apply(copy.vae))
            yield undo

    def kept(self, path: str, good: Sequence[Good], before: Mapping[str, Seen]) -> tuple[Good, bool, bool] | None:
        """The first change with which the run agrees at `path` too, and differs nowhere where it did not `before`.

        (the change, True, whether a later module raises now, which has to be changed as well)
        """
        known = {(d.dtype, d.row.native) for d in self.differing(before)}
        later = None
        for one in good:
            with self.applied(one.edit):
                after = self.seen()
            found = self.differing(after)
            new = [d for d in found if (d.dtype, d.row.native) not in known]
            if any(d.path == path for d in found) or not all(_unreached(before[d.dtype], d.path) for d in new):
                continue
            stuck = {dtype: s.raised[0] for dtype, s in after.items() if s.raised}
            if all(_unreached(before[dtype], place) for dtype, place in stuck.items()):
                return one, True, False
            if later is None and path not in stuck.values() and not any(d.path in stuck.values() for d in found):
                later = one
        return None if later is None else (later, True, True)


def _unreached(seen: Seen, path: str) -> bool:
    """A run that raised had not come there."""
    return seen.raised is not None and path not in seen.order
