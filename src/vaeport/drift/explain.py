"""`explain`: why a port differs. Aligns both sides, finds where an error is made, and tries changes until one mends it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from vaeport.drift.align import Unit, paths_of, units_of
from vaeport.drift.edits.parameters import weight_edits
from vaeport.drift.explanation import Explanation, Finding, UnitRow
from vaeport.drift.forced import DECODE, ENCODE, Difference, Forcing, Spot, Truth, error_of
from vaeport.drift.inside import first_differing
from vaeport.drift.search import Place, Trial, places_of, search
from vaeport.errors import ProofError
from vaeport.proof.cases import Case
from vaeport.proof.jobs import Job
from vaeport.proof.prove import Proof
from vaeport.proof.recording import Captured, written_at
from vaeport.vae import VAE

MOST = 6
"""Faults that are peeled off one after the other."""


def explain(proof: Proof, *, cases: Sequence[Case] | None = None, seconds: float = 120.0) -> Explanation:
    """Why `proof.native` is not `proof.reference`; see `Explanation`.

    cases       what both sides are run on, two at least, of different shapes; by default those of the proof
    seconds     for the search for one cause

    ProofError if a side does not run at all.
    """
    with tempfile.TemporaryDirectory(prefix="vaeport-drift-") as folder:
        return _Explainer(proof, cases, Path(folder), seconds).run()


class _Explainer:
    def __init__(self, proof: Proof, cases: Sequence[Case] | None, folder: Path, seconds: float) -> None:
        self.proof, self.folder, self.seconds = proof, folder, seconds
        self.answer = Explanation()
        start = time.monotonic()
        self.mapped, self.weights = proof.prepared(folder)
        self.truths = self._run_reference([c for c in cases or proof.chosen_cases if c.skip is None])
        self.answer.seconds["reference"] = time.monotonic() - start
        record = self.truths[0].captured.record
        called = {path for path, unit in record.units.items() if unit.calls}
        self.units = (Unit("encoder", ENCODE), Unit("decoder", DECODE), *units_of(self.mapped, called))
        self.references = {unit.native: unit.reference for unit in self.units}
        self.vae = self._opened()

    def _run_reference(self, cases: Sequence[Case]) -> list[Truth]:
        jobs, inputs = [], []
        for i, case in enumerate(cases):
            x, z = case.inputs(self.proof.seed + i)
            inputs.append((x.double(), z.double()))
            jobs.append(Job(case.name, x, z, units=paths_of(self.mapped), folder=str(self.folder / f"case{i}")))
        captures = list(self.proof.reference.run(self.weights, jobs))
        for case, capture in zip(cases, captures, strict=True):
            if capture.error is not None:
                raise ProofError("the reference does not run", where=case.name, found=capture.error)
        raw = not self.proof.native.normalized
        return [
            Truth(x, z, capture.outputs, Captured(self.folder / f"case{i}"), raw)
            for i, ((x, z), capture) in enumerate(zip(inputs, captures, strict=True))
        ]

    def _opened(self) -> VAE:
        vae = self.proof.native.open(self.weights)
        nn.Module.to(vae, torch.float64)
        return vae.eval().requires_grad_(False)

    def run(self) -> Explanation:
        start = time.monotonic()
        pieces = self.vae.encode_pieces, self.vae.decode_pieces
        # hooks see modules that are called, and pieces go through `step`
        self.vae.encode_pieces = self.vae.decode_pieces = None
        self.forcings = [Forcing(self.proof.native, self.vae, self.units, truth) for truth in self.truths]
        self._weights()
        unexplained: set[str] = set()
        first: list[Difference] | None = None
        for _ in range(MOST):
            found = self._differences()
            first = found if first is None else first
            places = [place for place in places_of(found) if place.unit not in unexplained]
            if not places:
                break
            if not self._explain(places[0]):
                unexplained.add(places[0].unit)
        self._rows(first or [])
        self.vae.encode_pieces, self.vae.decode_pieces = pieces
        self.answer.explained = self._holds()
        self.answer.seconds["search"] = time.monotonic() - start
        return self.answer

    def _differences(self) -> list[Difference]:
        """Those of the first case that has any; what a whole unit does not show is how the sides are cut up."""
        runs = [forcing.run(("encode", "decode"), {}) for forcing in self.forcings]
        for i, found in enumerate(runs):
            self.case = i
            clean: dict[str, bool] = {}
            real = [d for d in found if not self._by_design(d, clean)]
            if real:
                return real
        return []

    def _by_design(self, difference: Difference, clean: dict[str, bool]) -> bool:
        """The unit around it is right as a whole."""
        forcing, unit = self.forcings[self.case], difference.spot.unit
        around = forcing.parents.get(unit, "") if difference.spot.at == "inside" else unit
        for name in (around, forcing.parents.get(around, "")):
            if name and name not in clean:
                clean[name] = not Trial(forcing, Place(name, [Difference(Spot(name, "after"), 0.0)])).whole()
            if name and clean[name]:
                return True
        return False

    def _explain(self, place: Place) -> bool:
        forcing = self.forcings[self.case]
        trial = Trial(forcing, place)
        checks = [Trial(other, place) for other in self.forcings if other is not forcing]
        reference = self.references.get(place.unit, "")
        where = place.spots[0].at
        module = self.vae.get_submodule(place.unit)
        operations, at = first_differing(trial, reference)
        here = at[0] or written_at(module)
        record = forcing.truth.captured.record
        there = at[1] or (record.units[reference].place if reference in record.units else "unknown")
        says = place.differences[0].says or (operations and f"{operations[0]} differs from {operations[1]}") or ""
        with ExitStack() as kept:
            for truth in self.truths:
                kept.enter_context(truth.kept())
            found = search(trial, checks, reference, self.seconds)
        finding = Finding(
            place.unit, reference, where, place.unit, None,
            f"no change that was tried mends it{f'; {says}' if says else ''}",
            place.differences[0].error, places=(here, there), operations=operations, tried=found.tried,
        )
        self.answer.findings.append(finding)
        if found.edit is None:
            return False
        finding.cause, finding.change, finding.module = found.edit.cause, found.edit.change, found.edit.module
        finding.apply, finding.remaining = found.edit.apply, found.remaining
        found.edit.apply(self.vae)
        return True

    def _weights(self) -> None:
        """Weights that are not what the map makes of the reference's."""
        steps = {step.native: step for step in self.mapped.steps}
        with safe_open(self.weights, framework="pt") as file:

            def expected(name: str) -> torch.Tensor:
                return steps[name].read(file.get_tensor).double()

            for edit in weight_edits(self.vae, expected, list(steps)):
                owner = max((u.native for u in self.units if _within(edit.module, u.native)), key=len, default="")
                reference = self.references.get(owner, "")
                here = written_at(self.vae.get_submodule(edit.module))
                record = self.truths[0].captured.record
                there = record.units[reference].place if reference in record.units else "unknown"
                self.answer.findings.append(
                    Finding(owner, reference, "inside", edit.module, edit.cause, edit.change, float("nan"), 0.0, (here, there), apply=edit.apply)
                )
                edit.apply(self.vae)

    def _rows(self, found: list[Difference]) -> None:
        errors: dict[str, float] = {}
        for difference in found:
            errors.setdefault(difference.spot.unit, difference.error)
        compared = {unit for unit, _ in self.forcings[0].shapes}
        for unit in self.units:
            error = errors.get(unit.native)
            status = "origin" if error is not None else "same" if unit.native in compared else "not compared"
            self.answer.units.append(UnitRow(unit.native, unit.reference, error, status))

    def _holds(self) -> bool:
        """Gate S on every case, as users run it."""
        for forcing, truth in zip(self.forcings, self.truths, strict=True):
            for half in ("encode", "decode"):
                try:
                    outputs = forcing.outputs(half)
                except Exception as error:  # a wrong port may raise anything
                    self.answer.left_out.append(f"{half} does not run: {type(error).__name__}: {error}")
                    return False
                for name, value in outputs.items():
                    if name in truth.outputs and error_of(value, truth.outputs[name]) > 1e-10:
                        return False
        return True


def _within(name: str, unit: str) -> bool:
    return name == unit or name.startswith(f"{unit}.")
