"""Oobleck: the stereo waveform VAE of Stable Audio Open.

What is unusual: no norm and no attention, so every layer is local and chunks of any length give the whole; all
convolutions are weight-normed; the posterior's standard deviation is a softplus.

    waveform [B, 2, 2048 n] in -1..1 at 44.1 kHz -> latent [B, 64, n]

Source: Stability-AI/stable-audio-tools stable_audio_tools/models/autoencoders.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

from vaeport.configs import AudioVAEConfig, AxisRule, LatentContract, VAEArchConfig, WeightShapes
from vaeport.errors import ConfigError
from vaeport.layers import Add, Chain, Identity, Layer, Snake, WeightNormConv, WeightNormConvTranspose1d
from vaeport.vae import VAE


@dataclass(frozen=True, kw_only=True)
class OobleckArchConfig(VAEArchConfig):
    """encoder_hidden_size is the encoder's width and, as 2 Z, the width of its output."""

    class_names = ("AutoencoderOobleck",)

    encoder_hidden_size: int = 128
    downsampling_ratios: tuple[int, ...] = (2, 4, 4, 8, 8)
    channel_multiples: tuple[int, ...] = (1, 2, 4, 8, 16)
    decoder_channels: int = 128
    decoder_input_channels: int = 64
    audio_channels: int = 2
    sampling_rate: int = 44100

    @classmethod
    def read_shapes(cls, weights: WeightShapes) -> Iterator[tuple[str, Any]]:
        """All but the sampling rate; kernels are twice as long as strides, transposed ones have the input first."""
        way = "levels.{}.conv.weight_v"
        down, up = weights.sizes(f"encoder.{way}", 2), weights.sizes(f"decoder.{way}", 2)[::-1]
        yield "downsampling_ratios", tuple(kernel // 2 for kernel in down or up)
        latent = weights.size("decoder.conv_in.weight_v", 1) or weights.size("encoder.conv_in.weight_v", 0) // 2
        yield "decoder_input_channels", latent
        yield "encoder_hidden_size", 2 * latent
        width = weights.size(f"decoder.levels.{len(up) - 1}.conv.weight_v", 1)
        yield "decoder_channels", width
        inner, outer = weights.sizes(f"encoder.{way}", 0), weights.sizes(f"decoder.{way}", 0)[::-1]
        yield "channel_multiples", tuple(w // (2 * latent) for w in inner) or tuple(w // width for w in outer)
        yield (
            "audio_channels",
            weights.size("encoder.conv_in.weight_v", 1) or weights.size("decoder.conv_out.weight_v", 0),
        )

    def __post_init__(self) -> None:
        """ConfigError for fields that contradict each other."""
        if len(self.downsampling_ratios) != len(self.channel_multiples):
            raise ConfigError(
                "downsampling_ratios and channel_multiples differ in length",
                expected=len(self.downsampling_ratios),
                found=len(self.channel_multiples),
            )
        if any(ratio % 2 for ratio in self.downsampling_ratios):
            # an odd stride loses samples on the way down and up, and the hop is no longer their product
            raise ConfigError("downsampling_ratios must be even", found=self.downsampling_ratios)
        if self.encoder_hidden_size != 2 * self.decoder_input_channels:
            raise ConfigError(
                "the encoder's output must be twice as wide as the latent",
                expected=f"encoder_hidden_size {2 * self.decoder_input_channels}",
                found=self.encoder_hidden_size,
            )


def conv(channels: int, out_channels: int, kernel: int, *, dilation: int = 1, bias: bool = True) -> WeightNormConv:
    """A convolution that keeps the number of samples."""
    pad = dilation * (kernel // 2)
    return WeightNormConv(channels, out_channels, (kernel,), dilation=dilation, pad=((pad, pad),), bias=bias)


def residual_unit(channels: int, dilation: int) -> Add:
    """A wide and a narrow convolution, Snake before each."""
    return Add(
        main=Chain(
            snake1=Snake(channels),
            conv1=conv(channels, channels, 7, dilation=dilation),
            snake2=Snake(channels),
            conv2=conv(channels, channels, 1),
        ),
        shortcut=Identity(),
    )


def residual_units(channels: int) -> Chain:
    """Three units that reach ever further."""
    return Chain(*(residual_unit(channels, dilation) for dilation in (1, 3, 9)))


def downsample(channels: int, out_channels: int, stride: int) -> Chain:
    """Units at the input's width, then a strided convolution."""
    pad = (stride + 1) // 2
    return Chain(
        units=residual_units(channels),
        snake=Snake(channels),
        conv=WeightNormConv(channels, out_channels, (2 * stride,), stride=stride, pad=((pad, pad),)),
    )


def upsample(channels: int, out_channels: int, stride: int) -> Chain:
    """A transposed convolution, then units at the output's width."""
    return Chain(
        snake=Snake(channels),
        conv=WeightNormConvTranspose1d(channels, out_channels, 2 * stride, stride=stride, crop=(stride + 1) // 2),
        units=residual_units(out_channels),
    )


class Oobleck(VAE):
    """See the module."""

    arch_class = OobleckArchConfig
    config_class = AudioVAEConfig
    aliases = ("OobleckVAE", "SAAudioVAEModel")
    arch: OobleckArchConfig

    @staticmethod
    def encoder_of(arch: OobleckArchConfig) -> Layer:
        """[B, 2, S] -> moments [B, 2Z, S // 2048]."""
        hidden = arch.encoder_hidden_size
        widths = [hidden * m for m in (1, *arch.channel_multiples)]
        return Chain(
            conv_in=conv(arch.audio_channels, hidden, 7),
            levels=Chain(
                *(downsample(a, b, s) for a, b, s in zip(widths, widths[1:], arch.downsampling_ratios, strict=False))
            ),
            snake_out=Snake(widths[-1]),
            conv_out=conv(widths[-1], hidden, 3),
        )

    @staticmethod
    def decoder_of(arch: OobleckArchConfig) -> Layer:
        """[B, Z, n] -> [B, 2, 2048 n]."""
        widths = [arch.decoder_channels * m for m in (*arch.channel_multiples[::-1], 1)]
        strides = arch.downsampling_ratios[::-1]
        return Chain(
            conv_in=conv(arch.decoder_input_channels, widths[0], 7),
            levels=Chain(*(upsample(a, b, s) for a, b, s in zip(widths, widths[1:], strides, strict=False))),
            snake_out=Snake(widths[-1]),
            conv_out=conv(widths[-1], arch.audio_channels, 7, bias=False),
        )

    @staticmethod
    def contract_of(arch: OobleckArchConfig) -> LatentContract:
        """Raw waveform; latents are not normalised."""
        return LatentContract(
            modality="audio",
            channels=arch.audio_channels,
            axes=(AxisRule(name="samples", multiple=prod(arch.downsampling_ratios)),),
            latent_channels=arch.decoder_input_channels,
            posterior="gaussian-softplus",
            sample_rate=arch.sampling_rate,
        )


Oobleck.variants = {"stable-audio-open-1.0": OobleckArchConfig()}

EntryClass = Oobleck
