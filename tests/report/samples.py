"""Reports to render: of a real proof with a wrong eps, and one whose every text is hostile."""

from __future__ import annotations

from pathlib import Path

import torch

from tests import narrow
from vaeport.configs import VAEArchConfig
from vaeport.models.autoencoder_kl import AutoencoderKL
from vaeport.proof.cases import Case
from vaeport.proof.prove import Proof
from vaeport.proof.sides import NativeSide, ReferenceSide
from vaeport.proof.verdict import Verdict
from vaeport.registry import ModelRegistry
from vaeport.report.build import of_verdict
from vaeport.report.pictures import png
from vaeport.report.schema import (
    Attempt,
    Command,
    Comparison,
    Dropped,
    Explained,
    Found,
    Frame,
    Mapped,
    Report,
    Stage,
    Term,
    Unit,
)
from vaeport.report.watched import Watched
from vaeport.runtime.load import load_as
from vaeport.vae import VAE

HOSTILE = "<script>alert(1)</script>\"'&|`*_[x](http://a.example)\n::error::x,y:z%0A{{ 7 * 7 }} @team #1 \x07"
ARCH = narrow.KL.replace(
    block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, scaling_factor=0.3, shift_factor=0.1
)
"""two pixels a latent"""
CASES = (Case("batch", (2, 3, 8, 12), (2, 4, 4, 6)), Case("shortest", (1, 3, 2, 4), (1, 4, 1, 2)))
COMMANDS = (("Run it again", "vaeport prove --native a --reference b:C"), ("Find out why", "vaeport prove --explain"))


def wrong_eps(vae: VAE) -> None:
    """Makes the decoder's last norm wrong."""
    vae.get_submodule("decoder.norm_out").eps = 1e-4


def proof(fault: narrow.Fault | None = None, arch: VAEArchConfig = ARCH) -> Proof:
    """Gate S on a small AutoencoderKL; the native side may have a fault, or another config."""

    def opened(path: Path) -> VAE:
        vae = load_as(registration, arch, path)
        if fault is not None:
            fault(vae)
        return vae

    registration = ModelRegistry.find("autoencoder_kl")
    reference = ReferenceSide("diffusers:AutoencoderKL", ARCH.to_published())
    native = NativeSide("autoencoder_kl", lambda: AutoencoderKL(arch), opened)
    return Proof(reference, native, registration.layouts, dtypes=(), cases=CASES)


def told(watched: Watched, verdict: Verdict) -> Report:
    """The report of a proof that ran."""
    return watched.report(verdict, COMMANDS)


def hostile(text: str = HOSTILE, *, passed: bool = False) -> Report:
    """Every text that comes from outside is `text`."""
    verdict = Verdict(
        {"name": text, "files": {text: text}, "versions": {text: text}},
        {"name": text, "files": {text: text}, "versions": {}},
        {"platform": text, "weights": text, "seed": text, "part": {"threads": text}},
    )
    verdict.notes.append(text)
    if not passed:
        for gate in ("S", "P", "D", "evidence", text):
            verdict.fail(gate, text, text, text)
    picture = pixel()
    found = Found(
        unit=text, reference_unit=text, where=text, module=text, cause=text, change=text, error=1.0,
        places=(text, text), operations=(text, text), tried=2,
        attempts=(Attempt(cause=text, module=text, change=text, remaining=0.5),),
    )  # fmt: skip
    frames = (Frame(label=text, native=picture, reference=picture, difference=None),)
    shown = Comparison(
        case=text, output=text, shape=(1, 3, 2, 2), reference_shape=(1, 3, 2, 2), error=1e-3, peak=1.0,
        axes=(text, text), heat=((0.1, None), (0.0, 0.2)), along_axis=text, along=(0.1, 0.2), frames=frames,
    )  # fmt: skip
    return of_verdict(verdict.to_json()).model_copy(
        update={
            "kind": "port",
            "title": text,
            "explanation": Explained(findings=(found,), explained=False, left_out=(text,)),
            "contract": (Term(name=text, native=text, reference=text, same=False),),
            "contract_from": text,
            "layout": text,
            "weights": (Mapped(native=text, reference=(text, text), rule=text, how=text, shape=(1, 2)),),
            "dropped": (Dropped(key=text, reason=text),),
            "units": (Unit(unit=text, reference=text, own=1.0, inherited="Infinity", after=None),),
            "comparisons": (shown,),
            "stages": (Stage(name=text, status="blocked", note=text), Stage(name=text, status="complete")),
            "lines": (text,),
            "environment": {text: text},
            "commands": (Command(purpose=text, line=text),),
            "absent": {"pictures": text},
        }
    )


def pixel() -> str:
    """A picture."""
    return png(torch.rand(3, 4, 6, generator=torch.Generator().manual_seed(0)))
