"""Narrow models that prove in seconds, and native sides with a fault put in after loading."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vaeport.configs import VAEArchConfig
from vaeport.models.autoencoder_kl import AutoencoderKLArchConfig
from vaeport.models.oobleck import OobleckArchConfig
from vaeport.models.wan import WanArchConfig
from vaeport.proof.prove import Proof
from vaeport.proof.sides import NativeSide, ReferenceSide, Side
from vaeport.registry import ModelRegistry
from vaeport.runtime.load import load
from vaeport.vae import VAE

KL = AutoencoderKLArchConfig(block_out_channels=(64, 64, 128), latent_channels=4, scaling_factor=0.3, shift_factor=0.1)
WAN = WanArchConfig(base_dim=16, z_dim=4, latents_mean=(0.1, -0.2, 0.3, 0.0), latents_std=(1.5, 0.7, 2.0, 1.0))
OOBLECK = OobleckArchConfig(
    encoder_hidden_size=16, decoder_input_channels=8, decoder_channels=16, downsampling_ratios=(2, 4), channel_multiples=(1, 2)
)
NARROW: dict[str, tuple[str, VAEArchConfig]] = {
    "autoencoder_kl": ("diffusers:AutoencoderKL", KL),
    "wan": ("diffusers:AutoencoderKLWan", WAN),
    "oobleck": ("diffusers:AutoencoderOobleck", OOBLECK),
}

Fault = Callable[[VAE], Any]


def native_side(name: str, fault: Fault | None = None) -> NativeSide:
    """The native model of a narrow config; `fault` changes the loaded VAE in place."""
    _, arch = NARROW[name]
    model = ModelRegistry.find(name).model

    def opened(path: Path) -> VAE:
        vae = load(path)
        if fault is not None:
            fault(vae)
        return vae

    return NativeSide(name, lambda: model(arch), opened)


def proof(name: str, fault: Fault | None = None, *, reference: Side | None = None, **options: Any) -> Proof:
    """A proof of a narrow model against Diffusers; gate S alone unless dtypes are named."""
    path, arch = NARROW[name]
    side = reference or ReferenceSide(path, arch.to_published())
    return Proof(side, native_side(name, fault), ModelRegistry.find(name).layouts, **{"dtypes": (), **options})
