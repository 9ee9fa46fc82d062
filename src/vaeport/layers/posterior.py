"""Posteriors: what an encoder says about the latent, a diagonal Gaussian in one of two parametrisations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vaeport.layers.normalizer import LatentNormalizer, StoredNormalizer
from vaeport.layers.random import standard_normal


class DiagonalGaussian:
    """N(mean, std^2) from moments [B, 2Z, ...]: the first Z channels are the mean, the others log(var).

    parameters  the moments as they came from the encoder
    mean, std   [B, Z, ...]; logvar is clamped to [-30, 20]
    """

    logvar_range = (-30.0, 20.0)

    def __init__(self, parameters: Tensor) -> None:
        self.parameters = parameters
        self.mean, self._spread = parameters.chunk(2, dim=1)

    @property
    def logvar(self) -> Tensor:
        """log(std^2), [B, Z, ...]."""
        return self._spread.clamp(*self.logvar_range)

    @property
    def std(self) -> Tensor:
        """Standard deviation, [B, Z, ...]."""
        return torch.exp(0.5 * self.logvar)

    @property
    def var(self) -> Tensor:
        """Variance, [B, Z, ...]."""
        return torch.exp(self.logvar)

    def mode(self) -> Tensor:
        """The mean."""
        return self.mean

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """mean + std * noise, noise in the moments' dtype, drawn on the generator's device and moved."""
        return self.mean + self.std * standard_normal(self.mean.shape, self.mean, generator)

    def kl(self) -> Tensor:
        """KL divergence to N(0, 1), summed over all but the batch: [B]."""
        return 0.5 * (self.mean.pow(2) + self.var - 1.0 - self.logvar).flatten(1).sum(1)


class SoftplusGaussian(DiagonalGaussian):
    """As above, with std = softplus(second half) + 1e-4 and no clamp (Stable Audio's bottleneck)."""

    @property
    def std(self) -> Tensor:
        """softplus + 1e-4."""
        return F.softplus(self._spread) + 1e-4

    @property
    def var(self) -> Tensor:
        """std^2."""
        return self.std * self.std

    @property
    def logvar(self) -> Tensor:
        """log(std^2)."""
        return torch.log(self.var)


class NormalizedGaussian(DiagonalGaussian):
    """A posterior seen through an affine map of the latents: mean and sample are normalised, `parameters` are not."""

    def __init__(self, inner: DiagonalGaussian, normalizer: LatentNormalizer | StoredNormalizer) -> None:
        super().__init__(inner.parameters)
        self.inner, self.normalizer = inner, normalizer
        self.mean = normalizer.normalize(inner.mean)

    @property
    def std(self) -> Tensor:
        """Of the normalised latent."""
        return self.normalizer.scaled(self.inner.std)

    @property
    def var(self) -> Tensor:
        """std^2."""
        return self.std * self.std

    @property
    def logvar(self) -> Tensor:
        """log(std^2)."""
        return torch.log(self.var)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """The normalised sample."""
        return self.normalizer.normalize(self.inner.sample(generator))

    def kl(self) -> Tensor:
        """Of the latents before they are normalised."""
        return self.inner.kl()
