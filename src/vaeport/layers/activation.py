"""Activations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaeport.layers.layer import Layer


class SiLU(Layer):
    """y = x * sigmoid(x)."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return F.silu(x)


class Snake(Layer):
    """y = x + sin(exp(log_alpha) * x)^2 / (exp(log_beta) + 1e-9), per channel.

    x [B, C, L]; log_alpha, log_beta [C]. Periodic, for waveforms (the "SnakeBeta" of BigVGAN, in log scale).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_alpha = nn.Parameter(torch.zeros(channels))
        self.log_beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, L], same shape."""
        alpha, beta = (torch.exp(p).unsqueeze(-1) for p in (self.log_alpha, self.log_beta))
        # in place: four tensors as large as x less
        return (alpha * x).sin_().square_().mul_((beta + 1e-9).reciprocal()).add_(x)
