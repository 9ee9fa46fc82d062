"""`explain_casts`: why a port that computes the same function computes it in other types."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from vaeport.drift.edits.edit import Edit, all_of
from vaeport.drift.explanation import NOTHING, Finding
from vaeport.drift.prepare import Prepared
from vaeport.drift.typed_copies import TypedCopies
from vaeport.drift.typed_place import Good, TypedPlace, candidates
from vaeport.drift.typed_reference import TypedReference
from vaeport.drift.typed_runs import Differing, Seen
from vaeport.mapping import Plan
from vaeport.proof.prove import Proof
from vaeport.proof.recording import written_at

MOST = 8
"""Faults that are peeled off one after the other."""


def explain_casts(proof: Proof, *, given: Prepared | None = None, seconds: float = 120.0) -> list[Finding]:
    """Which casts make gate D fail, in the order of execution; for a proof whose gate S holds.

    given       weights and map, if they are at hand
    seconds     for the search for one cause

    A finding's `error` is the relative rms difference from the reference's own result on the reference's own input, in
    the type that differs; 0.0 where that is not known. ProofError if the reference does not run.
    """
    with tempfile.TemporaryDirectory(prefix="vaeport-casts-") as name:
        mapped, weights = proof.prepared(Path(name)) if given is None else (given.mapped, given.weights)
        return _Explainer(proof, mapped, weights, Path(name), seconds).run()


class _Explainer:
    def __init__(self, proof: Proof, mapped: Plan, weights: Path, folder: Path, seconds: float) -> None:
        self.reference = TypedReference(proof, mapped, weights, folder)
        self.copies = TypedCopies(proof, mapped, weights, self.reference.signatures())
        self.seconds = seconds
        self.findings: list[Finding] = []
        self.pending: list[Finding] = []
        self.left: set[str] = set()
        self.made = ExitStack()

    def run(self) -> list[Finding]:
        """All faults, one after the other; each is mended before the next is looked for."""
        for _ in range(MOST):
            seen = self.copies.seen()
            found = [d for d in self.copies.differing(seen) if d.path not in self.left]
            raised = [(dtype, *s.raised) for dtype, s in seen.items() if s.raised and s.raised[0] not in self.left]
            if found:
                here = [d for d in found if d.path == found[0].path]
                explained = self._explain(here[0].path, here, [d.dtype for d in here], here[0].says(), seen)
                if explained is not None:
                    self._alike(*explained, [d for d in found if d.path != here[0].path])
            elif raised:
                dtype, path, error = raised[0]
                self._explain(path, [], [dtype], f"in {dtype} it raises {error}", seen)
            else:
                break
        else:
            seen = self.copies.seen()
        if any(s.raised for s in seen.values()):
            for finding in self.pending:
                finding.unexplained()
        rest = [d for d in self.copies.differing(seen) if d.path not in self.left]
        if rest:
            says = f"{rest[0].says()}, and {len(rest) - 1} rows more, behind {MOST} faults"
            self.findings.append(self._finding(rest[0].path, self._place(rest[0].path, rest[:1]), None, says, 0))
        return self.findings

    def _explain(
        self, path: str, here: Sequence[Differing], dtypes: Sequence[str], says: str, before: Mapping[str, Seen]
    ) -> tuple[Finding, Edit] | None:
        """Looks for the change that mends a place, and makes it."""
        deadline, tried = time.monotonic() + self.seconds, 0
        several: list[tuple[Finding, Edit]] = []
        with ExitStack() as made:
            for module in candidates(self.copies[dtypes[0]], path, here):
                place = self._place(path, here, module, dtypes)
                good = place.good(deadline)
                tried += place.tried
                kept = self.copies.kept(path, good, before)
                if kept is None and path.startswith("free ") and good:
                    kept = good[0], False, False  # one of several: the row is mended when all of them are
                if kept is None:
                    continue
                one, holds, raises = kept
                made.enter_context(self.copies.applied(one.edit))
                several.append((self._finding(path, place, one, says, tried), one.edit))
                if holds:
                    self.made.push(made.pop_all())
                    self.findings += [finding for finding, _ in several]
                    self.pending += [finding for finding, _ in several] if raises else []
                    return several[0]
        self.left.add(path)
        self.findings.append(self._finding(path, self._place(path, here, path, dtypes), None, says, tried))
        return None

    def _alike(self, finding: Finding, edit: Edit, found: Sequence[Differing]) -> None:
        """Makes the same change in all modules of the same code that differ as well."""
        vae = self.copies.first.vae
        where, edits = written_at(vae.get_submodule(edit.module)), list[Edit]()
        for path in dict.fromkeys(d.path for d in found if d.path in dict(vae.named_modules())):
            if written_at(vae.get_submodule(path)) != where:
                continue
            here = [d for d in found if d.path == path]
            edits += [
                one.edit for one in self._place(path, here).good(time.monotonic() + self.seconds, edit.change)[:1]
            ]
        if not edits:
            return
        every = Edit(edit.cause, edit.change, edit.module, all_of(other.apply for other in edits))
        before, paths = self.copies.seen(), {other.module for other in edits}
        with self.copies.applied(every) as kept:
            after = self.copies.differing(self.copies.seen())
            known = {(d.dtype, d.row.native) for d in self.copies.differing(before)}
            if all(d.path not in paths and (d.dtype, d.row.native) in known for d in after):
                self.made.push(kept.pop_all())
                finding.apply = all_of([edit.apply, every.apply])
                finding.change += f"; and so {', '.join(other.module for other in edits)}"

    def _place(
        self, path: str, here: Sequence[Differing], module: str | None = None, dtypes: Sequence[str] = ()
    ) -> TypedPlace:
        copies = [self.copies[dtype] for dtype in dict.fromkeys(dtypes or [d.dtype for d in here])]
        return TypedPlace(copies, path, path if module is None else module, here, self.reference)

    def _finding(self, path: str, place: TypedPlace, good: Good | None, says: str, tried: int) -> Finding:
        module = place.module if good else "" if path.startswith("free ") else path
        unit = module if good or path.startswith("free ") else path
        reference = self.reference.around(unit)
        here = written_at(place.copies[0].vae.get_submodule(module))
        cause, change = (good.edit.cause, good.edit.change) if good else (None, NOTHING)
        return Finding(
            unit,
            reference,
            "inside",
            module,
            cause,
            f"{change} ({says})" if good else f"{change}; {says}",
            place.before or 0.0,
            good.distance if good else None,
            places=(here, self.reference.place(place.copies[0].dtype, reference)),
            tried=tried,
            gate="D",
            apply=good.edit.apply if good else None,
        )
