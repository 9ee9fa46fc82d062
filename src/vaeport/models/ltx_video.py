"""LTX-Video: the VAE of LTX-Video 0.9.0 to 0.9.8.

What is unusual: 4 x 4 pixels are channels from the start, so a latent is 32 x 32 pixels; norms are local and without
weights, so it streams; the past of every convolution is frame 0, repeated, and the decoder, which is not causal,
repeats the last frame too; one log-variance serves all channels of a latent. From 0.9.1 the decoder is a last denoising
step: it knows a timestep, and 0.9.1 adds noise of its own. Latent statistics lie in the checkpoint.

    video [B, 3, 1 + 8t, 32h, 32w] in -1..1 -> latent [B, 128, 1 + t, h, w]

Source: Lightricks/LTX-Video ltx_video/models/autoencoders/causal_video_autoencoder.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

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

_STRIDED, _FOLDED = "LTXVideoDownBlock3D", "LTXVideo095DownBlock3D"


@dataclass(frozen=True, kw_only=True)
class LTXVideoArchConfig(VAEArchConfig):
    """Encoder lists go from the video inwards; decoder lists do so too, though the decoder runs from their end.

    With folded ways (0.9.5) block_out_channels has the middle's width at its end. A decoder width divided by its
    upsample_factor is that of the level's blocks.
    """

    class_names = ("AutoencoderKLLTXVideo", "CausalVideoAutoencoder")

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 128
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    down_block_types: tuple[str, ...] = (_STRIDED,) * 4
    decoder_block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: tuple[int, ...] = (4, 3, 3, 3, 4)
    decoder_layers_per_block: tuple[int, ...] = (4, 3, 3, 3, 4)
    spatio_temporal_scaling: tuple[bool, ...] = (True, True, True, False)
    decoder_spatio_temporal_scaling: tuple[bool, ...] = (True, True, True, False)
    decoder_inject_noise: tuple[bool, ...] = (False,) * 5
    downsample_type: tuple[str, ...] = ("conv",) * 4
    upsample_residual: tuple[bool, ...] = (False,) * 4
    upsample_factor: tuple[int, ...] = (1,) * 4
    timestep_conditioning: bool = False
    patch_size: int = 4
    resnet_norm_eps: float = 1e-6
    decoder_causal: bool = False

    @classmethod
    def misfit(cls, published: Mapping[str, Any]) -> str | None:
        """LTX-2's official configuration has the same class name."""
        if published.get("_class_name") != "CausalVideoAutoencoder" or published.get("timestep_conditioning"):
            return None
        return None if "compress_all" in block_names(published) else "folded ways and no timestep: this is LTX-2's VAE"

    @classmethod
    def from_published(cls, published: Mapping[str, Any]) -> Self:
        """Reads a `config.json`, or the official configuration in a file's metadata, which lists blocks."""
        if published.get("_class_name") == "CausalVideoAutoencoder":
            published = _from_official(published)
        return super().from_published(published)

    @classmethod
    def read_shapes(cls, weights: WeightShapes) -> Iterator[tuple[str, Any]]:
        """All but the size of a patch, which ways are residual, and what is causal."""
        yield from read_ends(weights)
        downs = read_downs(weights)
        folded = any(level.folded for level in downs[:-1])
        yield "block_out_channels", tuple(level.width for level in downs)[: None if folded else -1]
        yield "down_block_types", (_FOLDED if folded else _STRIDED,) * (len(downs) - 1)
        yield "layers_per_block", tuple(level.blocks for level in downs)
        yield "downsample_type", tuple(KINDS[d.way] if d.folded and d.way else "conv" for d in downs[:-1])
        yield "spatio_temporal_scaling", tuple(level.way is not None for level in downs[:-1])
        ups = read_ups(weights)
        yield from read_decoder(ups)
        yield "decoder_inject_noise", tuple(up.noise for up in ups[::-1])
        yield "decoder_spatio_temporal_scaling", tuple(up.way is not None for up in ups[:0:-1])
        if ups:
            yield "upsample_residual", Assumed(tuple(up.reduction > 1 for up in ups[:0:-1]))
            yield "timestep_conditioning", weights.has("decoder.multiplier")

    def __post_init__(self) -> None:
        """ConfigError for fields that contradict each other."""
        levels, ups = len(self.layers_per_block) - 1, len(self.decoder_layers_per_block) - 1
        folded = set(self.down_block_types) == {_FOLDED}
        if not folded and set(self.down_block_types) != {_STRIDED}:
            expected = f"all {_STRIDED} or all {_FOLDED}"
            raise ConfigError("unknown down_block_types", expected=expected, found=self.down_block_types)
        kinds = set(FACTORS) - {"conv"} if folded else {"conv"}
        if not set(self.downsample_type) <= kinds:
            raise ConfigError("unknown downsample_type", expected=" or ".join(kinds), found=self.downsample_type)
        require_lengths(
            self,
            {
                "block_out_channels": levels + folded,
                **dict.fromkeys(("down_block_types", "downsample_type", "spatio_temporal_scaling"), levels),
                **dict.fromkeys(("decoder_block_out_channels", "decoder_spatio_temporal_scaling"), ups),
                **dict.fromkeys(("upsample_residual", "upsample_factor"), ups),
                "decoder_inject_noise": ups + 1,
            },
        )

    def constants(self) -> dict[str, Any]:
        """A causal encoder; time is no part of a patch."""
        return {"encoder_causal": True, "patch_size_t": 1, "scaling_factor": 1.0}

    def derived(self) -> dict[str, Any]:
        """The compression."""
        return compression(self)

    @property
    def downs(self) -> tuple[Down, ...]:
        """The encoder's levels, the middle last."""
        folded = self.down_block_types[0] == _FOLDED
        widths = (*self.block_out_channels, *(() if folded else self.block_out_channels[-1:]))
        ways = [
            FACTORS[t] if s else None for t, s in zip(self.downsample_type, self.spatio_temporal_scaling, strict=True)
        ]
        return tuple(
            Down(width, blocks, way, folded)
            for width, blocks, way in zip(widths, self.layers_per_block, (*ways, None), strict=True)
        )

    @property
    def ups(self) -> tuple[Up, ...]:
        """The decoder's levels, the middle first."""
        ways = [FACTORS["spatiotemporal"] if s else None for s in reversed(self.decoder_spatio_temporal_scaling)]
        return levels_up(self, ways)


def _from_official(config: Mapping[str, Any]) -> dict[str, Any]:
    padding = config.get("spatial_padding_mode", "zeros")
    if padding != "zeros":
        raise ConfigError("LTX-Video pads with zeros", expected="spatial_padding_mode: zeros", found=padding)
    down, up = official_fields(
        config, base=config.get("encoder_base_channels", LTXVideoArchConfig.block_out_channels[0])
    )
    if set(up.pop("upsample_type")) - {"spatiotemporal"}:
        raise ConfigError("LTX-Video's decoder doubles time and space together", found=config)
    folded = "conv" not in down["downsample_type"]
    if not folded:
        down["block_out_channels"] = down["block_out_channels"][:-1]
    kinds = [_FOLDED if folded else _STRIDED] * len(down["downsample_type"])
    conditioned = config.get("timestep_conditioning", False)
    return {**down, **up, "down_block_types": kinds, "timestep_conditioning": conditioned}


class LTXVideo(VAE):
    """See the module."""

    arch_class = LTXVideoArchConfig
    config_class = VideoVAEConfig
    arch: LTXVideoArchConfig

    @staticmethod
    def encoder_of(arch: LTXVideoArchConfig) -> Layer:
        """[B, 3, T, H, W] -> moments [B, 2Z, 1 + (T - 1) / 8, H/32, W/32]."""
        eps, first = arch.resnet_norm_eps, arch.downs[0].width
        return encoder(convolution(causal=True), arch, first=first, eps=eps)

    @staticmethod
    def decoder_of(arch: LTXVideoArchConfig) -> Layer:
        """[B, Z, n, h, w] -> [B, 3, 1 + 8 (n - 1), 32h, 32w]."""
        return decoder(convolution(arch.decoder_causal), arch, eps=arch.resnet_norm_eps)

    @staticmethod
    def contract_of(arch: LTXVideoArchConfig) -> LatentContract:
        """See `ltx_tables.contract`."""
        return contract(arch)


_DENOISING = LTXVideoArchConfig(
    decoder_block_out_channels=(256, 512, 1024),
    decoder_layers_per_block=(5, 6, 7, 8),
    decoder_spatio_temporal_scaling=(True,) * 3,
    decoder_inject_noise=(True, True, True, False),
    upsample_residual=(True,) * 3,
    upsample_factor=(2,) * 3,
    timestep_conditioning=True,
)
LTXVideo.variants = {
    "ltxv-0.9.0": LTXVideoArchConfig(),
    "ltxv-0.9.1": _DENOISING,
    "ltxv-0.9.5": _DENOISING.replace(
        block_out_channels=(128, 256, 512, 1024, 2048),
        down_block_types=(_FOLDED,) * 4,
        layers_per_block=(4, 6, 6, 2, 2),
        downsample_type=("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
        spatio_temporal_scaling=(True,) * 4,
        decoder_layers_per_block=(5, 5, 5, 5),
        decoder_inject_noise=(False,) * 4,
    ),
}
"""ltxv-0.9.5 is also that of 0.9.6 to 0.9.8."""

EntryClass = LTXVideo
