"""Normalisations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaeport.layers.layer import Barrier, Layer


class GroupNorm(Barrier):
    """y = (x - mean) / sqrt(var + eps) * weight + bias, statistics per group of channels and over all axes.

    x [B, C, *axes]; weight, bias [C]; 1e-6 is the eps of the latent-diffusion family.
    """

    def __init__(self, channels: int, groups: int = 32, eps: float = 1e-6) -> None:
        super().__init__()
        self.groups, self.eps = groups, eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, *axes], same shape."""
        return F.group_norm(x, self.groups, self.weight, self.bias, self.eps)


class ChannelRMSNorm(Layer):
    """y = x / max(|x|, 1e-12) * sqrt(C) * gain, |x| over the channels of each position.

    x [B, C, *axes]; gain [C]. In 16-bit types the division is done in float32, the gain is applied in x's type.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, *axes], same shape."""
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        gain = self.gain * self.gain.numel() ** 0.5
        unit: Tensor = F.normalize(wide, dim=1).to(x.dtype)
        y: Tensor = unit * gain.view(-1, *(1,) * (x.dim() - 2))
        return y


class PixelNorm(Layer):
    """y = x / sqrt(mean(x^2) + eps), the mean over the channels of each position.

    x [B, C, *axes]. The mean is taken in float32 at least.
    """

    def __init__(self, eps: float = 1e-8) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, *axes], same shape."""
        wide = torch.promote_types(x.dtype, torch.float32)
        mean = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=wide).square() / x.shape[1]
        return x * torch.rsqrt(mean + self.eps).to(x.dtype)


class ChannelLayerNorm(Layer):
    """y = (x - mean) / sqrt(var + eps) * weight + bias, statistics over the channels of each position.

    x [B, C, *axes]; weight, bias [C].
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, *axes], same shape."""
        y = F.layer_norm(x.movedim(1, -1), self.weight.shape, self.weight, self.bias, self.eps)
        return y.movedim(-1, 1)
