"""GameCraft: HunyuanVideo's VAE with two options of its own: attention between all frames, and convolutions that are
not causal.

What is unusual: keys and shapes are HunyuanVideo's; only the configuration tells the two apart. Without causal
convolutions a video of 4t frames, not 1 + 4t, is t latents, and frame 0 is like any other.

    video [B, 3, 1 + 4t, 8h, 8w] in -1..1 -> latent [B, 16, 1 + t, h, w]

Source: Tencent-Hunyuan/Hunyuan-GameCraft-1.0 hymm_sp/vae.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vaeport.configs import LatentContract, VideoVAEConfig
from vaeport.layers import FrameCausalAttention, Layer, SelfAttention
from vaeport.models.hunyuan_tables import HunyuanArchConfig, Words, contract
from vaeport.vae import VAE


@dataclass(frozen=True, kw_only=True)
class GameCraftArchConfig(HunyuanArchConfig):
    """As HunyuanVideo's; mid_block_causal_attn: a position attends to its own frame and those before it alone."""

    class_names = ("AutoencoderKLCausal3D",)
    renames = {"time_compression_ratio": "temporal_compression_ratio"}  # noqa: RUF012

    mid_block_causal_attn: bool = False
    disable_causal_conv: bool = False

    @classmethod
    def misfit(cls, published: Mapping[str, Any]) -> str | None:
        """HunyuanVideo's architecture has the same class name."""
        if {"mid_block_causal_attn", "disable_causal_conv"} & published.keys():
            return None
        return "no mid_block_causal_attn: this is HunyuanVideo's VAE"

    def constants(self) -> dict[str, Any]:
        """SiLU; attention in the middle; all blocks of one kind."""
        levels = len(self.block_out_channels)
        return {
            "act_fn": "silu",
            "down_block_types": ["DownEncoderBlockCausal3D"] * levels,
            "up_block_types": ["UpDecoderBlockCausal3D"] * levels,
            "mid_block_add_attention": True,
        }

    @property
    def words(self) -> Words:
        """What the options choose."""
        attention = FrameCausalAttention if self.mid_block_causal_attn else SelfAttention
        return Words(causal=not self.disable_causal_conv, attention=attention)


class GameCraft(VAE):
    """See the module."""

    arch_class = GameCraftArchConfig
    config_class = VideoVAEConfig
    aliases = ("GameCraftVAE",)
    arch: GameCraftArchConfig

    @staticmethod
    def encoder_of(arch: GameCraftArchConfig) -> Layer:
        """See `hunyuan_tables.Words.encoder`."""
        return arch.words.encoder(arch)

    @staticmethod
    def decoder_of(arch: GameCraftArchConfig) -> Layer:
        """See `hunyuan_tables.Words.decoder`."""
        return arch.words.decoder(arch)

    @staticmethod
    def contract_of(arch: GameCraftArchConfig) -> LatentContract:
        """See `hunyuan_tables.contract`."""
        return contract(arch, causal=not arch.disable_causal_conv)


GameCraft.variants = {"gamecraft": GameCraftArchConfig(mid_block_causal_attn=True)}

EntryClass = GameCraft
