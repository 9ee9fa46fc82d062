"""What is measured: models, sizes and types for each device, and narrow stand-ins that run in seconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from vaeport.configs import LatentContract, VAEArchConfig
from vaeport.models.autoencoder_kl import AutoencoderKL, AutoencoderKLArchConfig
from vaeport.models.hunyuan_video import HunyuanVideo, HunyuanVideoArchConfig
from vaeport.models.ltx2 import LTX2ArchConfig, LTX2Video
from vaeport.models.ltx_video import LTXVideo
from vaeport.models.oobleck import Oobleck, OobleckArchConfig
from vaeport.models.wan import Wan, WanArchConfig
from vaeport.models.wan2_2 import Wan22, Wan22ArchConfig
from vaeport.proof.calling import Convention
from vaeport.proof.setup import timestep_argument
from vaeport.vae import VAE

Half = Literal["encode", "decode"]
HALVES: tuple[Half, ...] = ("encode", "decode")


@dataclass(frozen=True)
class Model:
    """An architecture and the Diffusers class that it is compared with; `key` is what `--only` names.

    attributes  what is set on the Diffusers model
    """

    key: str
    native: str
    cls: type[VAE]
    arch: VAEArchConfig
    width: str
    attributes: dict[str, Any] = field(default_factory=dict, hash=False)

    @property
    def convention(self) -> Convention:
        """How the Diffusers model is called."""
        told = timestep_argument(self.reference, self.contract.decode_timestep)
        return Convention(decode_arguments=told, attributes=self.attributes)

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
WAN22 = Model("wan2_2", "wan2_2", Wan22, Wan22.variants["wan2.2"], "wan2.2")
LTX = Model("ltx_video", "ltx_video", LTXVideo, LTXVideo.variants["ltxv-0.9.5"], "0.9.5")
LTX2 = Model("ltx2", "ltx2", LTX2Video, LTX2Video.variants["ltx2.0"], "ltx2.0")
# in frames at once, as ours runs: its default is blended tiles of 16 frames
_WHOLE = {"use_framewise_encoding": False, "use_framewise_decoding": False}
HUNYUAN = Model(
    "hunyuan_video", "hunyuan_video", HunyuanVideo, HunyuanVideo.variants["hunyuan_video"], "whole clip", _WHOLE
)

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
_QUICK_WAN22_ARCH = Wan22ArchConfig(
    base_dim=8,
    decoder_base_dim=12,
    z_dim=4,
    latents_mean=_QUICK_WAN_ARCH.latents_mean,
    latents_std=_QUICK_WAN_ARCH.latents_std,
)
QUICK_WAN22 = Model("wan2_2", "wan2_2", Wan22, _QUICK_WAN22_ARCH, "narrow")
_QUICK_LTX2_ARCH = LTX2ArchConfig(
    block_out_channels=(8, 16, 32, 64),
    decoder_block_out_channels=(16, 32, 64),
    layers_per_block=(1, 1, 1, 1, 1),
    decoder_layers_per_block=(1, 1, 1, 1),
    latent_channels=4,
    decoder_causal=False,
)
QUICK_LTX2 = Model("ltx2", "ltx2", LTX2Video, _QUICK_LTX2_ARCH, "narrow")
_QUICK_HUNYUAN_ARCH = HunyuanVideoArchConfig(block_out_channels=(16, 16, 32, 32), norm_num_groups=8, latent_channels=4)
QUICK_HUNYUAN = Model("hunyuan_video", "hunyuan_video", HunyuanVideo, _QUICK_HUNYUAN_ARCH, "narrow", _WHOLE)
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
        Timed(WAN22, "61 frames 704 x 1280", (1, 3, 61, 704, 1280), "bfloat16"),
        Timed(LTX, "121 frames 512 x 768", (1, 3, 121, 512, 768), "bfloat16"),
        Timed(LTX2, "121 frames 768 x 1280", (1, 3, 121, 768, 1280), "bfloat16"),
        Timed(HUNYUAN, "33 frames 480 x 720", (1, 3, 33, 480, 720), "bfloat16"),
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
        Streamed(WAN22, "480 x 832", (17, 81, 161), 1, "bfloat16", (480, 832)),
        Streamed(LTX2, "512 x 768", (241, 361, 481), 1, "bfloat16", (512, 768)),
    ),
}


def speed(device: str, quick: bool) -> tuple[Timed, ...]:
    """What is timed on a device."""
    if not quick:
        return FULL_SPEED[device]
    dtype = FULL_SPEED[device][1].dtype
    return (
        Timed(QUICK_KL, "48 x 64", (1, 3, 48, 64), dtype),
        Timed(QUICK_WAN, "5 frames 16 x 24", (1, 3, 5, 16, 24), dtype),
        Timed(QUICK_OOBLECK, "4096 samples", (1, 2, 4096), dtype),
        Timed(QUICK_WAN22, "5 frames 32 x 48", (1, 3, 5, 32, 48), dtype),
        Timed(QUICK_LTX2, "17 frames 64 x 96", (1, 3, 17, 64, 96), dtype),
        Timed(QUICK_HUNYUAN, "21 frames 32 x 48", (1, 3, 21, 32, 48), dtype),
    )


def streams(device: str, quick: bool) -> tuple[Streamed, ...]:
    """What is streamed on a device."""
    if not quick:
        return FULL_STREAMS[device]
    dtype = FULL_SPEED[device][1].dtype
    return (
        Streamed(QUICK_WAN, "32 x 32", (17, 33), 1, dtype, (32, 32), ("decode",)),
        Streamed(QUICK_OOBLECK, "stereo", (SECOND, 4 * SECOND), 1024, dtype, (), ("encode",)),
    )
