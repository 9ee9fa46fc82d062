"""Wan 2.1: the causal video VAE of Wan 2.1, Wan 2.2 A14B and many relatives.

What is unusual: every convolution in time sees zeros and the past only, and the norms are local, so it streams; frame 0
is an image of its own, which the temporal resamplers pass by (and the temporal upsampler never sees); attention works
within each frame; the temporal upsampler makes frame pairs from channel pairs.

    video [B, 3, 1 + 4t, 8h, 8w] in -1..1 -> latent [B, 16, 1 + t, h, w]

Source: Wan-Video/Wan2.1 wan/modules/vae.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from vaeport.configs import (
    Assumed,
    AxisRule,
    Determined,
    LatentContract,
    VAEArchConfig,
    VideoVAEConfig,
    WeightShapes,
    require_statistics,
)
from vaeport.errors import ConfigError
from vaeport.layers import (
    Chain,
    ChannelRMSNorm,
    ChannelsToTime,
    Conv,
    Identity,
    Layer,
    NearestUpsample,
    PerFrame,
    SiLU,
    SplitFirst,
    attention_block,
    residual_block,
)
from vaeport.vae import VAE


@dataclass(frozen=True, kw_only=True)
class WanArchConfig(VAEArchConfig):
    """Widths are base_dim * dim_mult, from the video inwards; normalize(z) = (z - latents_mean) / latents_std."""

    class_names = ("AutoencoderKLWan",)
    renames = {"temperal_downsample": "temporal_downsample"}  # noqa: RUF012

    base_dim: int = 96
    decoder_base_dim: int | None = None
    z_dim: int = 16
    dim_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    temporal_downsample: tuple[bool, ...] = (False, True, True)
    latents_mean: tuple[float, ...] = (
        -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
        0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
    )  # fmt: skip
    latents_std: tuple[float, ...] = (
        2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
        3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
    )  # fmt: skip
    in_channels: int = 3
    out_channels: int = 3
    scale_factor_temporal: int | None = 4
    scale_factor_spatial: int | None = 8

    @classmethod
    def misfit(cls, published: Mapping[str, Any]) -> str | None:
        """Wan 2.2's residual architecture has the same class name."""
        return "is_residual: this is Wan 2.2's VAE (z48)" if published.get("is_residual") else None

    def __post_init__(self) -> None:
        """ConfigError for fields that contradict each other."""
        require_levels(self)
        if self.num_res_blocks != 2:
            # the published layouts number the blocks of all levels in one list
            raise ConfigError("no weight map for this num_res_blocks", expected=2, found=self.num_res_blocks)
        if self.in_channels != self.out_channels:
            raise ConfigError("in_channels and out_channels differ", expected=self.in_channels, found=self.out_channels)

    @classmethod
    def read_shapes(cls, weights: WeightShapes) -> Iterator[tuple[str, Any]]:
        """All but the statistics of latents; the first dim_mult is 1."""
        block = "levels.{}.blocks.0.main.conv1.weight"
        inner, outer = weights.sizes(f"encoder.{block}", 0), weights.sizes(f"decoder.{block}", 0)[::-1]
        widths = inner or outer
        yield "base_dim", widths[0]
        yield "dim_mult", tuple(width // widths[0] for width in widths)
        if inner and outer:
            yield "decoder_base_dim", Determined(None if inner == outer else outer[0])
        yield from read_levels(cls, weights, "levels.{}", encoder=bool(inner), ways=len(widths) - 1)

    def constants(self) -> dict[str, Any]:
        """No attention but in the middle, no shortcut around the resamplers, no patches."""
        return {"attn_scales": [], "dropout": 0.0, "is_residual": False, "patch_size": None}


def read_levels(
    arch: type[Any], weights: WeightShapes, level: str, *, encoder: bool, ways: int
) -> Iterator[tuple[str, Any]]:
    """Fields that Wan 2.1 and 2.2 share; level: where the blocks of level `{}` lie."""
    z = weights.size("encoder.conv_out.weight", 0) // 2 or weights.size("decoder.conv_in.weight", 1)
    yield "z_dim", z
    if z != len(arch.latents_mean):
        yield "latents_mean", Assumed((0.0,) * z)
        yield "latents_std", Assumed((1.0,) * z)
    block = f"{level.format(0)}.blocks.{{}}.main.conv1.weight"
    yield "num_res_blocks", weights.count(f"encoder.{block}") or weights.count(f"decoder.{block}") - 1
    down = [weights.has(f"encoder.{level.format(i)}.resample.time.rest.weight") for i in range(ways)]
    up = [weights.has(f"decoder.{level.format(i)}.resample.time.rest.conv.weight") for i in reversed(range(ways))]
    yield "temporal_downsample", tuple(map(bool, down if encoder else up))
    image = weights.size("encoder.conv_in.weight", 1) or weights.size("decoder.conv_out.weight", 0)
    yield "in_channels", image
    yield "out_channels", image


def causal(channels: int, out_channels: int, kernel: int) -> Conv:
    """Keeps the shape; in time it sees zeros, then the past."""
    half = kernel // 2
    return Conv(channels, out_channels, (kernel,) * 3, pad=((kernel - 1, 0), (half, half), (half, half)))


def image_conv(channels: int, out_channels: int) -> Conv:
    """A 3x3 convolution within a frame."""
    return Conv(channels, out_channels, (3, 3), pad=((1, 1), (1, 1)))


def downsample(width: int, temporal: bool) -> Chain:
    """Halves height and width, zeros right and below; in time frame 0 stays and opens the first window."""
    time_conv = Conv(width, width, (3, 1, 1), stride=(2, 1, 1))
    return Chain(
        space=PerFrame(Conv(width, width, (3, 3), stride=2, pad=((0, 1), (0, 1)))),
        time=SplitFirst(Identity(), time_conv, shared=True) if temporal else None,
    )


def upsample(width: int, temporal: bool, *, narrow: bool = True) -> Chain:
    """Doubles height and width, and halves the channels if `narrow`; in time frame 0 stays, the others become pairs."""
    time_conv = Conv(width, 2 * width, (3, 1, 1), pad=((2, 0), (0, 0), (0, 0)))
    return Chain(
        time=SplitFirst(Identity(), Chain(conv=time_conv, pairs=ChannelsToTime(2))) if temporal else None,
        space=PerFrame(Chain(nearest=NearestUpsample(2), conv=image_conv(width, width // 2 if narrow else width))),
    )


def middle(width: int) -> Chain:
    """The innermost level; attention within each frame."""
    return Chain(
        block1=residual_block(width, width, ChannelRMSNorm, causal),
        attention=PerFrame(attention_block(width, ChannelRMSNorm)),
        block2=residual_block(width, width, ChannelRMSNorm, causal),
    )


def level(channels: int, width: int, blocks: int, resample: Layer | None) -> Chain:
    """Residual blocks at one resolution, then the way to the next."""
    widths = [channels] + [width] * blocks
    return Chain(
        blocks=Chain(*(residual_block(a, b, ChannelRMSNorm, causal) for a, b in pairwise(widths))),
        resample=resample,
    )


def encoder(arch: Any, levels: Chain, width: int, *, patch: Layer | None = None) -> Chain:
    """What stands around the levels of an encoder, which end with `width` channels."""
    return Chain(
        patch=patch,
        conv_in=causal(arch.in_channels, arch.base_dim * arch.dim_mult[0], 3),
        levels=levels,
        middle=middle(width),
        norm_out=ChannelRMSNorm(width),
        act_out=SiLU(),
        conv_out=causal(width, 2 * arch.z_dim, 3),
        quant_conv=causal(2 * arch.z_dim, 2 * arch.z_dim, 1),
    )


def decoder(arch: Any, levels: Chain, widths: Sequence[int], *, patch: Layer | None = None) -> Chain:
    """What stands around the levels of a decoder, which have these widths."""
    return Chain(
        post_quant_conv=causal(arch.z_dim, arch.z_dim, 1),
        conv_in=causal(arch.z_dim, widths[0], 3),
        middle=middle(widths[0]),
        levels=levels,
        norm_out=ChannelRMSNorm(widths[-1]),
        act_out=SiLU(),
        conv_out=causal(widths[-1], arch.out_channels, 3),
        patch=patch,
    )


def require_levels(arch: Any) -> None:
    """ConfigError for fields that contradict each other."""
    if len(arch.temporal_downsample) != len(arch.dim_mult) - 1:
        what = "temperal_downsample must have one value fewer than dim_mult"
        raise ConfigError(what, found=arch.temporal_downsample)
    require_statistics(arch.z_dim, arch.latents_mean, arch.latents_std)


class Wan(VAE):
    """See the module."""

    arch_class = WanArchConfig
    config_class = VideoVAEConfig
    aliases = ("WanVAE", "WanVAE_")
    arch: WanArchConfig
    encode_pieces = (1, 4)
    decode_pieces = (1, 1)

    @staticmethod
    def encoder_of(arch: WanArchConfig) -> Layer:
        """[B, 3, T, H, W] -> moments [B, 2Z, 1 + (T - 1) // 4, H/8, W/8]."""
        widths = [arch.base_dim * m for m in arch.dim_mult]
        before = (widths[0], *widths[:-1])
        ways = [downsample(w, t) for w, t in zip(widths[:-1], arch.temporal_downsample, strict=True)]
        rows = zip(before, widths, [*ways, None], strict=True)
        return encoder(arch, Chain(*(level(a, b, arch.num_res_blocks, way) for a, b, way in rows)), widths[-1])

    @staticmethod
    def decoder_of(arch: WanArchConfig) -> Layer:
        """[B, Z, n, h, w] -> [B, 3, 1 + 4 (n - 1), 8h, 8w]."""
        widths = [(arch.decoder_base_dim or arch.base_dim) * m for m in reversed(arch.dim_mult)]
        before = (widths[0], *(w // 2 for w in widths[:-1]))
        ways = [upsample(w, t) for w, t in zip(widths[:-1], reversed(arch.temporal_downsample), strict=True)]
        rows = zip(before, widths, [*ways, None], strict=True)
        return decoder(arch, Chain(*(level(a, b, arch.num_res_blocks + 1, way) for a, b, way in rows)), widths)

    @staticmethod
    def contract_of(arch: WanArchConfig) -> LatentContract:
        """Clamped output; latents are normalised per channel."""
        space, time = 2 ** len(arch.temporal_downsample), 2 ** sum(arch.temporal_downsample)
        return LatentContract(
            modality="video",
            channels=arch.in_channels,
            axes=(
                AxisRule(name="time", multiple=time, offset=1),
                AxisRule(name="height", multiple=space),
                AxisRule(name="width", multiple=space),
            ),
            latent_channels=arch.z_dim,
            posterior="gaussian-logvar",
            shift=arch.latents_mean,
            scale=tuple(1.0 / s for s in arch.latents_std),
            clamp=(-1.0, 1.0),
        )


Wan.variants = {"wan2.1": WanArchConfig()}

EntryClass = Wan
