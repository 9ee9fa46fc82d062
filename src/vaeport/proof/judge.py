"""The gates applied to what both sides gave, written into the verdict."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from vaeport.mapping import Plan
from vaeport.proof import gates
from vaeport.proof.cases import unfit
from vaeport.proof.dtypes import Signature
from vaeport.proof.jobs import Capture
from vaeport.proof.verdict import Row, Verdict

HALVES = ("encoder.", "decoder.")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
REQUIRED = ("decoded", "unclamped")
LATENTS = ("mean", "normalized")
"""At least one of them is required too."""
OPTIONAL = ("round_trip", "moments", "std", *LATENTS)
_MODULE_ROWS = ("input", "accumulation", "output")
_WEIGHT_ROWS = ("stored", "used")


def weight_pairs(mapped: Plan) -> list[tuple[str, str]]:
    """Native and reference names of the same weight; statistics of latents, which no network reads, are none."""
    return [(s.native, key) for s in mapped.steps if s.native.startswith(HALVES) for key in s.stored]


def module_pairs(mapped: Plan) -> list[tuple[str, str]]:
    """Native and reference paths of the modules that own the same weight."""
    pairs = ((native.rpartition(".")[0], key.rpartition(".")[0]) for native, key in weight_pairs(mapped))
    return list(dict.fromkeys(pairs))


def _holders(paths: Iterable[str]) -> set[str]:
    """Those that other paths lie in."""
    return {".".join(parts[:n]) for parts in (path.split(".") for path in paths) for n in range(1, len(parts))}


@dataclass(frozen=True)
class TypeRow:
    """One row of gate D: types that the native side has there, and the reference.

    meant   why they may differ, if the map says so
    """

    native: str
    reference: str
    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    meant: str | None = None

    @property
    def same(self) -> bool:
        """The types are."""
        return self.ours == self.theirs

    @property
    def missing(self) -> bool:
        """Of what every run shows, one side showed nothing."""
        always = not self.native.endswith("accumulation") and not self.native.startswith("free ")
        return always and not (self.ours and self.theirs)

    def says(self) -> str:
        """Both sides, in words."""
        ours, theirs = (" ".join(side) or "none" for side in (self.ours, self.theirs))
        return f"{self.native}: {ours}; {self.reference}: {theirs}"


def type_rows(mapped: Plan, ours: Signature, theirs: Signature) -> list[TypeRow]:
    """What gate D compares, of two runs in one type."""
    rows = [(f"{a}: {what}", f"{b}: {what}") for a, b in weight_pairs(mapped) for what in _WEIGHT_ROWS]
    pairs = module_pairs(mapped)
    # what a module accumulates that holds other modules of the map is theirs, and is compared there
    holders = [_holders(side) for side in zip(*pairs, strict=True)]
    rows += [
        (f"{a}: {what}", f"{b}: {what}")
        for a, b in pairs
        for what in _MODULE_ROWS
        if what != "accumulation" or (a not in holders[0] and b not in holders[1])
    ]
    rows += [(row, row) for row in sorted({*ours, *theirs}) if row.startswith("free ")]
    notes = mapped.layout.dtype_notes
    meant = {a: next((n.reason for n in notes if re.fullmatch(n.native, a)), None) for a, _ in rows}
    return [TypeRow(a, b, tuple(ours.get(a, ())), tuple(theirs.get(b, ())), meant[a]) for a, b in dict.fromkeys(rows)]


@dataclass
class Judge:
    """Captures of both sides by job name.

    drawn       the weights were drawn, so a case that can show no fault is a fault of the case, and fails
    """

    verdict: Verdict
    native: Mapping[str, Capture]
    reference: Mapping[str, Capture]
    drawn: bool = True

    def same_function(self, cases: list[str]) -> None:
        """Gate S on every case, and whether the case can show a fault at all."""
        fail = self.verdict.fail
        for name in (f"S {case}" for case in cases):
            theirs, again = self.reference[name], self.reference[f"{name} relaid"]
            if not (self._usable("S", name) and self._gave("S", f"{name}, reference again", again)):
                continue
            for reason in unfit(theirs.health, theirs.clamped):
                if self.drawn:
                    fail("evidence", "degenerate case", name, reason)
                else:
                    self.verdict.notes.append(f"{name}: {reason}; published weights are what they are")
            for output, truth in theirs.outputs.items():
                where = f"{name} {output}"
                if truth.dtype != torch.float64:
                    fail("evidence", "wrong dtype", where, f"the reference gave {truth.dtype}, not float64")
                    continue
                steady = gates.well_conditioned(output, truth, again.outputs[output])
                if not steady.passed:
                    says = f"two evaluations of the reference differ by {steady.figure:.2g} of its rms"
                    fail("evidence", "ill-conditioned", where, says)
                found = self.native[name].outputs.get(output)
                if found is None or found.shape != truth.shape:
                    mine = "has none" if found is None else list(found.shape)
                    fail("S", "shape", where, f"native {mine}, reference {list(truth.shape)}")
                    continue
                measure = gates.same_function(output, found, truth)
                says = f"differs by {measure.figure:.3g} of the slice's rms, more than {measure.limit:g}"
                self._row("S", name, "same function", where, measure, says)
            absent = ", ".join(output for output in OPTIONAL if output not in theirs.outputs)
            if absent:
                self.verdict.notes.append(f"{name}: the reference offers no {absent}, so nothing is compared there")

    def same_precision(self, dtype: str, repeats: int) -> None:
        """Gate P in one type."""
        fail = self.verdict.fail
        names = [f"P {dtype} {r}" for r in range(repeats)]
        for name in names:
            theirs = self.reference[name]
            if theirs.error is None and not all(t.isfinite().all() for t in theirs.outputs.values()):
                fail("P", "unsupported by the reference", name, f"the reference overflows in {dtype}")
                return
            if not (self._usable("P", name) and self._gave("P", f"{name} truth", self.reference[f"{name} truth"])):
                return
            if theirs.stored != [dtype]:
                fail("evidence", "wrong dtype", name, f"the reference keeps weights in {', '.join(theirs.stored)}")
                return
        for output in (o for o in self.reference[names[0]].outputs if o in self.native[names[0]].outputs):
            sides = [(self.native[n], self.reference[n], self.reference[f"{n} truth"]) for n in names]
            runs = [(a.outputs[output], b.outputs[output], t.outputs[output]) for a, b, t in sides]
            noise = gates.signal([(r, t) for _, r, t in runs])
            if noise > gates.NO_SIGNAL:
                says = f"the reference's own error is {noise:.1%} of the output"
                fail("P", "no signal", f"{dtype} {output}", says)
            for measure in gates.same_precision(output, runs, DTYPES[dtype]):
                says = f"{measure.figure:.3g} times the reference's own rounding error, more than {measure.limit:g}"
                self._row(f"P {dtype}", f"{repeats} seeds", "same precision", f"{dtype} {output}", measure, says)

    def same_types(self, dtype: str, mapped: Plan) -> None:
        """Gate D in one type."""
        name = f"D {dtype}"
        ours, theirs = self.native[name], self.reference[name]
        if ours.error or theirs.error:
            self.verdict.fail("D", "error", dtype, str(ours.error or theirs.error))
            return
        differing = 0
        rows = type_rows(mapped, ours.signature, theirs.signature)
        for row in rows:
            says = f"in {dtype}: {row.says()}"
            if row.missing:
                self.verdict.fail("evidence", "empty", row.native, f"nothing was seen of it; {says}")
            if row.meant is not None and not row.same:
                self.verdict.notes.append(f"gate D {says} ({row.meant})")
            elif not row.same:
                differing += 1
                self.verdict.fail("D", "dtype policy", row.native, says)
        figure = float(differing)
        self.verdict.rows.append(Row(name, "types", "types", f"{len(rows)} rows", figure, 0.5, differing == 0))

    def _usable(self, gate: str, name: str) -> bool:
        native = self._gave(gate, f"{name}, native", self.native[name])
        return self._gave(gate, f"{name}, reference", self.reference[name]) and native

    def _gave(self, gate: str, where: str, capture: Capture) -> bool:
        """A side ran to the end and gave the required outputs, all finite."""
        if capture.error is not None:
            kind = "not float64" if capture.error.startswith("NotFloat64Error") else "error"
            self.verdict.fail(gate, kind, where, capture.error)
            return False
        given = {output for output, tensor in capture.outputs.items() if tensor.numel()}
        absent = [output for output in REQUIRED if output not in given] + (
            [] if given & set(LATENTS) else [" or ".join(LATENTS)]
        )
        if absent:
            self.verdict.fail("evidence", "empty", where, f"no output {', '.join(absent)}")
            return False
        broken = [output for output, t in capture.outputs.items() if not t.isfinite().all()]
        if broken:
            self.verdict.fail(gate, "non-finite", where, f"{', '.join(broken)} has values that are not finite")
            return False
        return True

    def _row(self, gate: str, case: str, name: str, where: str, measure: gates.Measure, says: str) -> None:
        row = Row(gate, case, measure.output, measure.slice, measure.figure, measure.limit, measure.passed)
        self.verdict.rows.append(row)
        if not measure.passed:
            self.verdict.fail(gate[0], name, f"{where}, {measure.slice}", says)
