"""Wan 2.1: WanVAE_, loaded by the official wrapper from a checkpoint file as it is published."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..record import Record
from .base import Official, Oracle

# As in _video_vae and WanVAE; the official strict load of a state dict drawn for these shapes confirms them.
ARGUMENTS = {
    "dim": 96,
    "z_dim": 16,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_scales": [],
    "temperal_downsample": [False, True, True],
    "dropout": 0.0,
}


class Wan21(Oracle):
    """The VAE of Wan 2.1, which the 14B models of Wan 2.2 share; it encodes and decodes chunk by chunk."""

    name = "wan2_1"
    repo = "Wan-Video/Wan2.1"
    published_file = "Wan2.1_VAE.pth"
    module = "wan.modules.vae"
    wrapper = "WanVAE"
    arguments: Mapping[str, Any] = ARGUMENTS
    encoded: Mapping[str, Sequence[int]] = {
        "encode_image": (2, 3, 1, 24, 40),
        "encode_video": (2, 3, 9, 16, 24),
        "encode_6x20x23": (1, 3, 6, 20, 23),
    }
    decoded: Mapping[str, Sequence[int]] = {"decode_image": (2, 16, 1, 3, 5), "decode_video": (2, 16, 3, 2, 3)}
    taps = (
        "conv1",
        "conv2",
        "*coder.conv1",
        "*coder.*samples.?",
        "*coder.*samples.??",
        "*coder.middle.?",
        "*coder.head.[02]",
    )

    def __init__(self) -> None:
        super().__init__()
        # The wrapper clamps: at most a tenth of the decoded values may lie outside [-1, 1].
        self.scale = {"decoder.head.2.*": 0.8}

    def build(self, root: Path) -> Official:
        # The package around it imports the diffusion models.
        file = root / f"{self.module.replace('.', '/')}.py"
        spec = importlib.util.spec_from_file_location("wan_modules_vae", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        with torch.device("meta"):
            model = module.WanVAE_(**self.arguments)
        parts = {"wrapper_class": getattr(module, self.wrapper)}
        return Official(model, f"{self.module}.WanVAE_", self.arguments, parts)

    def load(self, official: Official, state: dict[str, torch.Tensor]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / self.published_file
            torch.save(state, path)
            wrapper = official.parts["wrapper_class"](vae_pth=str(path), dtype=torch.float64, device="cpu")
        official.model, official.parts["wrapper"] = wrapper.model, wrapper

    def run(self, official: Official, record: Record) -> None:
        model, wrapper = official.model, official.parts["wrapper"]
        moments = "conv1 of all chunks: mean, then logvar, along channels"
        normalized = "encode(x, scale) = (mean - latents_mean) * (1 / latents_std)"
        for case, shape in self.encoded.items():
            x = record.media(f"{case}.x", shape)
            with record.running(case, store=case == "encode_video") as seen:
                latent = model.encode(x, wrapper.scale)
            record.output(f"{case}.moments", seen["conv1"], moments)
            record.output(f"{case}.latent", latent, normalized)

        decoded = "decode(z, scale) = decoder(conv2(z / (1 / latents_std) + latents_mean)), not clamped"
        for case, shape in self.decoded.items():
            z = record.latent(f"{case}.z", shape)
            with record.running(case, store=case == "decode_video"):
                record.output(f"{case}.video", model.decode(z, wrapper.scale), decoded)
        clamped = torch.stack(wrapper.decode(list(record.inputs["decode_image.z"].double())))
        record.output("decode_image.clamped", clamped, f"{self.wrapper}.decode: decode_image.video clamped to [-1, 1]")
