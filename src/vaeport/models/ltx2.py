"""LTX-2: the video VAE of LTX-2 and LTX-2.3.

What is unusual: as LTX-Video (see there), with other levels, without a timestep; the encoder's first width is that of a
latent, and 2.0's decoder mirrors the picture at its edges where 2.3's has zeros.

    video [B, 3, 1 + 8t, 32h, 32w] in -1..1 -> latent [B, 128, 1 + t, h, w]

Source: Lightricks/LTX-2 packages/ltx-core/src/ltx_core/model/video_vae.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, cast

from vaeport.configs import Assumed, LatentContract, VAEArchConfig, VideoVAEConfig, WeightShapes
from vaeport.errors import ConfigError
from vaeport.layers import Layer
from vaeport.models.ltx_official import block_names, official_fields
from vaeport.models.ltx_shapes import KINDS, read_decoder, read_downs, read_ends, read_ups
from vaeport.models.ltx_tables import (
    FACTORS,
    Down,
    Up,
    compression,
    contract,
    convolution,
    decoder,
    encoder,
    levels_up,
    require_lengths,
)
from vaeport.vae import VAE

_EDGES = {"zeros": "constant", "reflect": "reflect"}


@dataclass(frozen=True, kw_only=True)
class LTX2ArchConfig(VAEArchConfig):
    """Lists go from the video inwards, but upsample_type, which goes as the decoder runs.

    block_out_channels are the widths that the ways lead to; a decoder width divided by its upsample_factor is that of
    the level's blocks.
    """

    class_names = ("AutoencoderKLLTX2Video", "CausalVideoAutoencoder")

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 128
    block_out_channels: tuple[int, ...] = (256, 512, 1024, 2048)
    decoder_block_out_channels: tuple[int, ...] = (256, 512, 1024)
    layers_per_block: tuple[int, ...] = (4, 6, 6, 2, 2)
    decoder_layers_per_block: tuple[int, ...] = (5, 5, 5, 5)
    downsample_type: tuple[str, ...] = ("spatial", "temporal", "spatiotemporal", "spatiotemporal")
    upsample_type: tuple[str, ...] = ("spatiotemporal",) * 3
    upsample_residual: tuple[bool, ...] = (True,) * 3
    upsample_factor: tuple[int, ...] = (2,) * 3
    timestep_conditioning: bool = False
    patch_size: int = 4
    decoder_causal: bool = True
    encoder_spatial_padding_mode: str = "zeros"
    decoder_spatial_padding_mode: str = "reflect"

    @classmethod
    def misfit(cls, published: Mapping[str, Any]) -> str | None:
        """LTX-Video's official configuration has the same class name."""
        if published.get("_class_name") != "CausalVideoAutoencoder":
            return None
        if published.get("timestep_conditioning"):
            return "timestep_conditioning: this is LTX-Video's VAE"
        return "strided ways: this is LTX-Video's VAE" if "compress_all" in block_names(published) else None

    @classmethod
    def from_published(cls, published: Mapping[str, Any]) -> Self:
        """Reads a `config.json`, or the official configuration in a file's metadata, which lists blocks."""
        if published.get("_class_name") == "CausalVideoAutoencoder":
            published = _from_official(published)
        return super().from_published(published)

    @classmethod
    def read_shapes(cls, weights: WeightShapes) -> Iterator[tuple[str, Any]]:
        """All but the size of a patch, which ways are residual, what is causal, and how edges are padded."""
        yield from read_ends(weights)
        downs = read_downs(weights)
        yield "block_out_channels", tuple(level.width for level in downs[1:])
        yield "layers_per_block", tuple(level.blocks for level in downs)
        yield "downsample_type", tuple(KINDS[d.way] for d in downs[:-1] if d.way)
        ups = read_ups(weights)
        yield from read_decoder(ups)
        yield "upsample_type", tuple(KINDS[up.way] for up in ups[1:] if up.way)
        if ups:
            yield "upsample_residual", Assumed((True,) * (len(ups) - 1))
            yield "timestep_conditioning", weights.has("decoder.multiplier")

    def __post_init__(self) -> None:
        """ConfigError for fields that contradict each other."""
        for name in ("downsample_type", "upsample_type"):
            if not set(getattr(self, name)) <= FACTORS.keys() - {"conv"}:
                expected = "spatial, temporal, spatiotemporal"
                raise ConfigError(f"unknown {name}", expected=expected, found=getattr(self, name))
        for name in ("encoder_spatial_padding_mode", "decoder_spatial_padding_mode"):
            if getattr(self, name) not in _EDGES:
                raise ConfigError(f"unknown {name}", expected=" or ".join(_EDGES), found=getattr(self, name))
        levels, ups = len(self.layers_per_block) - 1, len(self.decoder_layers_per_block) - 1
        down = ("block_out_channels", "downsample_type")
        up = ("decoder_block_out_channels", "upsample_type", "upsample_residual", "upsample_factor")
        require_lengths(self, dict.fromkeys(down, levels) | dict.fromkeys(up, ups))

    def constants(self) -> dict[str, Any]:
        """A causal encoder; every level scales; no noise."""
        return {
            "down_block_types": ["LTX2VideoDownBlock3D"] * len(self.downsample_type),
            "spatio_temporal_scaling": [True] * len(self.downsample_type),
            "decoder_spatio_temporal_scaling": [True] * len(self.upsample_type),
            "decoder_inject_noise": [False] * len(self.decoder_layers_per_block),
            "encoder_causal": True,
            "patch_size_t": 1,
            "resnet_norm_eps": 1e-6,
            "scaling_factor": 1.0,
        }

    @property
    def decoder_inject_noise(self) -> tuple[bool, ...]:
        """Nowhere."""
        return (False,) * len(self.decoder_layers_per_block)

    def derived(self) -> dict[str, Any]:
        """The compression."""
        return compression(self)

    @property
    def downs(self) -> tuple[Down, ...]:
        """The encoder's levels, the middle last."""
        widths = (self.latent_channels, *self.block_out_channels)
        ways = (*(FACTORS[kind] for kind in self.downsample_type), None)
        return tuple(Down(*row) for row in zip(widths, self.layers_per_block, ways, strict=True))

    @property
    def ups(self) -> tuple[Up, ...]:
        """The decoder's levels, the middle first."""
        return levels_up(self, [FACTORS[kind] for kind in self.upsample_type])


def _from_official(config: Mapping[str, Any]) -> dict[str, Any]:
    down, up = official_fields(config, base=config.get("latent_channels", LTX2ArchConfig.latent_channels))
    if not (all(down.pop("spatio_temporal_scaling")) and all(up.pop("decoder_spatio_temporal_scaling"))):
        raise ConfigError("every level of LTX-2's VAE scales", found=config)
    if any(up.pop("decoder_inject_noise")):
        raise ConfigError("LTX-2's decoder adds no noise", found=config)
    down["block_out_channels"] = down["block_out_channels"][1:]
    both = config.get("spatial_padding_mode")
    return {
        **down,
        **up,
        # parity: ltx_core model_configurator.py: one key, if it is there, is for both halves, which differ by default
        "encoder_spatial_padding_mode": both or config.get("encoder_spatial_padding_mode", "zeros"),
        "decoder_spatial_padding_mode": both or "reflect",
    }


class LTX2Video(VAE):
    """See the module."""

    arch_class = LTX2ArchConfig
    config_class = VideoVAEConfig
    aliases = ("LTX2CausalVideoAutoencoder",)
    arch: LTX2ArchConfig

    @staticmethod
    def encoder_of(arch: LTX2ArchConfig) -> Layer:
        """[B, 3, T, H, W] -> moments [B, 2Z, 1 + (T - 1) / 8, H/32, W/32]."""
        edge = _edge(arch.encoder_spatial_padding_mode)
        return encoder(convolution(causal=True, edge=edge), arch, first=arch.latent_channels)

    @staticmethod
    def decoder_of(arch: LTX2ArchConfig) -> Layer:
        """[B, Z, n, h, w] -> [B, 3, 1 + 8 (n - 1), 32h, 32w]."""
        edge = _edge(arch.decoder_spatial_padding_mode)
        return decoder(convolution(arch.decoder_causal, edge=edge), arch)

    @staticmethod
    def contract_of(arch: LTX2ArchConfig) -> LatentContract:
        """See `ltx_tables.contract`."""
        return contract(arch)


def _edge(mode: str) -> Literal["constant", "reflect"]:
    return cast("Literal['constant', 'reflect']", _EDGES[mode])


LTX2Video.variants = {
    "ltx2.0": LTX2ArchConfig(decoder_causal=False),
    "ltx2.3": LTX2ArchConfig(
        block_out_channels=(256, 512, 1024, 1024),
        layers_per_block=(4, 6, 4, 2, 2),
        decoder_block_out_channels=(256, 512, 512, 1024),
        decoder_layers_per_block=(4, 6, 4, 2, 2),
        upsample_type=("spatiotemporal", "spatiotemporal", "temporal", "spatial"),
        upsample_residual=(False,) * 4,
        upsample_factor=(2, 2, 1, 2),
        decoder_causal=False,
        decoder_spatial_padding_mode="zeros",
    ),
}

EntryClass = LTX2Video
