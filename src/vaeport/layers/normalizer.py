"""The affine map between a VAE's latents and those that its diffusion model sees."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class LatentNormalizer:
    """normalize(z) = (z - shift) * scale, denormalize(z) = z / scale + shift, one number or one per channel."""

    def __init__(self, shift: float | Sequence[float] = 0.0, scale: float | Sequence[float] = 1.0) -> None:
        self.shift, self.scale = shift, scale

    def normalize(self, z: Tensor) -> Tensor:
        """[B, Z, ...] as the VAE gives it -> as the diffusion model takes it."""
        shift, scale = self._like(z)
        return (z - shift) * scale

    def scaled(self, difference: Tensor) -> Tensor:
        """What `normalize` makes of a difference of two latents, or of a standard deviation."""
        return difference * self._like(difference)[1]

    def denormalize(self, z: Tensor) -> Tensor:
        """[B, Z, ...] as the diffusion model gives it -> as the VAE's decoder takes it."""
        shift, scale = self._like(z)
        return z / scale + shift

    def _like(self, z: Tensor) -> tuple[Tensor | float, Tensor | float]:
        return _factor(self.shift, z), _factor(self.scale, z)


class StoredNormalizer(nn.Module):
    """normalize(z) = (z - mean) / std, one of each per channel, which lie in the checkpoint."""

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    def normalize(self, z: Tensor) -> Tensor:
        """As `LatentNormalizer.normalize`."""
        mean, std = self._like(z)
        return (z - mean) / std

    def scaled(self, difference: Tensor) -> Tensor:
        """As `LatentNormalizer.scaled`."""
        return difference / self._like(difference)[1]

    def denormalize(self, z: Tensor) -> Tensor:
        """As `LatentNormalizer.denormalize`."""
        mean, std = self._like(z)
        return z * std + mean

    def _like(self, z: Tensor) -> tuple[Tensor, ...]:
        return tuple(t.to(z).view(-1, *(1,) * (z.dim() - 2)) for t in (self.mean, self.std))


def _factor(value: float | Sequence[float], z: Tensor) -> Tensor | float:
    """One per channel as a tensor like z; a single number stays one, since bfloat16 would round it."""
    if isinstance(value, int | float):
        return value
    return torch.tensor(value, dtype=z.dtype, device=z.device).view(-1, *(1,) * (z.dim() - 2))
