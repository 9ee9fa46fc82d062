"""The VAEs that are measured, at narrow widths: each prepared once, clean, for all of its faults."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.drift import oracle
from tests import narrow
from vaeport.proof.calling import Convention
from vaeport.proof.jobs import Capture, Job
from vaeport.proof.prove import Proof
from vaeport.proof.sides import ReferenceSide
from vaeport.runtime.load import load
from vaeport.vae import VAE

NAMES = ("kl", "wan", "wan2_2", "ltx2", "ltx1", "hunyuan_video", "oobleck")
Key = tuple[Any, ...]


@dataclass
class CachedSide(ReferenceSide):
    """A reference whose captures are kept: it is the same for every fault."""

    captures: dict[Key, Any] = field(default_factory=dict)
    described: dict[str, Any] = field(default_factory=dict)
    store: Path | None = None
    """Folder for what jobs write; None: it is not kept, as in a child, which ends soon."""
    kept: Path | None = None
    """Folder to which the component folder that it is run on is copied."""

    def describe(self) -> dict[str, Any]:
        if not self.described:
            self.described.update(super().describe())
        return dict(self.described)

    def run(self, weights: Path, jobs: Iterable[Job]) -> Iterator[Capture]:
        asked = list(jobs)
        if self.kept is not None:
            shutil.copytree(weights.parent, self.kept, dirs_exist_ok=True)
        file = hash(weights.read_bytes())
        keys = [(file, *key_of(job)) for job in asked]
        missing = [job for job, key in zip(asked, keys, strict=True) if key not in self.captures]
        fresh = dict(zip((job.name for job in missing), super().run(weights, missing), strict=True)) if missing else {}
        for job, key in zip(asked, keys, strict=True):
            capture = fresh.get(job.name)
            if capture is None:
                capture, written = self.captures[key]
                if job.folder is not None:
                    shutil.copytree(written, job.folder, copy_function=os.link, dirs_exist_ok=True)
            elif job.folder is None or self.store is not None:
                self.captures[key] = capture, self._stored(job)
            yield capture

    def _stored(self, job: Job) -> Path | None:
        """What a job has written, linked to a folder of its own, since its own goes."""
        if job.folder is None:
            return None
        target = Path(tempfile.mkdtemp(dir=self.store)) / "recorded"
        shutil.copytree(job.folder, target, copy_function=os.link)
        return target


def key_of(job: Job) -> Key:
    """What a job asks for."""
    tensors = [(tuple(t.shape), hash(t.contiguous().numpy().tobytes())) for t in (job.media, job.latent)]
    recorded = (job.units, job.folder is not None)
    return (job.name, *tensors, str(job.dtype), str(job.rounded), job.relaid, job.rows, *recorded)


@dataclass
class Prepared:
    """A VAE ready for its faults; nothing in it is of a class that a mutation could change.

    weights, clean              the oracle's weights, and what the clean VAE makes of the inputs with them
    proof_weights, proof_clean  the same with the weights that the proof draws, to which fixes may refer
    side, captures, described   of the reference, which every fault shares
    units                       that `explain` aligns on the clean pair
    """

    name: str
    weights: Path
    inputs: list[Any]
    clean: list[oracle.Outputs]
    proof_weights: Path
    proof_clean: list[oracle.Outputs]
    side: Mapping[str, Any]
    captures: dict[Key, Any]
    described: dict[str, Any]
    verdict: list[str]
    units: list[str] = field(default_factory=list)
    process: int = field(default_factory=os.getpid)


def prepare(name: str, folder: Path, seed: int) -> Prepared:
    """Draws the oracle's weights and inputs, runs the clean VAE on them, and proves it once to fill the cache."""
    clean = narrow.proof(name)
    side = clean.reference
    assert isinstance(side, ReferenceSide)
    told = {"path": side.path, "arguments": dict(side.arguments), "decode_arguments": side.convention.decode_arguments}
    cached = CachedSide(side.path, side.arguments, convention=side.convention, kept=folder / name / "proof")
    verdict = narrow.proof(name, reference=cached, dtypes=("float32", "bfloat16")).run()
    weights = oracle.write(folder / name / "oracle", cached.describe()["shapes"], side.arguments, seed)
    proved = folder / name / "proof" / weights.name
    vae, other = opened(weights).double(), opened(proved).double()
    inputs = oracle.runs(vae.contract, seed)
    outputs, others = ([oracle.outputs(v, run) for run in inputs] for v in (vae, other))
    failed = [f"{f.gate}: {f.name}: {f.where}" for f in verdict.failures]
    return Prepared(name, weights, inputs, outputs, proved, others, told, cached.captures, cached.described, failed)


def opened(weights: Path, fault: Callable[[VAE], None] | None = None) -> VAE:
    """A fresh copy of the native side on the oracle's weights, with a fault."""
    vae = load(weights.parent)
    if fault is not None:
        fault(vae)
    return vae


def proof_of(prepared: Prepared, fault: Callable[[VAE], None] | None = None, **options: Any) -> Proof:
    """The port's own proof of the faulty native side, against the reference as it is kept."""
    told = Convention(decode_arguments=prepared.side["decode_arguments"])
    side = CachedSide(
        prepared.side["path"],
        prepared.side["arguments"],
        convention=told,
        captures=prepared.captures,
        store=prepared.weights.parents[1] if os.getpid() == prepared.process else None,
        described=prepared.described,
    )
    return narrow.proof(prepared.name, fault, reference=side, **{"dtypes": ("float32", "bfloat16"), **options})
