"""LTX-2: the video encoder and the convolutional decoder, built by their own builder from a file as it is published."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..record import Record
from .base import Official, Oracle
from .ltx_video import CONFIG, DECODER_0_9_5, ENCODER_0_9_5, STATISTICS, TAPS, write

SIDES = ("encoder", "decoder")
ENCODER_2_3: list[list[Any]] = [
    *(["res_x", {"num_layers": 4}], ["compress_space_res", {"multiplier": 2}]),
    *(["res_x", {"num_layers": 6}], ["compress_time_res", {"multiplier": 2}]),
    *(["res_x", {"num_layers": 4}], ["compress_all_res", {"multiplier": 2}]),
    *(["res_x", {"num_layers": 2}], ["compress_all_res", {"multiplier": 1}]),
    ["res_x", {"num_layers": 2}],
]
DECODER_2_3: list[list[Any]] = [
    *(["res_x", {"num_layers": 4}], ["compress_space", {"multiplier": 2}]),
    *(["res_x", {"num_layers": 6}], ["compress_time", {"multiplier": 2}]),
    *(["res_x", {"num_layers": 4}], ["compress_all", {"multiplier": 1}]),
    *(["res_x", {"num_layers": 2}], ["compress_all", {"multiplier": 2}]),
    ["res_x", {"num_layers": 2}],
]


class LTX20(Oracle):
    """2.0: the blocks of LTX-Video 0.9.5 without a timestep.

    Without `spatial_padding_mode` the official configurators let the encoder pad with zeros and the decoder reflect;
    given it, both take it.
    """

    name = "ltx2_0"
    repo = "Lightricks/LTX-2"
    import_root = "packages/ltx-core/src"
    published_file = "ltx-2-19b-dev.safetensors"
    key_prefix = "vae."
    taps = TAPS
    config: dict[str, Any] = CONFIG | {
        "timestep_conditioning": False,
        "encoder_blocks": ENCODER_0_9_5,
        "decoder_blocks": DECODER_0_9_5,
    }

    def build(self, root: Path) -> Official:
        from ltx_core.loader.single_gpu_model_builder import SingleGPUModelBuilder
        from ltx_core.model.video_vae import model_configurator as configurator

        metadata = {"config": {"vae": self.config}}
        with torch.device("meta"):
            encoder = configurator.VideoEncoderConfigurator.from_metadata(metadata)
            decoder = configurator.VideoDecoderConfigurator.from_metadata(metadata)
        parts = {
            "builder": SingleGPUModelBuilder,
            "encoder": (configurator.VideoEncoderConfigurator, configurator.VAE_ENCODER_COMFY_KEYS_FILTER),
            "decoder": (configurator.VideoDecoderConfigurator, configurator.VAE_DECODER_COMFY_KEYS_FILTER),
        }
        names = [f"{type(side).__module__}.{type(side).__name__}" for side in (encoder, decoder)]
        return Official(nn.ModuleDict({"encoder": encoder, "decoder": decoder}), ", ".join(names), self.config, parts)

    def layout(self, official: Official) -> dict[str, list[int]]:
        # The file has one copy of the statistics, which both sides are given.
        own = {key: shape for key, shape in super().layout(official).items() if "per_channel_statistics" not in key}
        return own | STATISTICS

    def load(self, official: Official, state: dict[str, torch.Tensor]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / self.published_file
            write(file, state, self.key_prefix, {"vae": self.config})
            for side in SIDES:
                configurator, operations = official.parts[side]
                builder = official.parts["builder"](configurator, str(file), operations)
                official.model[side] = builder.build(torch.device("cpu"))
        # The official load is not strict.
        assert not any(value.is_meta for value in official.model.state_dict().values())

    def run(self, official: Official, record: Record) -> None:
        encoder, decoder = (official.model[side] for side in SIDES)
        moments = "encoder.conv_out, its last channel 128 times, as within forward: mean, then logvar, along channels"
        normalized = "encoder(x) = (mean - mean-of-means) / std-of-means; frames beyond 1 + 8k are cropped"
        for case, shape in {
            "encode_image": (2, 3, 1, 64, 32),
            "encode_video": (1, 3, 9, 32, 32),
            "encode_4x32x32": (1, 3, 4, 32, 32),
        }.items():
            x = record.media(f"{case}.x", shape)
            with record.running(case, store=case == "encode_video") as seen:
                latent = encoder(x)
            raw = seen["encoder.conv_out.conv"]
            record.output(f"{case}.moments", torch.cat([raw, *[raw[:, -1:]] * 127], dim=1), moments)
            record.output(f"{case}.latent", latent, normalized)

        decoded = "decoder(z), z normalised, not clamped"
        for case, shape in {"decode_image": (2, 128, 1, 2, 3), "decode_video": (1, 128, 2, 2, 2)}.items():
            z = record.latent(f"{case}.z", shape)
            with record.running(case, store=case == "decode_video"):
                video = decoder(z)
            if case == "decode_image":
                record.output(f"{case}.video", video, decoded)
            else:
                record.output(f"{case}.red", video[:, :1], f"channel 0 of {decoded}")


class LTX23(LTX20):
    """2.3, whose lists LTX-2.5's convolutional decoder keeps: fewer blocks, no shortcuts around the ways up."""

    name = "ltx2_3"
    published_file = "ltx-2.3-22b-dev.safetensors"
    config = CONFIG | {
        "timestep_conditioning": False,
        "encoder_blocks": ENCODER_2_3,
        "decoder_blocks": DECODER_2_3,
        "spatial_padding_mode": "zeros",
    }
