"""`prove`: carries out gates S, P and D on a reference and a native side and returns the verdict."""

from __future__ import annotations

import hashlib
import json
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from vaeport.mapping import Layout, Plan, plan
from vaeport.proof.cases import Case, cases_of, single_case
from vaeport.proof.draw import draw_state
from vaeport.proof.jobs import Capture, Job
from vaeport.proof.judge import DTYPES, Judge, module_pairs
from vaeport.proof.remote import StaleCaptureError
from vaeport.proof.seeded import gains
from vaeport.proof.sides import NativeSide, Side
from vaeport.proof.verdict import Verdict
from vaeport.runtime.reading import weight_shapes
from vaeport.vae import VAE


@dataclass
class Proof:
    """What is proved: `native` against `reference`, on weights drawn from `seed` or taken from the file `weights`.

    layouts     of the native model; the one whose keys the reference has is used
    official    weights under the reference's keys, for a native side that has its own file of them
    dtypes      for gates P and D
    repeats     input seeds per dtype for gate P
    seen        is given what both sides gave by job, native first, before it is judged; it may not change it
    """

    reference: Side
    native: NativeSide
    layouts: Sequence[Layout]
    seed: int = 0
    weights: Path | None = None
    official: Mapping[str, Tensor] | None = None
    dtypes: Sequence[str] = ("float32", "bfloat16")
    repeats: int = 5
    cases: Sequence[Case] | None = None
    scale: Mapping[str, float] = field(default_factory=dict)
    seen: Callable[[Plan, Mapping[str, Capture], Mapping[str, Capture]], None] | None = None

    def run(self) -> Verdict:
        """Both sides, one after the other, then the gates."""
        verdict = Verdict(self.reference.describe(), self.native.describe())
        shapes = verdict.reference.pop("shapes")
        mine, theirs = verdict.native["files"], verdict.reference["files"]
        shared = sorted(file for file, digest in mine.items() if digest in theirs.values())
        if shared:
            verdict.fail(
                "evidence", "self-comparison", ", ".join(shared), "both sides run the same source; nothing is compared"
            )
            return verdict
        if not theirs:
            verdict.fail("evidence", "empty", "reference", "no source file of it is known, so it may be our own code")
        if not self.chosen_cases:
            verdict.fail("evidence", "empty", "cases", "no case was run")
        for case in self.chosen_cases:
            if case.skip:
                verdict.fail("evidence", "skipped", case.name, f"the case was not run: {case.skip}")
        mapped = self._plan(shapes)
        ours, theirs = zip(*module_pairs(mapped), strict=True)
        with tempfile.TemporaryDirectory(prefix="vaeport-") as folder:
            weights = self._write_weights(Path(folder), shapes, mapped)
            jobs = self._jobs()
            try:
                reference = self._collect(self.reference, weights, jobs, theirs)
            except StaleCaptureError as error:
                verdict.fail("evidence", "stale", "capture", str(error))
                return verdict
            needed = [job for job in jobs if not job.relaid and (job.whole or job.dtype)]
            native = self._collect(self.native, weights, needed, ours)
            verdict.evidence = self._evidence(weights, shapes, reference)
        if self.seen is not None:
            self.seen(mapped, native, reference)
        judge = Judge(verdict, native, reference, drawn=self.official is None)
        judge.same_function([case.name for case in self.chosen_cases if case.skip is None])
        for name in self.dtypes:
            judge.same_precision(name, self.repeats)
            judge.same_types(name, mapped)
        return verdict

    def prepared(self, folder: Path) -> tuple[Plan, Path]:
        """The plan of the weights, and a file in `folder` with those that the reference loads."""
        shapes = self.reference.describe()["shapes"]
        mapped = self._plan(shapes)
        return mapped, self._write_weights(folder, shapes, mapped)

    @cached_property
    def template(self) -> VAE:
        """The native model without memory for weights."""
        with torch.device("meta"):
            return self.native.template()

    @cached_property
    def chosen_cases(self) -> Sequence[Case]:
        """What gate S runs on."""
        return cases_of(self.template.contract) if self.cases is None else self.cases

    def _plan(self, shapes: Mapping[str, Sequence[int]]) -> Plan:
        native = weight_shapes(self.template)
        stored = {k: tuple(v) for k, v in shapes.items()}
        plans = [plan(layout, native, stored) for layout in self.layouts]
        best = min(plans, key=lambda p: p.misfits)
        return best.require(
            self.reference.describe()["name"], "the reference has other keys than every layout of the native model"
        )

    def _write_weights(self, folder: Path, shapes: Mapping[str, Sequence[int]], mapped: Plan) -> Path:
        """A component folder in the reference's layout; returns its weight file."""
        if self.official is not None:
            tensors = {key: tensor.contiguous() for key, tensor in self.official.items()}
        elif self.weights is not None:
            state = self.native.open(self.weights).state_dict()
            tensors = {key: tensor.contiguous() for key, tensor in mapped.write(state.__getitem__)}
            # a strict load asks for those too that no native weight is made of
            tensors |= draw_state({key: shapes[key] for key in mapped.dropped}, self.seed)
        else:
            scale = gains(mapped, clamped=self.template.contract.clamp is not None)
            tensors = draw_state(shapes, self.seed, scale={**scale, **self.scale})
        (folder / "config.json").write_text(json.dumps(self.template.arch.to_published()))
        path = folder / "diffusion_pytorch_model.safetensors"
        save_file(tensors, path)
        return path

    def _jobs(self) -> list[Job]:
        jobs = []
        for case in self.chosen_cases:
            if case.skip is None:
                x, z = case.inputs(self.seed)
                jobs += [Job(f"S {case.name}", x, z), Job(f"S {case.name} relaid", x, z, relaid=True)]
        single = single_case(self.template.contract)
        for name in self.dtypes:
            dtype = DTYPES[name]
            for r in range(self.repeats):
                x, z = single.inputs(self.seed + r)
                jobs += [Job(f"P {name} {r} truth", x, z, rounded=dtype)]
            for r in range(self.repeats):
                x, z = single.inputs(self.seed + r)
                jobs += [Job(f"P {name} {r}", x, z, dtype, rounded=dtype)]
            jobs.append(self.types_job(name))
        return jobs

    def types_job(self, name: str, rows: tuple[str, ...] = ()) -> Job:
        """The run of gate D in one type; `rows` are the modules that are watched."""
        x, z = cases_of(self.template.contract)[-1].inputs(self.seed)
        return Job(f"D {name}", x, z, DTYPES[name], rounded=DTYPES[name], rows=rows)

    def _collect(self, side: Side, weights: Path, jobs: list[Job], rows: tuple[str, ...]) -> dict[str, Capture]:
        asked = [job if job.rows is None else replace(job, rows=tuple(dict.fromkeys(rows))) for job in jobs]
        return {job.name: capture for job, capture in zip(asked, side.run(weights, asked), strict=True)}

    def _evidence(
        self, weights: Path, shapes: Mapping[str, Sequence[int]], reference: Mapping[str, Capture]
    ) -> dict[str, object]:
        truth = [c for c in reference.values() if c.outputs]
        return {
            "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
            "weights": "official" if self.official else "drawn" if self.weights is None else self.weights.name,
            "seed": self.seed,
            "inputs_sha256": {c.name: [_digest(t) for t in c.inputs(self.seed)] for c in self.chosen_cases},
            "cases": {c.name: {"media": c.media, "latent": c.latent} for c in self.chosen_cases},
            "parameters": sum(int(torch.Size(s).numel()) for s in shapes.values()),
            "tensors_compared": sum(len(c.outputs) for c in truth),
            "elements_compared": sum(t.numel() for c in truth for t in c.outputs.values()),
            "promoted_casts": sorted({p for c in truth for p in c.promoted}),
            "platform": platform.platform(),
            "threads": torch.get_num_threads(),
            "mkldnn": torch.backends.mkldnn.is_available(),
            "tf32": False,
        }


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()
