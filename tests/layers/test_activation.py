"""Activations by their formulas."""

from __future__ import annotations

import torch

from tests.layers.laws import difference, filled, normal
from vaeport.layers import SiLU, Snake


def test_silu() -> None:
    x = normal(2, 3, 4)
    assert difference(SiLU()(x), x / (1 + torch.exp(-x))) < 1e-15


def test_snake() -> None:
    layer, x = filled(Snake(3)), normal(2, 3, 7)
    for c in range(3):
        alpha, beta = layer.log_alpha[c].exp(), layer.log_beta[c].exp()
        expected = x[:, c] + torch.sin(alpha * x[:, c]) ** 2 / (beta + 1e-9)
        assert difference(layer(x)[:, c], expected) < 1e-14


def test_snake_logs_are_apart() -> None:
    """alpha is a frequency, beta an amplitude: exchanging them is another function."""
    layer, x = filled(Snake(3)), normal(2, 3, 7)
    before = layer(x)
    layer.log_alpha, layer.log_beta = layer.log_beta, layer.log_alpha
    assert difference(layer(x), before) > 1e-2


def test_snake_does_not_divide_by_zero() -> None:
    layer = filled(Snake(1))
    layer.log_beta.fill_(-60.0)
    assert torch.isfinite(layer(normal(1, 1, 5))).all()
