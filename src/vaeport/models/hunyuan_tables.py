"""The tables that HunyuanVideo and GameCraft share: levels of residual blocks with norms over space and time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import gcd
from typing import Any

from vaeport.configs import Assumed, AxisRule, CeilAxisRule, LatentContract, VAEArchConfig, WeightShapes
from vaeport.errors import ConfigError
from vaeport.layers import (
    Chain,
    Conv,
    FrameCausalAttention,
    GroupNorm,
    Layer,
    NearestUpsample,
    Norm,
    Pad,
    SelfAttention,
    SiLU,
    SplitFirst,
    attention_block,
    residual_block,
)

Factors = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class HunyuanArchConfig(VAEArchConfig):
    """What both have. Widths from the video inwards; normalize(z) = z * scaling_factor, in the pipeline."""

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 16
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    norm_num_groups: int = 32
    scaling_factor: float = 0.476986
    spatial_compression_ratio: int = 8
    temporal_compression_ratio: int = 4

    @classmethod
    def read_shapes(cls, weights: WeightShapes) -> Iterator[tuple[str, Any]]:
        """All but the number of groups, the scale of latents, the compression and the options."""
        image = weights.size("encoder.conv_in.conv.weight", 1) or weights.size("decoder.conv_out.conv.weight", 0)
        yield "in_channels", image
        yield "out_channels", image
        block = "levels.{}.blocks.0.main.conv1.conv.weight"
        widths = weights.sizes(f"encoder.{block}", 0) or weights.sizes(f"decoder.{block}", 0)[::-1]
        yield "block_out_channels", widths
        yield "norm_num_groups", Assumed(gcd(cls.norm_num_groups, *widths))
        block = "levels.0.blocks.{}.main.conv1.conv.weight"
        yield "layers_per_block", weights.count(f"encoder.{block}") or weights.count(f"decoder.{block}") - 1
        z = weights.size("encoder.conv_out.conv.weight", 0) // 2 or weights.size("decoder.conv_in.conv.weight", 1)
        yield "latent_channels", z

    def __post_init__(self) -> None:
        """ConfigError unless the compression fits the levels and the groups fit the widths."""
        most = 2 ** (len(self.block_out_channels) - 1)
        for name in ("spatial_compression_ratio", "temporal_compression_ratio"):
            ratio = getattr(self, name)
            if ratio & (ratio - 1) or ratio > most:
                raise ConfigError(f"{name} must be a power of 2, at most {most} with these levels", found=ratio)
        for width in self.block_out_channels:
            if width % self.norm_num_groups:
                what = f"block_out_channels ({width}) is not a multiple of norm_num_groups ({self.norm_num_groups})"
                raise ConfigError(what)
        if self.in_channels != self.out_channels:
            raise ConfigError("in_channels and out_channels differ", expected=self.in_channels, found=self.out_channels)
        if not isinstance(self.extra.get("shift_factor") or 0.0, int | float):
            raise ConfigError("shift_factor must be a number", found=repr(self.extra["shift_factor"]))


def ways(arch: HunyuanArchConfig) -> list[Factors | None]:
    """Factors of time, height and width behind each level, alike in encoder and decoder; time comes last."""
    last = len(arch.block_out_channels) - 1
    space, time = arch.spatial_compression_ratio.bit_length() - 1, arch.temporal_compression_ratio.bit_length() - 1
    found = [(2 if last - time <= i < last else 1, *(2 if i < space else 1,) * 2) for i in range(last + 1)]
    return [None if way == (1, 1, 1) else way for way in found]


@dataclass(frozen=True)
class Words:
    """What HunyuanVideo's options and GameCraft's choose between: causal in time, or not, each on its own."""

    causal: bool = True
    attention: Callable[[int], SelfAttention] = FrameCausalAttention

    def conv(self, channels: int, out_channels: int, kernel: int, stride: int | Factors = 1) -> Layer:
        """Edges are repeated; causal, in time it sees frame 0, repeated, then the past."""
        if kernel == 1:
            return Conv(channels, out_channels, (1, 1, 1))
        half = kernel // 2
        pads = ((kernel - 1, 0) if self.causal else (half, half), (half, half), (half, half))
        conv = Conv(channels, out_channels, (kernel,) * 3, stride=stride)
        return Chain(edges=Pad("replicate", pads), conv=conv)

    def upsample(self, width: int, way: Factors) -> Chain:
        """Positions are repeated; causal, frame 0 only within itself."""
        nearest: Layer = NearestUpsample(way)
        if self.causal and way[0] > 1:
            nearest = SplitFirst(NearestUpsample((1, *way[1:])), nearest)
        return Chain(nearest=nearest, conv=self.conv(width, width, 3))

    def middle(self, width: int, norm: Norm) -> Chain:
        """The innermost level; attention between all positions."""
        return Chain(
            block1=residual_block(width, width, norm, self.conv),
            attention=attention_block(width, norm, self.attention),
            block2=residual_block(width, width, norm, self.conv),
        )

    def level(self, channels: int, width: int, blocks: int, norm: Norm, resample: Layer | None) -> Chain:
        """Residual blocks at one resolution, then the way to the next."""
        widths = [channels] + [width] * blocks
        return Chain(
            blocks=Chain(*(residual_block(a, b, norm, self.conv) for a, b in pairwise(widths))), resample=resample
        )

    def encoder(self, arch: HunyuanArchConfig) -> Chain:
        """[B, 3, T, H, W] -> moments [B, 2Z, (T - 1) // 4 + 1, ceil(H/8), ceil(W/8)]."""
        norm, widths, z = norm_of(arch), arch.block_out_channels, arch.latent_channels
        rows = zip((widths[0], *widths[:-1]), widths, ways(arch), strict=True)
        return Chain(
            conv_in=self.conv(arch.in_channels, widths[0], 3),
            levels=Chain(
                *(
                    self.level(a, b, arch.layers_per_block, norm, self.conv(b, b, 3, stride=way) if way else None)
                    for a, b, way in rows
                )
            ),
            middle=self.middle(widths[-1], norm),
            norm_out=norm(widths[-1]),
            act_out=SiLU(),
            conv_out=self.conv(widths[-1], 2 * z, 3),
            quant_conv=Conv(2 * z, 2 * z, (1, 1, 1)),
        )

    def decoder(self, arch: HunyuanArchConfig) -> Chain:
        """[B, Z, n, h, w] -> [B, 3, 1 + 4 (n - 1), 8h, 8w]."""
        norm, widths, z = norm_of(arch), arch.block_out_channels[::-1], arch.latent_channels
        rows = zip((widths[0], *widths[:-1]), widths, ways(arch), strict=True)
        return Chain(
            post_quant_conv=Conv(z, z, (1, 1, 1)),
            conv_in=self.conv(z, widths[0], 3),
            middle=self.middle(widths[0], norm),
            levels=Chain(
                *(
                    self.level(a, b, arch.layers_per_block + 1, norm, self.upsample(b, way) if way else None)
                    for a, b, way in rows
                )
            ),
            norm_out=norm(widths[-1]),
            act_out=SiLU(),
            conv_out=self.conv(widths[-1], arch.out_channels, 3),
        )


def norm_of(arch: HunyuanArchConfig) -> Norm:
    """Group norm over space and time."""
    return lambda channels: GroupNorm(channels, arch.norm_num_groups)


def contract(arch: HunyuanArchConfig, *, causal: bool = True) -> LatentContract:
    """Raw output, scaled latents; a size between two legal ones counts as the larger."""
    time, space = arch.temporal_compression_ratio, arch.spatial_compression_ratio
    return LatentContract(
        modality="video",
        channels=arch.in_channels,
        axes=(
            AxisRule(name="time", multiple=time, offset=1) if causal else CeilAxisRule(name="time", multiple=time),
            CeilAxisRule(name="height", multiple=space),
            CeilAxisRule(name="width", multiple=space),
        ),
        latent_channels=arch.latent_channels,
        posterior="gaussian-logvar",
        shift=float(arch.extra.get("shift_factor") or 0.0),
        scale=arch.scaling_factor,
    )
