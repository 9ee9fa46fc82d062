"""Where the weights of published configurations are, by variant, and which full-width proofs were carried out."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

PROOFS = Path(__file__).with_name("proved.json")
"""Written by `python -m bench.proofs` from verdicts."""


@dataclass(frozen=True)
class Repository:
    """A hub repository that holds the weights of a variant.

    subfolder   component folder in it, or None
    filename    official file in it, or None
    reference   what `prove` compares with, where it is not the Diffusers class of that name
    """

    name: str
    subfolder: str | None = None
    filename: str | None = None
    reference: tuple[str, ...] = ()

    def command(self, native: str, variant: str, class_name: str) -> str:
        """The proof on these weights."""
        parts = ["vaeport", "prove", "--native", native, "--variant", variant]
        parts += ["--reference", *(self.reference or (f"diffusers:{class_name}",)), "--weights", self.name]
        parts += ["--subfolder", self.subfolder] if self.subfolder else []
        parts += ["--filename", self.filename] if self.filename else []
        return shlex.join(parts)


def _diffusers(name: str) -> Repository:
    return Repository(name, subfolder="vae")


_AS_HUNYUAN = ("diffusers:AutoencoderKLHunyuanVideo", "--reference-args", "{}")

REPOSITORIES: Mapping[str, tuple[Repository, ...]] = {
    "sd1": (_diffusers("stable-diffusion-v1-5/stable-diffusion-v1-5"),),
    "sd2": (_diffusers("stabilityai/stable-diffusion-2-1"),),
    "sdxl": (_diffusers("stabilityai/stable-diffusion-xl-base-1.0"),),
    "sd3": (_diffusers("stabilityai/stable-diffusion-3-medium-diffusers"),),
    "flux1": (
        _diffusers("black-forest-labs/FLUX.1-schnell"),
        Repository("black-forest-labs/FLUX.1-schnell", filename="ae.safetensors"),
    ),
    "easyanimate-v5.1": (_diffusers("alibaba-pai/EasyAnimateV5.1-12b-zh-diffusers"),),
    "stable-audio-open-1.0": (_diffusers("stabilityai/stable-audio-open-1.0"),),
    "wan2.1": (
        _diffusers("Wan-AI/Wan2.1-T2V-14B-Diffusers"),
        Repository("Wan-AI/Wan2.1-T2V-14B", filename="Wan2.1_VAE.pth"),
    ),
    "wan2.2": (
        _diffusers("Wan-AI/Wan2.2-TI2V-5B-Diffusers"),
        Repository("Wan-AI/Wan2.2-TI2V-5B", filename="Wan2.2_VAE.pth"),
    ),
    "ltxv-0.9.0": (
        _diffusers("Lightricks/LTX-Video"),
        Repository("Lightricks/LTX-Video", filename="ltx-video-2b-v0.9.safetensors"),
    ),
    "ltxv-0.9.1": (Repository("Lightricks/LTX-Video", filename="ltx-video-2b-v0.9.1.safetensors"),),
    "ltxv-0.9.5": (
        _diffusers("Lightricks/LTX-Video-0.9.5"),
        _diffusers("Lightricks/LTX-Video-0.9.7-dev"),
        Repository("Lightricks/LTX-Video", filename="ltxv-13b-0.9.8-dev.safetensors"),
    ),
    "ltx2.0": (
        _diffusers("Lightricks/LTX-2"),
        Repository("Lightricks/LTX-2", filename="ltx-2-19b-dev.safetensors"),
    ),
    "ltx2.3": (Repository("Lightricks/LTX-2.3", filename="ltx-2.3-22b-dev.safetensors"),),
    "hunyuan_video": (
        _diffusers("hunyuanvideo-community/HunyuanVideo"),
        Repository("tencent/HunyuanVideo", filename="hunyuan-video-t2v-720p/vae/pytorch_model.pt"),
    ),
    "gamecraft": (
        Repository(
            "tencent/Hunyuan-GameCraft-1.0", filename="stdmodels/vae_3d/hyvae/pytorch_model.pt", reference=_AS_HUNYUAN
        ),
    ),
}
"""Variant -> repositories, as their authors name them; none was opened here."""


@cache
def proofs() -> Mapping[str, Mapping[str, Any]]:
    """Variant -> gates, types, device and date of the proof at full width, and the hash of its verdict."""
    found: Mapping[str, Mapping[str, Any]] = json.loads(PROOFS.read_text("utf-8"))
    return found
