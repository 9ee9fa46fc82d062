"""One weight file, the verdict on it, and both models loaded from it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from bench.work import Model
from vaeport.proof.calling import Caller, build
from vaeport.proof.cases import single_case
from vaeport.proof.importing import import_object
from vaeport.proof.prove import Proof
from vaeport.proof.sides import NativeSide, ReferenceSide
from vaeport.proof.verdict import Verdict
from vaeport.registry import ModelRegistry
from vaeport.runtime.load import load
from vaeport.vae import VAE

WEIGHTS = "diffusion_pytorch_model.safetensors"


@dataclass(frozen=True)
class Proved:
    """Drawn weights in a component folder, and what the proof on just this file said."""

    model: Model
    dtype: str
    device: str
    folder: Path
    verdict: Verdict

    def native(self) -> VAE:
        """Our model with these weights."""
        return load(self.folder, device=self.device, dtype=self.dtype)

    def reference(self) -> Caller:
        """Diffusers' model with these weights, and how it is called."""
        module = build(import_object(self.model.reference), self.model.arch.to_published())
        module.load_state_dict(load_file(self.folder / WEIGHTS))
        # nn.Module's own, since a subclass's may keep some weights in another type
        nn.Module.to(module, self.device, getattr(torch, self.dtype))
        return Caller(module, self.model.convention, {})

    def summary(self) -> dict[str, Any]:
        """PASS or FAIL, the worst figure of each gate over its limit, reasons, and the hash of the weights."""
        worst: dict[str, float] = {}
        for row in self.verdict.rows:
            worst[row.gate] = max(worst.get(row.gate, 0.0), row.figure)
        return {
            "verdict": "PASS" if self.verdict else "FAIL",
            "gates": worst,
            "reasons": [f"gate {f.gate}, {f.name}: {f.where}: {f.says}" for f in self.verdict.failures[:5]],
            "weights_sha256": self.verdict.evidence.get("weights_sha256"),
        }


def prove_weights(model: Model, dtype: str, device: str, folder: Path) -> Proved:
    """Draws weights, proves them by gates S, P and D on one small case, and keeps the file that the proof ran on.

    The case is the shortest with all rules in it (video: 9 frames), since the whole proof of every model at full width
    is the tests' work.
    """
    registration = ModelRegistry.find(model.native)

    def opened(path: Path) -> VAE:
        shutil.copytree(path.parent, folder, dirs_exist_ok=True)
        return load(path, device=device)

    verdict = Proof(
        ReferenceSide(model.reference, model.arch.to_published(), device=device, convention=model.convention),
        NativeSide(model.label, lambda: model.cls(model.arch), opened, device),
        registration.layouts,
        dtypes=(dtype,),
        repeats=1,
        cases=(single_case(model.contract),),
    ).run()
    return Proved(model, dtype, device, folder, verdict)
