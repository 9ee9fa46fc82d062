"""vaeport: native VAEs for diffusion models, and the proof that they equal their originals.

vae = vaeport.load("black-forest-labs/FLUX.1-dev", subfolder="vae")
latents = vae.encode(image).latent_dist.mode()
image = vae.decode(latents).sample
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vaeport.configs import AudioVAEConfig, ImageVAEConfig, LatentContract, VAEArchConfig, VAEConfig, VideoVAEConfig
    from vaeport.errors import VaeportError
    from vaeport.registry import ModelRegistry
    from vaeport.runtime.load import load
    from vaeport.runtime.parallel import ParallelTiledVAE
    from vaeport.vae import VAE

__version__ = "0.1.0"

_HOMES = {
    "AudioVAEConfig": "configs",
    "ImageVAEConfig": "configs",
    "LatentContract": "configs",
    "ModelRegistry": "registry",
    "ParallelTiledVAE": "runtime.parallel",
    "VAE": "vae",
    "VAEArchConfig": "configs",
    "VAEConfig": "configs",
    "VaeportError": "errors",
    "VideoVAEConfig": "configs",
    "load": "runtime.load",
}

__all__ = [
    "VAE",
    "AudioVAEConfig",
    "ImageVAEConfig",
    "LatentContract",
    "ModelRegistry",
    "ParallelTiledVAE",
    "VAEArchConfig",
    "VAEConfig",
    "VaeportError",
    "VideoVAEConfig",
    "load",
]


def __getattr__(name: str) -> Any:
    """Public names are imported when they are first used, so that `import vaeport` costs next to nothing."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"vaeport.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'vaeport' has no attribute '{name}'")
