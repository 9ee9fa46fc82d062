"""Magvit: the causal video VAE of EasyAnimate 5 and 5.1.

What is unusual: the past of every convolution is frame 0, repeated; group norms see one frame at a time and there is no
attention, so it streams in time; time is halved together with space by one strided convolution, and doubled by
repeating frames after the convolution, all but frame 0. The published code runs frame 0 alone, then 4 frames or 1
latent at a time with caches, which equals the whole, and fails on lengths other than 4k + 1.

    video [B, 3, 1 + 4t, 8h, 8w] in -1..1 -> latent [B, 16, 1 + t, h, w]

Source: huggingface/diffusers src/diffusers/models/autoencoders/autoencoder_kl_magvit.py, the default path (no tiles, no
slices), after aigc-apps/EasyAnimate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import gcd
from typing import Any

from vaeport.configs import (
    Assumed,
    AxisRule,
    LatentContract,
    StrictAxisRule,
    VAEArchConfig,
    VideoVAEConfig,
    WeightShapes,
)
from vaeport.errors import ConfigError
from vaeport.layers import (
    Chain,
    Conv,
    GroupNorm,
    Identity,
    Layer,
    NearestUpsample,
    Norm,
    Pad,
    PerFrame,
    RepeatFrames,
    SiLU,
    SplitFirst,
    residual_block,
)
from vaeport.vae import VAE

# kind of block -> whether its way to the next level changes time too
_DOWN = {"SpatialDownBlock3D": False, "SpatialTemporalDownBlock3D": True}
_UP = {"SpatialUpBlock3D": False, "SpatialTemporalUpBlock3D": True}


@dataclass(frozen=True, kw_only=True)
class MagvitArchConfig(VAEArchConfig):
    """Widths from the video inwards; normalize(z) = z * scaling_factor, in the pipeline.

    All values are the defaults of the published class. EasyAnimate 5.1's published configuration repeats those of
    latent_channels, block_out_channels, down_block_types and scaling_factor; the others are taken from the class alone.
    The last of either list of block types stays at its resolution.
    """

    class_names = ("AutoencoderKLMagvit",)

    in_channels: int = 3
    latent_channels: int = 16
    out_channels: int = 3
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    down_block_types: tuple[str, ...] = ("SpatialDownBlock3D", *("SpatialTemporalDownBlock3D",) * 3)
    up_block_types: tuple[str, ...] = ("SpatialUpBlock3D", *("SpatialTemporalUpBlock3D",) * 3)
    layers_per_block: int = 2
    norm_num_groups: int = 32
    scaling_factor: float = 0.7125

    @classmethod
    def misfit(cls, published: Mapping[str, Any]) -> str | None:
        """EasyAnimate's own class has the same name and other keys."""
        return "ch_mult: this is a configuration of EasyAnimate's own class" if "ch_mult" in published else None

    @classmethod
    def read_shapes(cls, weights: WeightShapes) -> Iterator[tuple[str, Any]]:
        """All but the groups, the scale of latents, and which ways change time, since kernels are alike."""
        block = "levels.{}.blocks.0.main.conv1.conv.weight"
        widths = weights.sizes(f"encoder.{block}", 0) or weights.sizes(f"decoder.{block}", 0)[::-1]
        yield "block_out_channels", widths
        yield "norm_num_groups", Assumed(gcd(cls.norm_num_groups, *widths))
        for name, (space, both) in (("down_block_types", tuple(_DOWN)), ("up_block_types", tuple(_UP))):
            yield name, Assumed((space, *(both,) * (len(widths) - 1)))
        block = "levels.0.blocks.{}.main.conv1.conv.weight"
        yield "layers_per_block", weights.count(f"encoder.{block}") or weights.count(f"decoder.{block}") - 1
        moments = weights.size("encoder.conv_out.conv.weight", 0)
        yield "latent_channels", moments // 2 or weights.size("decoder.conv_in.conv.weight", 1)
        image = weights.size("encoder.conv_in.conv.weight", 1) or weights.size("decoder.conv_out.conv.weight", 0)
        yield "in_channels", image
        yield "out_channels", image

    def __post_init__(self) -> None:
        """ConfigError for fields that contradict each other."""
        for name, kinds in (("down_block_types", _DOWN), ("up_block_types", _UP)):
            found = getattr(self, name)
            if len(found) != len(self.block_out_channels) or not set(found) <= set(kinds):
                expected = f"{len(self.block_out_channels)} of {', '.join(kinds)}"
                raise ConfigError(f"{name} must name one kind of block per width", expected=expected, found=found)
        if sum(self.temporal_down) != sum(self.temporal_up):
            what = "up_block_types double time as often as down_block_types halve it"
            raise ConfigError(what, expected=sum(self.temporal_down), found=sum(self.temporal_up))
        for width in self.block_out_channels:
            if width % self.norm_num_groups:
                raise ConfigError(
                    f"block_out_channels ({width}) is not a multiple of norm_num_groups ({self.norm_num_groups})"
                )
        if not self.scaling_factor > 0:
            raise ConfigError("scaling_factor must be positive", found=self.scaling_factor)
        if self.in_channels != self.out_channels:
            raise ConfigError("in_channels and out_channels differ", expected=self.in_channels, found=self.out_channels)

    @property
    def temporal_down(self) -> tuple[bool, ...]:
        """Whether each way from one level to the next halves time too."""
        return tuple(_DOWN[kind] for kind in self.down_block_types[:-1])

    @property
    def temporal_up(self) -> tuple[bool, ...]:
        """The same from the latent outwards."""
        return tuple(_UP[kind] for kind in self.up_block_types[:-1])

    def constants(self) -> dict[str, Any]:
        """SiLU; with norms over space and time the published code would depend on its chunks."""
        return {"act_fn": "silu", "spatial_group_norm": True}


def causal(channels: int, out_channels: int, kernel: int) -> Layer:
    """Keeps the shape; in time it sees frame 0, repeated, then the past."""
    if kernel == 1:
        return Conv(channels, out_channels, (1, 1, 1))
    pad = ((0, 0), *((kernel // 2, kernel // 2),) * 2)
    return Chain(
        past=Pad("replicate", ((kernel - 1, 0), (0, 0), (0, 0))),
        conv=Conv(channels, out_channels, (kernel,) * 3, pad=pad),
    )


def downsample(width: int, temporal: bool) -> Chain:
    """Halves height and width, zeros right and below; halves time, with frame 0 in a window of its own."""
    stride = (2 if temporal else 1, 2, 2)
    return Chain(
        past=Pad("replicate", ((2, 0), (0, 0), (0, 0))),
        conv=Conv(width, width, (3, 3, 3), stride=stride, pad=((0, 0), (0, 1), (0, 1))),
    )


def upsample(width: int, temporal: bool) -> Chain:
    """Doubles height and width; in time frame 0 stays, the others are repeated."""
    return Chain(
        space=PerFrame(NearestUpsample(2)),
        conv=causal(width, width, 3),
        time=SplitFirst(Identity(), RepeatFrames(2)) if temporal else None,
    )


def level(channels: int, width: int, blocks: int, norm: Norm, resample: Layer | None = None) -> Chain:
    """Residual blocks at one resolution, then the way to the next."""
    widths = [channels] + [width] * blocks
    return Chain(
        blocks=Chain(*(residual_block(a, b, norm, causal) for a, b in pairwise(widths))),
        resample=resample,
    )


class Magvit(VAE):
    """See the module."""

    arch_class = MagvitArchConfig
    config_class = VideoVAEConfig
    arch: MagvitArchConfig
    encode_pieces = (1, 4)
    decode_pieces = (1, 1)

    @staticmethod
    def encoder_of(arch: MagvitArchConfig) -> Layer:
        """[B, 3, T, H, W] -> moments [B, 2Z, 1 + (T - 1) // 4, H/8, W/8]."""
        norm, blocks = _norm_of(arch), arch.layers_per_block
        widths, z = arch.block_out_channels, arch.latent_channels
        before = (widths[0], *widths[:-1])
        ways = [downsample(w, t) for w, t in zip(widths, arch.temporal_down, strict=False)]
        return Chain(
            conv_in=causal(arch.in_channels, widths[0], 3),
            levels=Chain(
                *(level(a, b, blocks, norm, way) for a, b, way in zip(before, widths, [*ways, None], strict=True))
            ),
            middle=level(widths[-1], widths[-1], blocks, norm),
            norm_out=norm(widths[-1]),
            act_out=SiLU(),
            conv_out=causal(widths[-1], 2 * z, 3),
            quant_conv=causal(2 * z, 2 * z, 1),
        )

    @staticmethod
    def decoder_of(arch: MagvitArchConfig) -> Layer:
        """[B, Z, n, h, w] -> [B, 3, 1 + 4 (n - 1), 8h, 8w]."""
        norm, blocks = _norm_of(arch), arch.layers_per_block
        widths, z = arch.block_out_channels[::-1], arch.latent_channels
        before = (widths[0], *widths[:-1])
        ways = [upsample(w, t) for w, t in zip(widths, arch.temporal_up, strict=False)]
        return Chain(
            post_quant_conv=causal(z, z, 1),
            conv_in=causal(z, widths[0], 3),
            middle=level(widths[0], widths[0], blocks, norm),
            levels=Chain(
                *(level(a, b, blocks + 1, norm, way) for a, b, way in zip(before, widths, [*ways, None], strict=True))
            ),
            norm_out=norm(widths[-1]),
            act_out=SiLU(),
            conv_out=causal(widths[-1], arch.out_channels, 3),
        )

    @staticmethod
    def contract_of(arch: MagvitArchConfig) -> LatentContract:
        """Raw output, one scale for all channels."""
        space, time = 2 ** (len(arch.block_out_channels) - 1), 2 ** sum(arch.temporal_down)
        return LatentContract(
            modality="video",
            channels=arch.in_channels,
            axes=(
                StrictAxisRule(name="time", multiple=time, offset=1),
                AxisRule(name="height", multiple=space),
                AxisRule(name="width", multiple=space),
            ),
            latent_channels=arch.latent_channels,
            posterior="gaussian-logvar",
            scale=arch.scaling_factor,
        )


def _norm_of(arch: MagvitArchConfig) -> Norm:
    return lambda channels: PerFrame(GroupNorm(channels, arch.norm_num_groups))


Magvit.variants = {"easyanimate-v5.1": MagvitArchConfig()}

EntryClass = Magvit
