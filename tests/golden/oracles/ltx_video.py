"""LTX-Video: CausalVideoAutoencoder of 0.9.0 to 0.9.8, read by its own loader from a file as it is published."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ..float64 import DrawnNoise, Noise
from ..record import Record
from .base import Official, Oracle

NOISE_SCALE, TIMESTEP = 0.025, 0.05  # decode_noise_scale and decode_timestep of every official configuration
BLOCKS_0_9_0 = [
    *(["res_x", 4], ["compress_all", 1], ["res_x_y", 1], ["res_x", 3], ["compress_all", 1], ["res_x_y", 1]),
    *(["res_x", 3], ["compress_all", 1], ["res_x", 3], ["res_x", 4]),
]
ENCODER_0_9_1: list[list[Any]] = [
    *(["res_x", {"num_layers": 4}], ["compress_all", {}], ["res_x_y", 1]),
    *(["res_x", {"num_layers": 3}], ["compress_all", {}], ["res_x_y", 1]),
    *(["res_x", {"num_layers": 3}], ["compress_all", {}]),
    *(["res_x", {"num_layers": 3}], ["res_x", {"num_layers": 4}]),
]
ENCODER_0_9_5: list[list[Any]] = [
    *(["res_x", {"num_layers": 4}], ["compress_space_res", {"multiplier": 2}]),
    *(["res_x", {"num_layers": 6}], ["compress_time_res", {"multiplier": 2}]),
    *(["res_x", {"num_layers": 6}], ["compress_all_res", {"multiplier": 2}]),
    *(["res_x", {"num_layers": 2}], ["compress_all_res", {"multiplier": 2}]),
    ["res_x", {"num_layers": 2}],
]
DOUBLE = ["compress_all", {"residual": True, "multiplier": 2}]


def decoder(*stages: tuple[int, bool]) -> list[list[Any]]:
    """Doubling between stages of so many residual blocks, with or without noise; listed from the video inwards."""
    blocks = [["res_x", {"num_layers": layers, "inject_noise": noise}] for layers, noise in stages]
    return [block for stage in blocks for block in (stage, DOUBLE)][:-1]


DECODER_0_9_1 = decoder((5, True), (6, True), (7, True), (8, False))
DECODER_0_9_5 = decoder(*[(5, False)] * 4)
CONFIG: dict[str, Any] = {
    "_class_name": "CausalVideoAutoencoder",
    "dims": 3,
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 128,
    "scaling_factor": 1.0,
    "norm_layer": "pixel_norm",
    "patch_size": 4,
    "latent_log_var": "uniform",
    "use_quant_conv": False,
    "causal_decoder": False,
}
STATISTICS = {f"per_channel_statistics.{name}": [128] for name in ("mean-of-means", "std-of-means")}
TAPS = (
    *("encoder.conv_in.conv", "encoder.conv_out.conv", "decoder.conv_in.conv", "decoder.conv_out.conv"),
    *("*coder.down_blocks.?", "*coder.up_blocks.?", "*_blocks.?.conv", "*_blocks.?.conv.conv"),
    *("*_blocks.?.conv1.conv", "*.res_blocks.0.conv1.conv", "*.res_blocks.0.conv2.conv"),
)


class LTXVideo(Oracle):
    """0.9.0, whose blocks are those of the official table of configurations; no timestep."""

    name = "ltxv_0_9_0"
    repo = "Lightricks/LTX-Video"
    published_file = "ltx-video-2b-v0.9.safetensors"
    key_prefix = "vae."
    packages = ("diffusers",)
    taps = TAPS
    config: dict[str, Any] = CONFIG | {"blocks": BLOCKS_0_9_0}
    odd: Mapping[str, Sequence[int]] = {"encode_4x32x32": (1, 3, 4, 32, 32)}
    """frames other than 1 + 8k"""
    at = ""
    drawn = ""

    def build(self, root: Path) -> Official:
        from ltx_video.models.autoencoders import causal_video_autoencoder, vae_encode
        from ltx_video.utils.diffusers_config_mapping import OURS_VAE_CONFIG

        model_class = causal_video_autoencoder.CausalVideoAutoencoder
        assert OURS_VAE_CONFIG.items() <= (CONFIG | {"blocks": BLOCKS_0_9_0}).items()
        with torch.device("meta"):
            model = model_class.from_config(copy.deepcopy(self.config))
        name = f"{model_class.__module__}.CausalVideoAutoencoder"
        return Official(model, name, self.config, {"class": model_class, "helpers": vae_encode})

    def layout(self, official: Official) -> dict[str, list[int]]:
        # The class takes the statistics from the file, and has no place for them before.
        return super().layout(official) | STATISTICS

    def load(self, official: Official, state: dict[str, torch.Tensor]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / self.published_file
            write(file, state, self.key_prefix, {"vae": self.config})
            official.model = official.parts["class"].from_pretrained(file)

    def run(self, official: Official, record: Record) -> None:
        model, helpers = official.model, official.parts["helpers"]
        meant = "vae_encode(x, vae_per_channel_normalize=True) with zero noise = (mean - mean-of-means) / std-of-means"
        cases = {"encode_image": (2, 3, 1, 64, 32), "encode_video": (1, 3, 17, 32, 32)}
        for case, shape in (cases | dict(self.odd)).items():
            x = record.media(f"{case}.x", shape)
            with record.running(case, store=case == "encode_video"):
                posterior = model.encode(x).latent_dist
            moments = "encode(x): mean, then logvar, one for all channels, along channels"
            record.output(f"{case}.moments", posterior.parameters, moments)
            with Noise(torch.zeros_like(posterior.mean)):
                latent = helpers.vae_encode(x, model, vae_per_channel_normalize=True)
            record.output(f"{case}.latent", latent, meant)

        for case, shape in {"decode_image": (2, 128, 1, 1, 2), "decode_video": (1, 128, 2, 2, 2)}.items():
            z = record.latent(f"{case}.z", shape)
            with record.running(case, store=case == "decode_video"):
                video = self.decode(official, record, case, z)
            meant = f"vae_decode(z, vae_per_channel_normalize=True{self.at}){self.drawn}, not clamped"
            if case == "decode_image":
                record.output(f"{case}.video", video, meant)
            else:
                record.output(f"{case}.red", video[:, :1], f"channel 0 of {meant}")

    def decode(self, official: Official, record: Record, case: str, z: torch.Tensor) -> torch.Tensor:
        """Decode normalised latents."""
        return official.parts["helpers"].vae_decode(z, official.model, vae_per_channel_normalize=True)


class LTXVideoTimestep(LTXVideo):
    """0.9.1: the decoder is conditioned on a timestep, and adds noise of its own."""

    name = "ltxv_0_9_1"
    published_file = "ltx-video-2b-v0.9.1.safetensors"
    config = CONFIG | {
        "encoder_blocks": ENCODER_0_9_1,
        "decoder_blocks": DECODER_0_9_1,
        "timestep_conditioning": True,
    }
    at = f", timestep={TIMESTEP}"
    drawn = ", where it draws noise_00 to noise_35"

    def decode(self, official: Official, record: Record, case: str, z: torch.Tensor) -> torch.Tensor:
        timestep = torch.full((len(z),), TIMESTEP, dtype=torch.float64)
        decode = official.parts["helpers"].vae_decode
        with DrawnNoise(lambda index, shape: record.latent(f"{case}.noise_{index:02}", shape)):
            return decode(z, official.model, vae_per_channel_normalize=True, timestep=timestep)

    def run(self, official: Official, record: Record) -> None:
        super().run(official, record)
        z, noise = (record.latent(f"decode_mixed.{name}", (1, 128, 1, 2, 1)) for name in ("z", "noise"))
        mixed = z * (1 - NOISE_SCALE) + noise * NOISE_SCALE
        record.output("decode_mixed.mixed", mixed, f"z * (1 - {NOISE_SCALE}) + noise * {NOISE_SCALE}, as the pipeline")
        video = self.decode(official, record, "decode_mixed", mixed)
        record.output(
            "decode_mixed.video", video, f"vae_decode(mixed, vae_per_channel_normalize=True{self.at}){self.drawn}"
        )


class LTXVideo095(LTXVideoTimestep):
    """0.9.5 to 0.9.8: LTX-2's first encoder and decoder, conditioned on a timestep."""

    name = "ltxv_0_9_5"
    published_file = "ltx-video-2b-v0.9.5.safetensors"
    config = CONFIG | {
        "encoder_blocks": ENCODER_0_9_5,
        "decoder_blocks": DECODER_0_9_5,
        "timestep_conditioning": True,
    }
    odd: Mapping[str, Sequence[int]] = {}
    drawn = ""


def write(file: Path, state: dict[str, torch.Tensor], prefix: str, config: dict[str, Any]) -> None:
    """Write a safetensors file as Lightricks publishes them, and empty `state`, which may not fit in memory twice."""
    save_file({prefix + key: value for key, value in state.items()}, file, {"config": json.dumps(config)})
    state.clear()
