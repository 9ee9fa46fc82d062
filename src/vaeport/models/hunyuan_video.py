"""HunyuanVideo: the causal video VAE of HunyuanVideo, FramePack, Kandinsky 5 and others.

What is unusual: the past of every convolution is frame 0, repeated, and so are the picture's edges; group norms see all
of space and time at once, and in the middle every position attends to its own frame and all before it, so it runs layer
by layer and never streams; in time frame 0 stays when the others are doubled.

    video [B, 3, 1 + 4t, 8h, 8w] in -1..1 -> latent [B, 16, 1 + t, h, w]

Source: Tencent-Hunyuan/HunyuanVideo hyvideo/vae.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from vaeport.configs import LatentContract, VideoVAEConfig
from vaeport.layers import Layer
from vaeport.models.hunyuan_tables import HunyuanArchConfig, Words, contract
from vaeport.vae import VAE


@dataclass(frozen=True, kw_only=True)
class HunyuanVideoArchConfig(HunyuanArchConfig):
    """See `hunyuan_tables.HunyuanArchConfig`."""

    class_names = ("AutoencoderKLHunyuanVideo", "AutoencoderKLCausal3D")

    @classmethod
    def misfit(cls, published: Mapping[str, Any]) -> str | None:
        """GameCraft's architecture has the same class name."""
        options = sorted({"mid_block_causal_attn", "disable_causal_conv"} & published.keys())
        return f"{', '.join(options)}: this is GameCraft's VAE" if options else None

    @classmethod
    def from_published(cls, published: Mapping[str, Any]) -> Self:
        """Reads a `config.json` of Diffusers or of the official repository."""
        return super().from_published(from_official(published))

    def constants(self) -> dict[str, Any]:
        """SiLU; attention in the middle; all blocks of one kind."""
        levels = len(self.block_out_channels)
        return {
            "act_fn": "silu",
            "down_block_types": ["HunyuanVideoDownBlock3D"] * levels,
            "up_block_types": ["HunyuanVideoUpBlock3D"] * levels,
            "mid_block_add_attention": True,
        }


def from_official(published: Mapping[str, Any]) -> Mapping[str, Any]:
    """A configuration of the official class in the names of the Diffusers one; what only concerns its tiling goes."""
    if published.get("_class_name") != "AutoencoderKLCausal3D":
        return published
    names = {"time_compression_ratio": "temporal_compression_ratio"}
    kinds = {"DownEncoderBlockCausal3D": "HunyuanVideoDownBlock3D", "UpDecoderBlockCausal3D": "HunyuanVideoUpBlock3D"}
    found = {names.get(key, key): value for key, value in published.items()}
    for key in ("down_block_types", "up_block_types"):
        if isinstance(found.get(key), list):
            found[key] = [kinds.get(str(kind), kind) for kind in found[key]]
    found["_class_name"] = "AutoencoderKLHunyuanVideo"
    return {k: v for k, v in found.items() if k not in ("sample_size", "sample_tsize", "force_upcast")}


class HunyuanVideo(VAE):
    """See the module."""

    arch_class = HunyuanVideoArchConfig
    config_class = VideoVAEConfig
    arch: HunyuanVideoArchConfig

    @staticmethod
    def encoder_of(arch: HunyuanVideoArchConfig) -> Layer:
        """See `hunyuan_tables.Words.encoder`."""
        return Words().encoder(arch)

    @staticmethod
    def decoder_of(arch: HunyuanVideoArchConfig) -> Layer:
        """See `hunyuan_tables.Words.decoder`."""
        return Words().decoder(arch)

    @staticmethod
    def contract_of(arch: HunyuanVideoArchConfig) -> LatentContract:
        """See `hunyuan_tables.contract`."""
        return contract(arch)


HunyuanVideo.variants = {"hunyuan_video": HunyuanVideoArchConfig()}

EntryClass = HunyuanVideo
