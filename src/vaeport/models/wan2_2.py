"""Wan 2.2: the causal video VAE of Wan 2.2 TI2V 5B.

What is unusual: as Wan 2.1 (see there), but 2 x 2 pixels are channels from the start, and every level has a shortcut
around its blocks and its way, which folds positions into channels and takes means, or repeats channels and unfolds
them.

    video [B, 3, 1 + 4t, 16h, 16w] in -1..1 -> latent [B, 48, 1 + t, h, w]

Source: Wan-Video/Wan2.2 wan/modules/vae2_2.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from vaeport.configs import (
    AxisRule,
    LatentContract,
    StrictAxisRule,
    VAEArchConfig,
    VideoVAEConfig,
    WeightShapes,
)
from vaeport.errors import ConfigError
from vaeport.layers import (
    Add,
    Chain,
    DropFrames,
    GroupMean,
    Layer,
    Pad,
    RepeatChannels,
    Shuffle,
    Unshuffle,
)
from vaeport.models.wan import decoder, downsample, encoder, level, read_levels, require_levels, upsample
from vaeport.vae import VAE


@dataclass(frozen=True, kw_only=True)
class Wan22ArchConfig(VAEArchConfig):
    """Widths are base_dim * dim_mult, from the video inwards; normalize(z) = (z - latents_mean) / latents_std.

    in_channels and out_channels are those of a patch, as published.
    """

    class_names = ("AutoencoderKLWan",)
    renames = {"temperal_downsample": "temporal_downsample"}  # noqa: RUF012

    base_dim: int = 160
    decoder_base_dim: int | None = 256
    z_dim: int = 48
    dim_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    temporal_downsample: tuple[bool, ...] = (False, True, True)
    latents_mean: tuple[float, ...] = (
        -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557,
        -0.1382, 0.0542, 0.2813, 0.0891, 0.1570, -0.0098, 0.0375, -0.1825,
        -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
        -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230,
        -0.0313, -0.1649, 0.0117, 0.0723, -0.2839, -0.2083, -0.0520, 0.3748,
        0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
    )  # fmt: skip
    latents_std: tuple[float, ...] = (
        0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013,
        0.8158, 1.0344, 0.5894, 1.0901, 0.6885, 0.6165, 0.8454, 0.4978,
        0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
        0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093,
        0.5709, 0.6065, 0.6415, 0.4944, 0.5726, 1.2042, 0.5458, 1.6887,
        0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
    )  # fmt: skip
    in_channels: int = 12
    out_channels: int = 12
    patch_size: int = 2
    scale_factor_temporal: int | None = 4
    scale_factor_spatial: int | None = 16

    @classmethod
    def misfit(cls, published: Mapping[str, Any]) -> str | None:
        """Wan 2.1's architecture has the same class name."""
        return None if published.get("is_residual") else "no is_residual: this is Wan 2.1's VAE (z16)"

    @classmethod
    def read_shapes(cls, weights: WeightShapes) -> Iterator[tuple[str, Any]]:
        """All but the statistics of latents; the first dim_mult is 1."""
        block = "levels.{}.main.blocks.0.main.conv1.weight"
        inner, outer = weights.sizes(f"encoder.{block}", 0), weights.sizes(f"decoder.{block}", 0)
        widths = inner or outer[::-1]
        yield "base_dim", inner[0] if inner else 0
        yield "dim_mult", tuple(width // widths[0] for width in widths)
        if outer:
            yield "decoder_base_dim", outer[-1]
        yield from read_levels(cls, weights, "levels.{}.main", encoder=bool(inner), ways=len(widths) - 1)

    def __post_init__(self) -> None:
        """ConfigError for fields that contradict each other."""
        require_levels(self)
        if self.in_channels != self.out_channels or self.in_channels % self.patch_size**2:
            expected = f"twice the same multiple of {self.patch_size**2}"
            found = (self.in_channels, self.out_channels)
            raise ConfigError("in_channels and out_channels do not make patches", expected=expected, found=found)

    def constants(self) -> dict[str, Any]:
        """No attention but in the middle; shortcuts around the levels."""
        return {"attn_scales": [], "dropout": 0.0, "is_residual": True}


def level_down(channels: int, width: int, blocks: int, temporal: bool | None) -> Add:
    """A level and the way behind it, beside the means of what is folded; temporal None: there is no way."""
    if temporal is None:
        return Add(main=level(channels, width, blocks, None), shortcut=GroupMean(width))
    factors = (2 if temporal else 1, 2, 2)
    # parity: Wan2.2 wan/modules/vae2_2.py AvgDown3D: frame 0 is averaged with a frame of zeros
    past = Pad("constant", ((1, 0), (0, 0), (0, 0))) if temporal else None
    shortcut = Chain(past=past, fold=Unshuffle(factors), mean=GroupMean(width))
    return Add(main=level(channels, width, blocks, downsample(width, temporal)), shortcut=shortcut)


def level_up(channels: int, width: int, blocks: int, temporal: bool | None) -> Layer:
    """A level and the way behind it, beside its repeated, unfolded input; temporal None: there is neither."""
    if temporal is None:
        return level(channels, width, blocks, None)
    factors = (2 if temporal else 1, 2, 2)
    shortcut = Chain(
        repeat=RepeatChannels(width * prod(factors) // channels),
        unfold=Shuffle(factors),
        drop=DropFrames(1) if temporal else None,
    )
    return Add(main=level(channels, width, blocks, upsample(width, temporal, narrow=False)), shortcut=shortcut)


class Wan22(VAE):
    """See the module."""

    arch_class = Wan22ArchConfig
    config_class = VideoVAEConfig
    aliases = ("Wan2_2_VAE",)
    arch: Wan22ArchConfig
    encode_pieces = (1, 4)
    decode_pieces = (1, 1)

    @staticmethod
    def encoder_of(arch: Wan22ArchConfig) -> Layer:
        """[B, 3, T, H, W] -> moments [B, 2Z, 1 + (T - 1) // 4, H/16, W/16]."""
        widths = [arch.base_dim * m for m in arch.dim_mult]
        rows = zip((widths[0], *widths[:-1]), widths, (*arch.temporal_downsample, None), strict=True)
        levels = Chain(*(level_down(a, b, arch.num_res_blocks, temporal) for a, b, temporal in rows))
        patch = Unshuffle((1, arch.patch_size, arch.patch_size), width_first=True)
        return encoder(arch, levels, widths[-1], patch=patch)

    @staticmethod
    def decoder_of(arch: Wan22ArchConfig) -> Layer:
        """[B, Z, n, h, w] -> [B, 3, 1 + 4 (n - 1), 16h, 16w]."""
        widths = [(arch.decoder_base_dim or arch.base_dim) * m for m in reversed(arch.dim_mult)]
        rows = zip((widths[0], *widths[:-1]), widths, (*reversed(arch.temporal_downsample), None), strict=True)
        levels = Chain(*(level_up(a, b, arch.num_res_blocks + 1, temporal) for a, b, temporal in rows))
        patch = Shuffle((1, arch.patch_size, arch.patch_size), width_first=True)
        return decoder(arch, levels, widths, patch=patch)

    @staticmethod
    def contract_of(arch: Wan22ArchConfig) -> LatentContract:
        """Clamped output; latents are normalised per channel."""
        space = arch.patch_size * 2 ** len(arch.temporal_downsample)
        return LatentContract(
            modality="video",
            channels=arch.in_channels // arch.patch_size**2,
            axes=(
                AxisRule(name="time", multiple=2 ** sum(arch.temporal_downsample), offset=1),
                StrictAxisRule(name="height", multiple=space),
                StrictAxisRule(name="width", multiple=space),
            ),
            latent_channels=arch.z_dim,
            posterior="gaussian-logvar",
            shift=arch.latents_mean,
            scale=tuple(1.0 / s for s in arch.latents_std),
            clamp=(-1.0, 1.0),
        )


Wan22.variants = {"wan2.2": Wan22ArchConfig()}

EntryClass = Wan22
