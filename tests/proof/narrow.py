"""Narrow models that prove in seconds, and native sides with a fault put in after loading."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.narrow import KL, OOBLECK, WAN
from vaeport.configs import VAEArchConfig
from vaeport.proof.prove import Proof
from vaeport.proof.sides import NativeSide, ReferenceSide, Side
from vaeport.registry import ModelRegistry
from vaeport.runtime.load import load
from vaeport.vae import VAE

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
