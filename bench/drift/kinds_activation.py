"""Faults of activations."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.drift.sites import Site, kind, of, rewrite
from vaeport.layers import SiLU, Snake
from vaeport.vae import VAE

VARIANTS: dict[str, Any] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "mish": F.mish,
    "hardswish": F.hardswish,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
    "elu": F.elu,
    "tanh": torch.tanh,
}


@kind("activation", of(SiLU, details=tuple(VARIANTS)))
def activation_variant(vae: VAE, site: Site) -> None:
    function = VARIANTS[site.detail]
    rewrite(vae, site, forward=lambda self, x: function(x))


@kind("activation", of(SiLU, Snake))
def activation_missing(vae: VAE, site: Site) -> None:
    rewrite(vae, site, forward=lambda self, x: x)


@kind("activation", of(Snake, details=("silu", "elu", "tanh")))
def snake_replaced(vae: VAE, site: Site) -> None:
    function = {"silu": F.silu, "elu": F.elu, "tanh": torch.tanh}[site.detail]
    rewrite(vae, site, forward=lambda self, x: function(x))


def snake(x: Tensor, alpha: Tensor, beta: Tensor, floor: float = 1e-9) -> Tensor:
    """The formula."""
    a, b = (t.unsqueeze(-1) for t in (alpha, beta))
    return x + (a * x).sin().square() / (b + floor)


@kind("snake", of(Snake))
def snake_alpha_and_beta(vae: VAE, site: Site) -> None:
    rewrite(vae, site, forward=lambda self, x: snake(x, self.log_beta.exp(), self.log_alpha.exp()))


@kind("snake_log", of(Snake))
def snake_not_exponentiated(vae: VAE, site: Site) -> None:
    rewrite(vae, site, forward=lambda self, x: snake(x, self.log_alpha, self.log_beta.abs() + 0.05))


@kind("snake", of(Snake))
def snake_without_beta(vae: VAE, site: Site) -> None:
    rewrite(vae, site, forward=lambda self, x: snake(x, self.log_alpha.exp(), self.log_alpha.exp()))


@kind("snake", of(Snake))
def snake_not_squared(vae: VAE, site: Site) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        alpha, beta = (t.exp().unsqueeze(-1) for t in (self.log_alpha, self.log_beta))
        return x + (alpha * x).sin() / (beta + 1e-9)

    rewrite(vae, site, forward=forward)


@kind("eps", of(Snake))
def snake_floor(vae: VAE, site: Site) -> None:
    rewrite(vae, site, forward=lambda self, x: snake(x, self.log_alpha.exp(), self.log_beta.exp(), 1e-6))
