"""HunyuanVideo and GameCraft: AutoencoderKLCausal3D, loaded by the official loader from a folder as it is published."""

from __future__ import annotations

import importlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..official import unused
from ..record import Record
from .base import Official, Oracle

CONFIG: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 16,
    "down_block_types": ["DownEncoderBlockCausal3D"] * 4,
    "up_block_types": ["UpDecoderBlockCausal3D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "act_fn": "silu",
    "norm_num_groups": 32,
    "sample_size": 256,
    "sample_tsize": 64,
    "scaling_factor": 0.476986,
    "spatial_compression_ratio": 8,
    "time_compression_ratio": 4,
    "mid_block_add_attention": True,
}


class HunyuanVideo(Oracle):
    """The causal 3D autoencoder 884-16c-hy; its mid attention is that of the installed Diffusers."""

    name = "hunyuan_video"
    repo = "Tencent-Hunyuan/HunyuanVideo"
    published_file = "pytorch_model.pt"
    key_prefix = "vae."
    packages = ("diffusers",)
    package = "hyvideo"
    vae_type = "884-16c-hy"
    options: Mapping[str, Any] = {}
    taps = (
        *("*coder.conv_in.conv", "*coder.conv_norm_out", "*coder.conv_out.conv", "*quant_conv"),
        *("*.resnets.?.conv2.conv", "*.conv_shortcut.conv", "*samplers.0.conv.conv"),
        *("*coder.*_blocks.?", "*coder.mid_block.attentions.0"),
    )

    def build(self, root: Path) -> Official:
        vae = importlib.import_module(f"{self.package}.vae")
        config = CONFIG | dict(self.options)
        with torch.device("meta"):
            model = vae.AutoencoderKLCausal3D.from_config(config)
        name = f"{self.package}.vae.autoencoder_kl_causal_3d.AutoencoderKLCausal3D"
        return Official(model, name, config, {"load_vae": vae.load_vae})

    def load(self, official: Official, state: dict[str, torch.Tensor]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "config.json").write_text(json.dumps(official.arguments), "utf-8")
            published = {"state_dict": {self.key_prefix + key: value for key, value in state.items()}}
            torch.save(published, Path(folder) / self.published_file)
            official.model, *_ = official.parts["load_vae"](self.vae_type, vae_path=folder)

    def run(self, official: Official, record: Record) -> None:
        model = official.model
        scale = model.config.scaling_factor
        for case, shape in {
            "encode_image": (2, 3, 1, 24, 40),
            "encode_video": (2, 3, 9, 16, 24),
            "encode_6x20x23": (1, 3, 6, 20, 23),
        }.items():
            x = record.media(f"{case}.x", shape)
            with record.running(case, store=case == "encode_video"):
                posterior = model.encode(x).latent_dist
            record.output(f"{case}.moments", posterior.parameters, "encode(x): mean, then logvar, along channels")
            record.output(f"{case}.latent", posterior.mode() * scale, "mode * 0.476986, as the pipelines scale")

        decoded = "decode(z / 0.476986), as the pipelines call it, not clamped"
        for case, size in {"decode_image": (2, 16, 1, 2, 3), "decode_video": (2, 16, 3, 2, 3)}.items():
            z = record.latent(f"{case}.z", size)
            with record.running(case, store=case == "decode_video"):
                record.output(f"{case}.video", model.decode(z / scale).sample, decoded)


class GameCraft(HunyuanVideo):
    """The same autoencoder in GameCraft's repository, 884-16c-hy0801."""

    name = "gamecraft"
    repo = "Tencent-Hunyuan/Hunyuan-GameCraft-1.0"
    package = "hymm_sp"
    vae_type = "884-16c-hy0801"
    options: Mapping[str, Any] = {"disable_causal_conv": False, "mid_block_causal_attn": True}

    def __init__(self) -> None:
        super().__init__()
        attention = {"flash_attn_varlen_func": unused("flash_attn_varlen_func")}
        self.stand_ins = {"loguru": {}, "flash_attn": {}, "flash_attn.flash_attn_interface": attention}

    def load(self, official: Official, state: dict[str, torch.Tensor]) -> None:
        super().load(official, state)
        # Only the loader of a TensorRT engine sets it, and every decode that is not tiled reads it.
        official.model.use_trt_decoder = False


class GameCraftOpen(GameCraft):
    """GameCraft's two options the other way: no frame is hidden from another."""

    name = "gamecraft_open"
    options: Mapping[str, Any] = {"disable_causal_conv": True, "mid_block_causal_attn": False}
