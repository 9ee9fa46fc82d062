"""Narrow configurations of the references, and two modules compared by what they compute."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.narrow import ARCHS
from vaeport.proof.draw import draw_input, draw_media
from vaeport.proof.precision import Float64Mode

NAMES = {"kl": "autoencoder_kl", "wan": "wan", "oobleck": "oobleck"}
CONFIGS: dict[str, dict[str, Any]] = {name: ARCHS[native].to_published() for name, native in NAMES.items()}
MORE = {
    "kl16": ("kl", CONFIGS["kl"] | {"use_quant_conv": False, "use_post_quant_conv": False, "latent_channels": 16}),
    "wan2.2": ("wan", CONFIGS["wan"] | {"is_residual": True, "patch_size": 2, "in_channels": 12, "out_channels": 12}),
}
CASES = {name: (name, CONFIGS[name]) for name in NAMES} | MORE
MEDIA = {"kl": (2, 3, 24, 40), "wan": (1, 3, 9, 16, 32), "oobleck": (2, 2, 96)}
EQUAL = 1e-12
"""largest difference over the largest value"""


@torch.no_grad()
def outputs(module: Any, name: str) -> list[Tensor]:
    """Moments and decoded media, in float64 with every cast promoted."""
    nn.Module.to(module, torch.float64)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with Float64Mode():
            posterior = module.encode(draw_media("x", MEDIA[name], 0)).latent_dist
            z = draw_input("z", posterior.mode().shape, 0)
            return [posterior.parameters, posterior.mode(), module.decode(z).sample]
    finally:
        torch.set_default_dtype(before)


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


def segments(module: nn.Module) -> set[str]:
    return {part for key in module.state_dict() for part in key.split(".")}


def difference(found: list[Tensor], expected: list[Tensor]) -> float:
    """Largest difference of any output, over its largest value."""
    assert [t.shape for t in found] == [t.shape for t in expected]
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, expected, strict=True))
