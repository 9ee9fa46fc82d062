"""`prove`: carries out gates S, P and D on a reference and a native side and returns the verdict."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from vaeport.mapping import Layout, Plan, plan
from vaeport.proof import gates
from vaeport.proof.cases import Case, cases_of, timing_case, unfit
from vaeport.proof.draw import draw_state
from vaeport.proof.remote import StaleCaptureError
from vaeport.proof.seeded import gains
from vaeport.proof.sides import Capture, Job, NativeSide, Side
from vaeport.proof.verdict import Row, Verdict
from vaeport.vae import VAE

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
REQUIRED = ("mean", "decoded", "unclamped")
OPTIONAL = ("round_trip", "moments", "std", "normalized")


@dataclass
class Proof:
    """What is proved: `native` against `reference`, on weights drawn from `seed` or taken from the file `weights`.

    layouts     of the native model; the one whose keys the reference has is used
    dtypes      for gates P and D
    repeats     input seeds per dtype for gate P
    """

    reference: Side
    native: NativeSide
    layouts: Sequence[Layout]
    seed: int = 0
    weights: Path | None = None
    dtypes: Sequence[str] = ("float32", "bfloat16")
    repeats: int = 5
    cases: Sequence[Case] | None = None
    scale: Mapping[str, float] = field(default_factory=dict)

    def run(self) -> Verdict:
        """Both sides, one after the other, then the gates."""
        verdict = Verdict(self.reference.describe(), self.native.describe())
        shapes = verdict.reference.pop("shapes")
        mine, theirs = verdict.native["files"], verdict.reference["files"]
        shared = sorted(set(mine) & set(theirs))
        if shared or (theirs and set(theirs.values()) & set(mine.values())):
            verdict.fail(
                "evidence", "self-comparison", ", ".join(shared), "both sides run the same source; nothing is compared"
            )
            return verdict
        if not self._cases:
            verdict.fail("evidence", "empty", "cases", "no case was run")
        for case in self._cases:
            if case.skip:
                verdict.fail("evidence", "skipped", case.name, f"the case was not run: {case.skip}")
        with tempfile.TemporaryDirectory(prefix="vaeport-") as folder:
            weights = self._write_weights(Path(folder), shapes)
            jobs = self._jobs()
            paths = self._paths(shapes)
            try:
                reference = self._collect(self.reference, weights, jobs, tuple(dict.fromkeys(f for _, f in paths)))
            except StaleCaptureError as error:
                verdict.fail("evidence", "stale", "capture", str(error))
                return verdict
            native = self._collect(
                self.native,
                weights,
                [j for j in jobs if not j.relaid and (j.whole or j.dtype)],
                tuple(dict.fromkeys(n for n, _ in paths)),
            )
            verdict.evidence = self._evidence(weights, shapes, reference)
        self._gate_s(verdict, native, reference)
        for name in self.dtypes:
            self._gate_p(verdict, native, reference, name)
            self._gate_d(verdict, native, reference, name, self._plan(shapes))
        return verdict

    @cached_property
    def _template(self) -> VAE:
        with torch.device("meta"):
            return self.native.template()

    @cached_property
    def _cases(self) -> Sequence[Case]:
        return cases_of(self._template.contract) if self.cases is None else self.cases

    def _plan(self, shapes: Mapping[str, Sequence[int]]) -> Plan:
        native = {k: tuple(v.shape) for k, v in self._template.state_dict().items()}
        stored = {k: tuple(v) for k, v in shapes.items()}
        plans = [plan(layout, native, stored) for layout in self.layouts]
        best = min(plans, key=lambda p: len(p.missing) + len(p.unexpected) + len(p.misshapen))
        return best.require(
            self.reference.describe()["name"], "the reference has other keys than every layout of the native model"
        )

    def _write_weights(self, folder: Path, shapes: Mapping[str, Sequence[int]]) -> Path:
        """A component folder in the reference's layout; returns its weight file."""
        mapped = self._plan(shapes)
        if self.weights is not None:
            state = self.native.open(self.weights).state_dict()
            tensors = {k: t.contiguous() for step in mapped.steps for k, t in step.write(state[step.native]).items()}
        else:
            scale = gains(mapped, clamped=self._template.contract.clamp is not None)
            tensors = draw_state(shapes, self.seed, scale={**scale, **self.scale})
        (folder / "config.json").write_text(json.dumps(self._template.arch.to_published()))
        path = folder / "diffusion_pytorch_model.safetensors"
        save_file(tensors, path)
        return path

    def _jobs(self) -> list[Job]:
        jobs = []
        for case in self._cases:
            if case.skip is None:
                x, z = case.inputs(self.seed)
                jobs += [Job(f"S {case.name}", x, z), Job(f"S {case.name} relaid", x, z, relaid=True)]
        single = timing_case(self._template.contract)
        for name in self.dtypes:
            dtype = DTYPES[name]
            for r in range(self.repeats):
                x, z = single.inputs(self.seed + r)
                jobs += [Job(f"P {name} {r} truth", x, z, rounded=dtype)]
            for r in range(self.repeats):
                x, z = single.inputs(self.seed + r)
                jobs += [Job(f"P {name} {r}", x, z, dtype, rounded=dtype)]
            x, z = cases_of(self._template.contract)[-1].inputs(self.seed)
            jobs.append(Job(f"D {name}", x, z, dtype, rounded=dtype, rows=()))
        return jobs

    def _collect(self, side: Side, weights: Path, jobs: list[Job], rows: tuple[str, ...]) -> dict[str, Capture]:
        asked = [
            job if job.rows is None else Job(job.name, job.media, job.latent, job.dtype, job.rounded, rows=rows)
            for job in jobs
        ]
        return {job.name: capture for job, capture in zip(asked, side.run(weights, asked), strict=True)}

    def _paths(self, shapes: Mapping[str, Sequence[int]]) -> list[tuple[str, str]]:
        """Pairs of module paths that own the same weights."""
        pairs = [
            (step.native.rpartition(".")[0], key.rpartition(".")[0])
            for step in self._plan(shapes).steps
            for key in step.stored
        ]
        return list(dict.fromkeys(pairs))

    def _gate_s(self, verdict: Verdict, native: Mapping[str, Capture], reference: Mapping[str, Capture]) -> None:
        for case in self._cases:
            if case.skip:
                continue
            name = f"S {case.name}"
            ours, theirs, again = native[name], reference[name], reference[f"{name} relaid"]
            if not _usable(verdict, "S", name, ours, theirs) or not _usable(verdict, "S", name, again, theirs):
                continue
            for reason in unfit(theirs.health, theirs.clamped):
                verdict.fail("evidence", "degenerate case", name, reason)
            for output, truth in theirs.outputs.items():
                if truth.dtype != torch.float64:
                    says = f"the reference gave {truth.dtype}, not float64"
                    verdict.fail("evidence", "wrong dtype", f"{name} {output}", says)
                    continue
                steady = gates.well_conditioned(output, truth, again.outputs[output])
                if not steady.passed:
                    says = f"two evaluations of the reference differ by {steady.figure:.2g} of its rms"
                    verdict.fail("evidence", "ill-conditioned", f"{name} {output}", says)
                _compare(verdict, name, output, ours.outputs, truth)
            absent = [output for output in OPTIONAL if output not in theirs.outputs]
            if absent:
                verdict.notes.append(
                    f"{name}: the reference offers no {', '.join(absent)}, so nothing is compared there"
                )

    def _gate_p(
        self, verdict: Verdict, native: Mapping[str, Capture], reference: Mapping[str, Capture], dtype: str
    ) -> None:
        names = [f"P {dtype} {r}" for r in range(self.repeats)]
        for name in names:
            ours, theirs, truth = native[name], reference[name], reference[f"{name} truth"]
            if theirs.error is None and not all(t.isfinite().all() for t in theirs.outputs.values()):
                verdict.fail("P", "unsupported by the reference", name, f"the reference overflows in {dtype}")
                return
            if not (_usable(verdict, "P", name, ours, theirs) and _usable(verdict, "P", name, truth, theirs)):
                return
            if theirs.stored != [dtype]:
                verdict.fail(
                    "evidence", "wrong dtype", name, f"the reference keeps weights in {', '.join(theirs.stored)}"
                )
                return
        for output in reference[names[0]].outputs:
            if output not in native[names[0]].outputs:
                continue
            runs = [
                (native[n].outputs[output], reference[n].outputs[output], reference[f"{n} truth"].outputs[output])
                for n in names
            ]
            noise = gates.signal([(r, t) for _, r, t in runs])
            if noise > gates.NO_SIGNAL:
                verdict.fail(
                    "P", "no signal", f"{dtype} {output}", f"the reference's own error is {noise:.1%} of the output"
                )
            for measure in gates.same_precision(output, runs, DTYPES[dtype]):
                row = Row(
                    f"P {dtype}",
                    f"{self.repeats} seeds",
                    output,
                    measure.slice,
                    measure.figure,
                    measure.limit,
                    measure.passed,
                )
                verdict.rows.append(row)
                if not measure.passed:
                    says = f"{measure.figure:.3g} times the reference's own rounding error, more than {measure.limit:g}"
                    verdict.fail("P", "same precision", f"{dtype} {output}, {measure.slice}", says)

    def _gate_d(
        self,
        verdict: Verdict,
        native: Mapping[str, Capture],
        reference: Mapping[str, Capture],
        dtype: str,
        mapped: Plan,
    ) -> None:
        ours, theirs = native[f"D {dtype}"], reference[f"D {dtype}"]
        if ours.error or theirs.error:
            verdict.fail("D", "error", dtype, str(ours.error or theirs.error))
            return
        names: dict[str, str] = {row: row for row in {*ours.signature, *theirs.signature} if row.startswith("free ")}
        rows = list(names.items())
        for step in mapped.steps:
            for key in step.stored:
                rows += [(f"{step.native}: {what}", f"{key}: {what}") for what in ("stored", "used")]
        for mine, foreign in self._module_pairs(mapped):
            rows += [(f"{mine}: {what}", f"{foreign}: {what}") for what in ("input", "accumulation", "output")]
        differing = 0
        for mine, foreign in dict.fromkeys(rows):
            a, b = ours.signature.get(mine, []), theirs.signature.get(foreign, [])
            if a == b:
                continue
            note = next((n for n in mapped.layout.dtype_notes if re.fullmatch(n.native, mine)), None)
            says = f"{mine}: {' '.join(a) or 'none'}; {foreign}: {' '.join(b) or 'none'}"
            if note is not None:
                verdict.notes.append(f"gate D {dtype}: {says} ({note.reason})")
                continue
            differing += 1
            verdict.fail("D", "dtype policy", mine, f"in {dtype}: {says}")
        verdict.rows.append(
            Row(f"D {dtype}", "types", "rows", f"{len(rows)} rows", float(differing), 0.5, differing == 0)
        )

    @staticmethod
    def _module_pairs(mapped: Plan) -> list[tuple[str, str]]:
        pairs = [
            (step.native.rpartition(".")[0], key.rpartition(".")[0]) for step in mapped.steps for key in step.stored
        ]
        return list(dict.fromkeys(pairs))

    def _evidence(
        self, weights: Path, shapes: Mapping[str, Sequence[int]], reference: Mapping[str, Capture]
    ) -> dict[str, object]:
        truth = [c for c in reference.values() if c.outputs]
        return {
            "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
            "weights": "drawn" if self.weights is None else str(self.weights.name),
            "seed": self.seed,
            "inputs_sha256": {c.name: [_digest(t) for t in c.inputs(self.seed)] for c in self._cases},
            "cases": {c.name: {"media": c.media, "latent": c.latent} for c in self._cases},
            "parameters": sum(int(torch.Size(s).numel()) for s in shapes.values()),
            "tensors_compared": sum(len(c.outputs) for c in truth),
            "elements_compared": sum(t.numel() for c in truth for t in c.outputs.values()),
            "promoted_casts": sorted({p for c in truth for p in c.promoted}),
            "platform": platform.platform(),
            "threads": torch.get_num_threads(),
            "mkldnn": torch.backends.mkldnn.is_available(),
            "tf32": torch.backends.cuda.matmul.allow_tf32,
        }


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


def _usable(verdict: Verdict, gate: str, name: str, ours: Capture, theirs: Capture) -> bool:
    """Both sides ran to the end and gave the required outputs, all finite."""
    for who, capture in (("native", ours), ("reference", theirs)):
        if capture.error is not None:
            kind = "not float64" if capture.error.startswith("NotFloat64Error") else "error"
            verdict.fail(gate, kind, f"{name}, {who}", capture.error)
            return False
        absent = [output for output in REQUIRED if output not in capture.outputs or not capture.outputs[output].numel()]
        if absent:
            verdict.fail("evidence", "empty", f"{name}, {who}", f"no output {', '.join(absent)}")
            return False
        broken = [output for output, t in capture.outputs.items() if not t.isfinite().all()]
        if broken:
            verdict.fail(gate, "non-finite", f"{name}, {who}", f"{', '.join(broken)} has values that are not finite")
            return False
    return True


def _compare(verdict: Verdict, name: str, output: str, ours: Mapping[str, Tensor], truth: Tensor) -> None:
    """Gate S for one output."""
    found = ours.get(output)
    if found is None or found.shape != truth.shape:
        says = f"native {'has none' if found is None else list(found.shape)}, reference {list(truth.shape)}"
        verdict.fail("S", "shape", f"{name} {output}", says)
        return
    measure = gates.same_function(output, found, truth)
    verdict.rows.append(Row("S", name, output, measure.slice, measure.figure, measure.limit, measure.passed))
    if not measure.passed:
        says = f"differs by {measure.figure:.3g} of the slice's rms, more than {measure.limit:g}"
        verdict.fail("S", "same function", f"{name} {output}, {measure.slice}", says)
