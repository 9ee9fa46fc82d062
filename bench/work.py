"""What is measured: models, sizes and types for each device, and narrow stand-ins that run in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vaeport.configs import LatentContract, VAEArchConfig
from vaeport.models.autoencoder_kl import AutoencoderKL, AutoencoderKLArchConfig
from vaeport.models.oobleck import Oobleck, OobleckArchConfig
from vaeport.models.wan import Wan, WanArchConfig
from vaeport.vae import VAE

Half = Literal["encode", "decode"]
HALVES: tuple[Half, ...] = ("encode", "decode")


@dataclass(frozen=True)
class Model:
    """An architecture and the Diffusers class that it is compared with; `key` is what `--only` names."""

    key: str
    native: str
    cls: type[VAE]
    arch: VAEArchConfig
    width: str

    @property
    def label(self) -> str:
        """For tables."""
        return f"{self.arch.class_names[0]} {self.width}"

    @property
    def reference(self) -> str:
        """Import path of the other side."""
        return f"diffusers:{self.arch.class_names[0]}"

    @property
    def contract(self) -> LatentContract:
        """Of this architecture."""
        return self.cls.contract_of(self.arch)


@dataclass(frozen=True)
class Timed:
    """Encode media of a shape [B, C, *axes] and decode a latent of the shape that belongs to it."""

    model: Model
    size: str
    media: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Streamed:
    """Stream media of several lengths, `piece` latents at a time.

    lengths     in frames or samples, shortest first
    frame       height and width, video only
    """

    model: Model
    size: str
    lengths: tuple[int, ...]
    piece: int
    dtype: str
    frame: tuple[int, ...] = ()
    halves: tuple[Half, ...] = HALVES


SECOND = 44100
KL = Model("kl", "autoencoder_kl", AutoencoderKL, AutoencoderKL.variants["flux1"], "flux1")
WAN = Model("wan", "wan", Wan, Wan.variants["wan2.1"], "wan2.1")
OOBLECK = Model("oobleck", "oobleck", Oobleck, Oobleck.variants["stable-audio-open-1.0"], "stable-audio-open-1.0")

NARROW_WAN = Model("wan", "wan", Wan, WanArchConfig(base_dim=8), "8 channels instead of 96")
_NARROW_ARCH = OobleckArchConfig(encoder_hidden_size=16, decoder_input_channels=8, decoder_channels=16)
NARROW_OOBLECK = Model("oobleck", "oobleck", Oobleck, _NARROW_ARCH, "16 channels instead of 128")
_QUICK_KL_ARCH = AutoencoderKLArchConfig(
    block_out_channels=(64, 64, 128), latent_channels=4, scaling_factor=0.3, shift_factor=0.1
)
QUICK_KL = Model("kl", "autoencoder_kl", AutoencoderKL, _QUICK_KL_ARCH, "narrow")
_QUICK_OOBLECK_ARCH = _NARROW_ARCH.replace(downsampling_ratios=(2, 4), channel_multiples=(1, 2))
_QUICK_WAN_ARCH = WanArchConfig(
    base_dim=8, z_dim=4, latents_mean=(0.1, -0.2, 0.3, 0.0), latents_std=(1.5, 0.7, 2.0, 1.0)
)
QUICK_WAN = Model("wan", "wan", Wan, _QUICK_WAN_ARCH, "narrow")
QUICK_OOBLECK = Model("oobleck", "oobleck", Oobleck, _QUICK_OOBLECK_ARCH, "narrow")

FULL_SPEED = {
    "cpu": (
        Timed(KL, "128 x 192", (1, 3, 128, 192), "float32"),
        Timed(WAN, "5 frames 64 x 96", (1, 3, 5, 64, 96), "float32"),
        Timed(OOBLECK, "1 s", (1, 2, 22 * 2048), "float32"),
    ),
    "cuda": (
        Timed(OOBLECK, "47.5 s", (1, 2, 1024 * 2048), "float16"),
        Timed(KL, "1024 x 1024", (1, 3, 1024, 1024), "bfloat16"),
        Timed(WAN, "81 frames 480 x 832", (1, 3, 81, 480, 832), "bfloat16"),
    ),
}
FULL_STREAMS = {
    "cpu": (
        Streamed(WAN, "32 x 32", (17, 161), 1, "float32", (32, 32)),
        Streamed(NARROW_WAN, "128 x 128", (17, 161), 1, "float32", (128, 128)),
        Streamed(NARROW_OOBLECK, "stereo", (10 * SECOND, 60 * SECOND, 600 * SECOND), 43, "float32"),
    ),
    "cuda": (
        Streamed(OOBLECK, "stereo", (10 * SECOND, 60 * SECOND, 600 * SECOND), 215, "float16"),
        Streamed(WAN, "480 x 832", (17, 81, 161), 1, "bfloat16", (480, 832)),
    ),
}


def speed(device: str, quick: bool) -> tuple[Timed, ...]:
    """What is timed on a device."""
    if not quick:
        return FULL_SPEED[device]
    dtype = FULL_SPEED[device][-1].dtype
    return (
        Timed(QUICK_KL, "48 x 64", (1, 3, 48, 64), dtype),
        Timed(QUICK_WAN, "5 frames 16 x 24", (1, 3, 5, 16, 24), dtype),
        Timed(QUICK_OOBLECK, "4096 samples", (1, 2, 4096), dtype),
    )


def streams(device: str, quick: bool) -> tuple[Streamed, ...]:
    """What is streamed on a device."""
    if not quick:
        return FULL_STREAMS[device]
    dtype = FULL_SPEED[device][-1].dtype
    return (
        Streamed(QUICK_WAN, "32 x 32", (17, 33), 1, dtype, (32, 32), ("decode",)),
        Streamed(QUICK_OOBLECK, "stereo", (SECOND, 4 * SECOND), 1024, dtype, (), ("encode",)),
    )
