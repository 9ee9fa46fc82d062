"""Normalisations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaeport.layers.large import in_parts
from vaeport.layers.layer import Barrier, Layer, Settled


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

    def note(self, x: Tensor) -> Tensor:
        """Count, mean and sum of squared deviations of each sample's groups: [B, groups, 3] in float64."""
        mean, var = _moments(x)
        mean, var = (t.double().view(x.shape[0], self.groups, -1) for t in (mean, var))
        centre = mean.mean(2)
        size = x[0, 0].numel() * mean.shape[2]
        squares = size * (var.mean(2) + (mean - centre[:, :, None]).square().mean(2))
        return torch.stack((torch.full_like(centre, size), centre, squares), 2)

    def settled(self, notes: Sequence[Tensor], axis: int) -> Settled:
        """With the statistics of all pieces."""
        count, mean, squares = torch.stack(tuple(notes)).unbind(3)
        total = count.sum(0)
        centre = (count * mean).sum(0) / total
        var = (squares + count * (mean - centre).square()).sum(0) / total
        return SettledGroupNorm(self, centre, var, axis)


class SettledGroupNorm(Settled):
    """A group norm whose statistics are known: mean and var, [B, groups] each."""

    def __init__(self, norm: GroupNorm, mean: Tensor, var: Tensor, axis: int) -> None:
        super().__init__(axis)
        channels = norm.weight.numel() // norm.groups
        wide = torch.promote_types(norm.weight.dtype, torch.float32)
        self.mean, self.var = (t.repeat_interleave(channels, 1).flatten().to(wide) for t in (mean, var))
        self.weight, self.bias = (t.to(wide).repeat(len(mean)) for t in (norm.weight, norm.bias))
        self.eps = norm.eps

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, *axes], same shape."""
        # samples are channels of one sample, each with its own statistics
        y = F.batch_norm(x.flatten(0, 1)[None], self.mean, self.var, self.weight, self.bias, eps=self.eps)
        return y.view(x.shape)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of every channel of every sample, [B * C] each, in float32 at least."""
    flat = x.flatten(0, 1)
    if x.is_cuda and x.dtype is not torch.float64:
        # read once and summed in float32, where `var_mean` would round its result to x's type
        mean, inverse = torch.batch_norm_stats(flat[None], _TINY)
        return mean, inverse.double().pow(-2) - _TINY
    wide = flat.flatten(1).to(torch.promote_types(x.dtype, torch.float32))
    var, mean = torch.var_mean(wide, 1, correction=0)
    return mean, var


_TINY = 1e-12
"""keeps the inverse of a constant channel's deviation finite; far below any eps of a norm"""


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
        return in_parts(self._normed, x, x.numel())

    def _normed(self, x: Tensor) -> Tensor:
        y = F.layer_norm(x.movedim(1, -1), self.weight.shape, self.weight, self.bias, self.eps)
        return y.movedim(-1, 1)
