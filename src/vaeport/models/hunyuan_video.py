"""HunyuanVideo: the causal video VAE of HunyuanVideo, FramePack, Kandinsky 5 and others.

What is unusual: the past of every convolution is frame 0, repeated, and so are the picture's edges; group norms see all
of space and time at once, and in the middle every position attends to its own frame and all before it, so it runs layer
by layer and never streams; in time frame 0 stays when the others are doubled.

    video [B, 3, 1 + 4t, 8h, 8w] in -1..1 -> latent [B, 16, 1 + t, h, w]

Source: Tencent-Hunyuan/HunyuanVideo hyvideo/vae.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import gcd
from typing import Any, Self

from vaeport.configs import (
    Assumed,
    AxisRule,
    CeilAxisRule,
    LatentContract,
    VAEArchConfig,
    VideoVAEConfig,
    WeightShapes,
)
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
from vaeport.vae import VAE

Factors = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class HunyuanVideoArchConfig(VAEArchConfig):
    """Widths from the video inwards; normalize(z) = z * scaling_factor, in the pipeline."""

    class_names = ("AutoencoderKLHunyuanVideo", "AutoencoderKLCausal3D")

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
    def misfit(cls, published: Mapping[str, Any]) -> str | None:
        """GameCraft's architecture has the same class name."""
        options = sorted({"mid_block_causal_attn", "disable_causal_conv"} & published.keys())
        return f"{', '.join(options)}: this is GameCraft's VAE" if options else None

    @classmethod
    def from_published(cls, published: Mapping[str, Any]) -> Self:
        """Reads a `config.json` of Diffusers or of the official repository."""
        return super().from_published(from_official(published))

    @classmethod
    def read_shapes(cls, weights: WeightShapes) -> Iterator[tuple[str, Any]]:
        """All but the number of groups, the scale of latents and the compression."""
        return read_shapes(cls, weights)

    def __post_init__(self) -> None:
        """ConfigError for fields that contradict each other."""
        require_sizes(self)

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


def read_shapes(arch: Any, weights: WeightShapes) -> Iterator[tuple[str, Any]]:
    """See `HunyuanVideoArchConfig.read_shapes`."""
    image = weights.size("encoder.conv_in.conv.weight", 1) or weights.size("decoder.conv_out.conv.weight", 0)
    yield "in_channels", image
    yield "out_channels", image
    block = "levels.{}.blocks.0.main.conv1.conv.weight"
    widths = weights.sizes(f"encoder.{block}", 0) or weights.sizes(f"decoder.{block}", 0)[::-1]
    yield "block_out_channels", widths
    yield "norm_num_groups", Assumed(gcd(arch.norm_num_groups, *widths))
    block = "levels.0.blocks.{}.main.conv1.conv.weight"
    yield "layers_per_block", weights.count(f"encoder.{block}") or weights.count(f"decoder.{block}") - 1
    z = weights.size("encoder.conv_out.conv.weight", 0) // 2 or weights.size("decoder.conv_in.conv.weight", 1)
    yield "latent_channels", z


def require_sizes(arch: Any) -> None:
    """ConfigError unless the compression fits the levels and the groups fit the widths."""
    most = 2 ** (len(arch.block_out_channels) - 1)
    for name in ("spatial_compression_ratio", "temporal_compression_ratio"):
        ratio = getattr(arch, name)
        if ratio & (ratio - 1) or ratio > most:
            raise ConfigError(f"{name} must be a power of 2, at most {most} with these levels", found=ratio)
    for width in arch.block_out_channels:
        if width % arch.norm_num_groups:
            what = f"block_out_channels ({width}) is not a multiple of norm_num_groups ({arch.norm_num_groups})"
            raise ConfigError(what)
    if arch.in_channels != arch.out_channels:
        raise ConfigError("in_channels and out_channels differ", expected=arch.in_channels, found=arch.out_channels)
    if not isinstance(arch.extra.get("shift_factor") or 0.0, int | float):
        raise ConfigError("shift_factor must be a number", found=repr(arch.extra["shift_factor"]))


def ways(arch: Any) -> list[Factors | None]:
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

    def encoder(self, arch: Any) -> Chain:
        """[B, 3, T, H, W] -> moments [B, 2Z, (T - 1) // 4 + 1, ceil(H/8), ceil(W/8)]."""
        norm, widths, z = norm_of(arch), arch.block_out_channels, arch.latent_channels
        rows = zip((widths[0], *widths), widths, ways(arch), strict=False)
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

    def decoder(self, arch: Any) -> Chain:
        """[B, Z, n, h, w] -> [B, 3, 1 + 4 (n - 1), 8h, 8w]."""
        norm, widths, z = norm_of(arch), arch.block_out_channels[::-1], arch.latent_channels
        rows = zip((widths[0], *widths), widths, ways(arch), strict=False)
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


def norm_of(arch: Any) -> Norm:
    """Group norm over space and time."""
    return lambda channels: GroupNorm(channels, arch.norm_num_groups)


def contract(arch: Any, *, causal: bool = True) -> LatentContract:
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


class HunyuanVideo(VAE):
    """See the module."""

    arch_class = HunyuanVideoArchConfig
    config_class = VideoVAEConfig
    arch: HunyuanVideoArchConfig

    @staticmethod
    def encoder_of(arch: HunyuanVideoArchConfig) -> Layer:
        """See `Words.encoder`."""
        return Words().encoder(arch)

    @staticmethod
    def decoder_of(arch: HunyuanVideoArchConfig) -> Layer:
        """See `Words.decoder`."""
        return Words().decoder(arch)

    @staticmethod
    def contract_of(arch: HunyuanVideoArchConfig) -> LatentContract:
        """See `contract`."""
        return contract(arch)


HunyuanVideo.variants = {"hunyuan_video": HunyuanVideoArchConfig()}

EntryClass = HunyuanVideo
