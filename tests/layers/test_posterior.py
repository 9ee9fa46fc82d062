"""Posteriors: those of Diffusers, number by number, and what differs in the name of one meaning."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_oobleck import OobleckDiagonalGaussianDistribution
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor

from tests.layers.laws import difference, normal
from vaeport.layers import DiagonalGaussian, LatentNormalizer, NormalizedGaussian, SoftplusGaussian, StoredNormalizer

DTYPES = [torch.float64, torch.float32, torch.bfloat16]
SHAPES = [(2, 8, 3, 5), (2, 8, 3, 4, 5)]


def moments(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Among them log variances beyond both ends of the range."""
    values = 3 * normal(*shape)
    values[0, -1].flatten()[:2] = torch.tensor([-50.0, 40.0]).double()
    return values.to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_gaussian_is_that_of_diffusers(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    values = moments(shape, dtype)
    ours, theirs = DiagonalGaussian(values), DiagonalGaussianDistribution(values)
    for name in ("parameters", "mean", "logvar", "std", "var"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    assert torch.equal(ours.mode(), theirs.mode())
    noise = [torch.Generator().manual_seed(3) for _ in range(2)]
    assert torch.equal(ours.sample(noise[0]), theirs.sample(noise[1]))
    assert (ours.logvar.min(), ours.logvar.max()) == (-30.0, 20.0)


def test_gaussian_kl_is_that_of_diffusers() -> None:
    """On images. On videos, Diffusers leaves the last axis unsummed."""
    image, video = (moments(shape, torch.float64) for shape in SHAPES)
    assert torch.allclose(DiagonalGaussian(image).kl(), DiagonalGaussianDistribution(image).kl(), rtol=1e-12)
    assert torch.allclose(DiagonalGaussian(video).kl(), DiagonalGaussianDistribution(video).kl().sum(-1), rtol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_softplus_gaussian_is_that_of_diffusers(dtype: torch.dtype) -> None:
    values = (3 * normal(2, 8, 9)).to(dtype)
    ours, theirs = SoftplusGaussian(values), OobleckDiagonalGaussianDistribution(values)
    for name in ("parameters", "mean", "logvar", "std", "var"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    assert torch.equal(ours.mode(), theirs.mode())
    noise = [torch.Generator().manual_seed(3) for _ in range(2)]
    assert torch.equal(ours.sample(noise[0]), theirs.sample(noise[1]))


def test_softplus_gaussian_kl() -> None:
    """A divergence per sample, as for the other posterior; Stable Audio's loss is twice its mean over latents."""
    values = 3 * normal(2, 8, 9)
    theirs = OobleckDiagonalGaussianDistribution(values).kl()
    assert torch.allclose(2 * SoftplusGaussian(values).kl().mean() / 9, theirs, rtol=1e-12)


def test_kl_is_that_of_torch() -> None:
    normal_distribution = torch.distributions.Normal
    for posterior in (DiagonalGaussian(normal(2, 8, 5)), SoftplusGaussian(normal(2, 8, 5))):
        expected = torch.distributions.kl_divergence(
            normal_distribution(posterior.mean, posterior.std), normal_distribution(0.0, 1.0)
        )
        assert torch.allclose(posterior.kl(), expected.flatten(1).sum(1), rtol=1e-12)


def test_sample_without_generator_follows_the_seed() -> None:
    posterior = DiagonalGaussian(moments(SHAPES[0], torch.float32))
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(posterior.sample())
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert draws[0].dtype == torch.float32


def normalizers() -> list[LatentNormalizer | StoredNormalizer]:
    stored = StoredNormalizer(4)
    stored.load_state_dict({"mean": torch.tensor([0.1, -0.2, 3.0, 0.0]), "std": torch.tensor([0.5, 2.0, 1.25, 1.0])})
    return [LatentNormalizer((0.1, -0.2, 3.0, 0.0), (2.0, 0.5, 0.8, 1.0)), stored.double()]


@pytest.mark.parametrize("normalizer", normalizers(), ids=["constants", "stored"])
@pytest.mark.parametrize("kind", [DiagonalGaussian, SoftplusGaussian])
def test_normalized_gaussian(kind: type[DiagonalGaussian], normalizer: LatentNormalizer | StoredNormalizer) -> None:
    """As if every latent that it gives were normalised afterwards."""
    values = moments(SHAPES[1], torch.float64)
    inner = kind(values)
    found = NormalizedGaussian(inner, normalizer)
    scale = torch.tensor([2.0, 0.5, 0.8, 1.0], dtype=torch.float64).view(4, 1, 1, 1)
    assert found.parameters is values
    assert torch.equal(found.mean, normalizer.normalize(inner.mean))
    assert torch.equal(found.mode(), found.mean)
    assert difference(found.std, inner.std * scale) < 1e-6
    assert torch.allclose(found.var, found.std**2, rtol=1e-12)
    assert torch.allclose(found.logvar, 2 * found.std.log(), rtol=1e-12)
    assert torch.equal(found.kl(), inner.kl()), "to the prior that the VAE was trained with"
    noise = [torch.Generator().manual_seed(3) for _ in range(3)]
    sample = found.sample(noise[0])
    assert torch.equal(sample, normalizer.normalize(inner.sample(noise[1])))
    drawn = torch.randn(found.mean.shape, generator=noise[2], dtype=torch.float64)
    assert torch.allclose(sample, found.mean + found.std * drawn, rtol=1e-9)
