"""Narrow models with drawn weights, saved as Diffusers folders: what tests of files and of the command line run on."""

from __future__ import annotations

from pathlib import Path

from vaeport.configs import VAEArchConfig
from vaeport.models.autoencoder_kl import AutoencoderKLArchConfig
from vaeport.models.oobleck import OobleckArchConfig
from vaeport.models.wan import WanArchConfig
from vaeport.proof.draw import draw_state
from vaeport.registry import ModelRegistry
from vaeport.vae import VAE

KL = AutoencoderKLArchConfig(block_out_channels=(64, 64, 128), latent_channels=4, scaling_factor=0.3, shift_factor=0.1)
WAN = WanArchConfig(base_dim=16, z_dim=4, latents_mean=(0.1, -0.2, 0.3, 0.0), latents_std=(1.5, 0.7, 2.0, 1.0))
OOBLECK = OobleckArchConfig(
    encoder_hidden_size=16,
    decoder_input_channels=8,
    decoder_channels=16,
    downsampling_ratios=(2, 4),
    channel_multiples=(1, 2),
)
ARCHS: dict[str, VAEArchConfig] = {"autoencoder_kl": KL, "wan": WAN, "oobleck": OOBLECK}


def drawn(name: str, seed: int = 0) -> VAE:
    """A narrow model whose weights are drawn from `seed`."""
    vae = ModelRegistry.find(name).model(ARCHS[name])
    state = vae.state_dict()
    published = {k.replace("log_", "").replace("gain", "gamma"): tuple(t.shape) for k, t in state.items()}
    vae.load_state_dict(dict(zip(state, draw_state(published, seed).values(), strict=True)))
    return vae.eval().requires_grad_(False)


def saved(name: str, folder: Path, seed: int = 0) -> Path:
    """`drawn` as a Diffusers folder."""
    drawn(name, seed).save(folder)
    return folder
