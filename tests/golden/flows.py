"""Make the golden flows: what a probe of each official class finds, its flow among it, without values.

python -m tests.golden.flows [NAME ...] [--check] [--cache DIR] [--mirror OWNER/NAME=GITDIR ...]
"""

from __future__ import annotations

import contextlib
import gzip
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from vaeport.errors import ProofError
from vaeport.mapping.flow import Flow
from vaeport.port.probe import probe
from vaeport.proof.calling import Convention
from vaeport.proof.sides import ReferenceSide

from .command import command
from .official import checkout, source
from .oracles import flux, ldm, stable_audio, wan

FOLDER = Path(__file__).with_name("flows")


@dataclass(frozen=True)
class Official:
    """An official class as `vaeport port` takes it.

    place       file and class, from the repository's root
    arguments   of its constructor, read from the checkout
    native, variant, layout
                what it is here
    """

    repo: str
    place: str
    arguments: Callable[[Path], dict[str, Any]]
    native: str
    variant: str
    layout: str
    convention: Convention = field(default_factory=Convention)


@dataclass(frozen=True)
class GoldenFlow:
    """A committed flow, the contract that was probed with it, and where both come from, in files of at most 60 kB."""

    provenance: dict[str, Any]
    contract: dict[str, Any]
    flow: Flow


def _flux(root: Path) -> dict[str, Any]:
    return {"params": flux.published_arguments((root / flux.CONFIGS).read_text("utf-8"), flux.MODEL)}


def _ldm(root: Path) -> dict[str, Any]:
    import yaml

    config = yaml.safe_load((root / ldm.CONFIG).read_text("utf-8"))["model"]["params"]
    return dict(config["first_stage_config"]["params"])


def _stable_audio(root: Path) -> dict[str, Any]:
    config = json.loads((root / stable_audio.CONFIG).read_text("utf-8"))
    return {"config": {key: config[key] for key in ("sample_rate", "model")}}


def _wan(root: Path) -> dict[str, Any]:
    return dict(wan.ARGUMENTS)


# (mean, 1 / std): neutral, since the statistics are the wrapper's
_SCALE = {"scale": [0.0, 1.0]}
OFFICIALS = {
    "ldm_sd1": Official(
        "CompVis/latent-diffusion",
        "ldm/models/autoencoder.py:AutoencoderKL",
        _ldm,
        *("autoencoder_kl", "sd1", "ldm"),
        Convention(stubs={"pytorch_lightning.LightningModule": "torch.nn:Module"}),
    ),
    "flux1": Official(
        "black-forest-labs/flux",
        "src/flux/modules/autoencoder.py:AutoEncoder",
        _flux,
        *("autoencoder_kl", "flux1", "ldm"),
    ),
    "wan2_1": Official(
        "Wan-Video/Wan2.1",
        "wan/modules/vae.py:WanVAE_",
        _wan,
        *("wan", "wan2.1", "wan-official"),
        Convention(encode_arguments=_SCALE, decode_arguments=_SCALE),
    ),
    "stable_audio_2_0": Official(
        "Stability-AI/stable-audio-tools",
        "stable_audio_tools/models/autoencoders.py:create_autoencoder_from_config",
        _stable_audio,
        *("oobleck", "stable-audio-open-1.0", "stable-audio-tools"),
    ),
}


def capture(official: Official, root: Path) -> dict[str, Any]:
    """Probes one official class from its checkout, at full width."""
    origin, arguments = source(official.repo), official.arguments(root)
    side = ReferenceSide(f"{root / official.place}", arguments, convention=official.convention)
    with contextlib.redirect_stdout(sys.stderr):
        contract = json.loads(json.dumps(probe(side)))
    provenance = {
        "repo": f"https://github.com/{origin.repo}",
        "commit": origin.commit,
        "files": dict(origin.files),
        "class": official.place,
        "arguments": arguments,
        "versions": {"torch": torch.__version__},
    }
    return {"provenance": provenance, "flow": contract.pop("flow"), "contract": contract}


def load_flow(name: str) -> GoldenFlow:
    """The committed one."""
    held = json.loads(gzip.decompress((FOLDER / f"{name}.json.gz").read_bytes()))
    return GoldenFlow(held["provenance"], held["contract"], Flow.from_json(held["flow"]))


def make(name: str, cache: Path, mirrors: Mapping[str, Path], *, check_only: bool) -> str:
    """Captures one and writes it, or compares it with what is committed; what there is to say."""
    start, official = time.monotonic(), OFFICIALS[name]
    found = capture(official, checkout(source(official.repo), cache, mirrors.get(official.repo)))
    place = FOLDER / f"{name}.json.gz"
    if check_only:
        held = json.loads(gzip.decompress(place.read_bytes()))
        for part in (held, found):
            del part["provenance"]["versions"]
        if other := [f"{part}.{key}" for part in held for key in held[part] if held[part][key] != found[part].get(key)]:
            raise ProofError("the official class gives another flow than the committed one", where=name, found=other)
        said = "agrees with the committed flow"
    else:
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(gzip.compress(json.dumps(found, separators=(",", ":")).encode(), 9, mtime=0))
        said = f"{len(found['flow']['uses'])} operations, {place.stat().st_size / 1000:.0f} kB"
    return f"{said} ({time.monotonic() - start:.0f} s)"


if __name__ == "__main__":
    command(__doc__, OFFICIALS, make)
