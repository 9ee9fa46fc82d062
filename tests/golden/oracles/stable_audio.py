"""stable-audio-tools: the Oobleck AudioAutoencoder of Stable Audio 2.0 and Stable Audio Open."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from ..float64 import Noise
from ..official import unused
from ..record import Record
from .base import Official, Oracle

CONFIG = "stable_audio_tools/configs/model_configs/autoencoders/stable_audio_2_0_vae.json"


class StableAudio2(Oracle):
    """The autoencoder, and the AutoencoderPretransform through which the diffusion model sees it."""

    name = "stable_audio_2_0"
    repo = "Stability-AI/stable-audio-tools"
    published_file = "model.safetensors of Stable Audio Open 1.0"
    key_prefix = "pretransform.model."
    taps = ("*coder.layers.?", "*coder.layers.[15].layers.?")

    def __init__(self) -> None:
        super().__init__()
        # Each residual unit adds to the variance, and no norm takes it back: unscaled, it grows 300-fold in rms.
        self.scale = {"*.layers.?.layers.?.layers.3.weight_g": 0.5, "*.layers.?.layers.?.layers.3.bias": 0.5}
        self.stand_ins = {
            "torchaudio": {},
            "torchaudio.transforms": {"Resample": unused("Resample")},
            "alias_free_torch": {"Activation1d": unused("Activation1d")},
            "k_diffusion": {},
            "einops_exts": {"rearrange_many": unused("rearrange_many")},
        }

    def build(self, root: Path) -> Official:
        from stable_audio_tools.models.autoencoders import create_autoencoder_from_config
        from stable_audio_tools.models.pretransforms import AutoencoderPretransform

        config: dict[str, Any] = json.loads((root / CONFIG).read_text("utf-8"))
        arguments = {key: config[key] for key in ("sample_rate", "model")}
        model = create_autoencoder_from_config(arguments)
        pretransform = AutoencoderPretransform(model)
        name = "stable_audio_tools.models.autoencoders.AudioAutoencoder"
        return Official(model, name, {"config": CONFIG, **arguments}, {"pretransform": pretransform})

    def run(self, official: Official, record: Record) -> None:
        model, pretransform = official.model, official.parts["pretransform"]
        x = record.media("encode.x", (2, 2, 2 * 2048 + 777))
        with record.running("encode") as seen:
            moments = model.encode(x, skip_bottleneck=True)
        assert torch.equal(moments, seen["encoder.layers.7"])
        record.output("encode.moments", moments, "encode(x, skip_bottleneck=True): mean, then scale, along channels")

        noise = record.latent("encode.noise", (2, 64, 2))
        encoded = {}
        for name, value in {
            "mean": torch.zeros_like(noise),
            "mean + std": torch.ones_like(noise),
            "sample": noise,
        }.items():
            with Noise(value):
                encoded[name] = model.encode(x)
        record.output("encode.mean", encoded["mean"], "encode(x) with zero noise")
        record.output(
            "encode.std", encoded["mean + std"] - encoded["mean"], "encode(x) with noise of ones, less the mean"
        )
        record.output("encode.sample", encoded["sample"], "encode(x) with input.encode.noise")
        with Noise(noise):
            latent = pretransform.encode(x)
        record.output(
            "encode.latent", latent, "AutoencoderPretransform.encode(x) = sample / 1.0, with input.encode.noise"
        )

        z = record.latent("decode.z", (2, 64, 3))
        with record.running("decode"):
            audio = pretransform.decode(z)
        record.output("decode.audio", audio, "AutoencoderPretransform.decode(z) = decode(z * 1.0), not clamped")
