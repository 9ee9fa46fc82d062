"""AutoencoderKL: the image VAE of Stable Diffusion 1, 2, XL and 3 and of FLUX.1.

What is unusual: GroupNorm and one attention over all pixels, so every output sees the whole image; downsampling pads
the right and the bottom only; SD has 1x1 convolutions around the latent, SD3 and FLUX have none.

    image [B, 3, 8h, 8w] in -1..1 -> latent [B, 4 or 16, h, w]

Source: CompVis/latent-diffusion ldm/modules/diffusionmodules/model.py;
black-forest-labs/flux src/flux/modules/autoencoder.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import gcd
from typing import Any

from vaeport.configs import (
    Assumed,
    AxisRule,
    ImageVAEConfig,
    LatentContract,
    VAEArchConfig,
    WeightShapes,
    require_statistics,
)
from vaeport.errors import ConfigError
from vaeport.layers import Chain, Conv, GroupNorm, Layer, NearestUpsample, Norm, SiLU, attention_block, residual_block
from vaeport.vae import VAE


@dataclass(frozen=True, kw_only=True)
class AutoencoderKLArchConfig(VAEArchConfig):
    """Widths from the image inwards. Latents are normalised as (z - shift_factor) * scaling_factor, in the pipeline."""

    class_names = ("AutoencoderKL",)

    in_channels: int = 3
    out_channels: int = 3
    block_out_channels: tuple[int, ...] = (64,)
    layers_per_block: int = 1
    latent_channels: int = 4
    norm_num_groups: int = 32
    sample_size: int | tuple[int, ...] = 32
    scaling_factor: float = 0.18215
    shift_factor: float | None = None
    latents_mean: tuple[float, ...] | None = None
    latents_std: tuple[float, ...] | None = None
    force_upcast: bool | float = True
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True

    def __post_init__(self) -> None:
        """ConfigError for fields that contradict each other."""
        for width in self.block_out_channels:
            if width % self.norm_num_groups:
                raise ConfigError(
                    f"block_out_channels ({width}) is not a multiple of norm_num_groups ({self.norm_num_groups})"
                )
        if not self.scaling_factor > 0:
            raise ConfigError("scaling_factor must be positive", found=self.scaling_factor)
        if self.latents_mean is not None or self.latents_std is not None:
            require_statistics(self.latent_channels, self.latents_mean, self.latents_std)
        if self.in_channels != self.out_channels:
            raise ConfigError("in_channels and out_channels differ", expected=self.in_channels, found=self.out_channels)

    @classmethod
    def read_shapes(cls, weights: WeightShapes) -> Iterator[tuple[str, Any]]:
        """All but the numbers of groups and the scale of latents."""
        image = weights.size("encoder.conv_in.weight", 1) or weights.size("decoder.conv_out.weight", 0)
        yield "in_channels", image
        yield "out_channels", image
        block = "levels.{}.blocks.0.main.conv1.weight"
        widths = weights.sizes(f"encoder.{block}", 0) or weights.sizes(f"decoder.{block}", 0)[::-1]
        yield "block_out_channels", widths
        yield "norm_num_groups", Assumed(gcd(cls.norm_num_groups, *widths))
        block = "levels.0.blocks.{}.main.conv1.weight"
        yield "layers_per_block", weights.count(f"encoder.{block}") or weights.count(f"decoder.{block}") - 1
        moments = weights.size("encoder.conv_out.weight", 0)
        yield "latent_channels", moments // 2 or weights.size("decoder.conv_in.weight", 1)
        yield "use_quant_conv", weights.has("encoder.quant_conv.weight")
        yield "use_post_quant_conv", weights.has("decoder.post_quant_conv.weight")
        norm = "middle.attention.main.norm.weight"
        yield "mid_block_add_attention", weights.has(f"encoder.{norm}", f"decoder.{norm}")

    def constants(self) -> dict[str, Any]:
        """Plain convolutional blocks with SiLU on every level."""
        levels = len(self.block_out_channels)
        return {
            "act_fn": "silu",
            "down_block_types": ["DownEncoderBlock2D"] * levels,
            "up_block_types": ["UpDecoderBlock2D"] * levels,
        }


def conv(channels: int, out_channels: int, kernel: int) -> Conv:
    """A convolution that keeps height and width."""
    return Conv(channels, out_channels, (kernel, kernel), pad=((kernel // 2, kernel // 2),) * 2)


def downsample(channels: int) -> Conv:
    """Halves height and width; zeros on the right and at the bottom only."""
    return Conv(channels, channels, (3, 3), stride=2, pad=((0, 1), (0, 1)))


def upsample(channels: int) -> Chain:
    """Doubles height and width."""
    return Chain(nearest=NearestUpsample(2), conv=conv(channels, channels, 3))


def middle(arch: AutoencoderKLArchConfig, width: int, norm: Norm) -> Chain:
    """The innermost level."""
    return Chain(
        block1=residual_block(width, width, norm, conv),
        attention=attention_block(width, norm) if arch.mid_block_add_attention else None,
        block2=residual_block(width, width, norm, conv),
    )


def level(channels: int, width: int, blocks: int, norm: Norm, resample: Layer | None) -> Chain:
    """Residual blocks at one resolution, then the way to the next."""
    widths = [channels] + [width] * blocks
    return Chain(
        blocks=Chain(*(residual_block(a, b, norm, conv) for a, b in pairwise(widths))),
        resample=resample,
    )


class AutoencoderKL(VAE):
    """See the module."""

    arch_class = AutoencoderKLArchConfig
    config_class = ImageVAEConfig
    aliases = ("AutoEncoder",)
    arch: AutoencoderKLArchConfig

    @staticmethod
    def encoder_of(arch: AutoencoderKLArchConfig) -> Layer:
        """[B, 3, H, W] -> moments [B, 2Z, H/8, W/8]."""
        norm = partial(GroupNorm, groups=arch.norm_num_groups)
        widths, z = arch.block_out_channels, arch.latent_channels
        before, last = (widths[0], *widths[:-1]), len(widths) - 1
        return Chain(
            conv_in=conv(arch.in_channels, widths[0], 3),
            levels=Chain(
                *(
                    level(a, b, arch.layers_per_block, norm, downsample(b) if i < last else None)
                    for i, (a, b) in enumerate(zip(before, widths, strict=True))
                )
            ),
            middle=middle(arch, widths[-1], norm),
            norm_out=norm(widths[-1]),
            act_out=SiLU(),
            conv_out=conv(widths[-1], 2 * z, 3),
            quant_conv=conv(2 * z, 2 * z, 1) if arch.use_quant_conv else None,
        )

    @staticmethod
    def decoder_of(arch: AutoencoderKLArchConfig) -> Layer:
        """[B, Z, h, w] -> [B, 3, 8h, 8w]."""
        norm = partial(GroupNorm, groups=arch.norm_num_groups)
        widths, z = arch.block_out_channels[::-1], arch.latent_channels
        before, last = (widths[0], *widths[:-1]), len(widths) - 1
        return Chain(
            post_quant_conv=conv(z, z, 1) if arch.use_post_quant_conv else None,
            conv_in=conv(z, widths[0], 3),
            middle=middle(arch, widths[0], norm),
            levels=Chain(
                *(
                    level(a, b, arch.layers_per_block + 1, norm, upsample(b) if i < last else None)
                    for i, (a, b) in enumerate(zip(before, widths, strict=True))
                )
            ),
            norm_out=norm(widths[-1]),
            act_out=SiLU(),
            conv_out=conv(widths[-1], arch.out_channels, 3),
        )

    @staticmethod
    def contract_of(arch: AutoencoderKLArchConfig) -> LatentContract:
        """Raw output, moments of a Gaussian, one scale for all channels."""
        factor = 2 ** (len(arch.block_out_channels) - 1)
        mean, std = arch.latents_mean, arch.latents_std
        return LatentContract(
            modality="image",
            channels=arch.in_channels,
            axes=(AxisRule(name="height", multiple=factor), AxisRule(name="width", multiple=factor)),
            latent_channels=arch.latent_channels,
            posterior="gaussian-logvar",
            shift=mean if mean is not None else arch.shift_factor or 0.0,
            scale=tuple(arch.scaling_factor / s for s in std) if std is not None else arch.scaling_factor,
        )


_SD = AutoencoderKLArchConfig(block_out_channels=(128, 256, 512, 512), layers_per_block=2, sample_size=512)
_SD3 = _SD.replace(
    latent_channels=16,
    sample_size=1024,
    use_quant_conv=False,
    use_post_quant_conv=False,
    scaling_factor=1.5305,
    shift_factor=0.0609,
)
AutoencoderKL.variants = {
    "sd1": _SD,
    "sd2": _SD,
    "sdxl": _SD.replace(sample_size=1024, scaling_factor=0.13025),
    "sd3": _SD3,
    "flux1": _SD3.replace(scaling_factor=0.3611, shift_factor=0.1159),
}

EntryClass = AutoencoderKL
