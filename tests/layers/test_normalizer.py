"""The latent normaliser: one number or one per channel, there and back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.layers.laws import difference, normal
from vaeport.layers import LatentNormalizer, StoredNormalizer


@pytest.mark.parametrize("axes", [(7,), (3, 2), (3, 2, 2)])
@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.0609, 1.5305), ((0.1, -0.2, 3.0), (0.5, 2.0, 1.3))])
def test_there_and_back(axes: tuple[int, ...], shift: object, scale: object) -> None:
    z, normalizer = normal(2, 3, *axes), LatentNormalizer(shift, scale)
    assert difference(normalizer.denormalize(normalizer.normalize(z)), z) < 1e-15
    for c in range(3):
        a, b = (v[c] if isinstance(v, tuple) else v for v in (shift, scale))
        assert difference(normalizer.normalize(z)[:, c], (z[:, c] - a) * b) < 1e-15
        assert difference(normalizer.denormalize(z)[:, c], z[:, c] / b + a) < 1e-15


def test_at_rest_it_changes_no_bit() -> None:
    z, normalizer = normal(1, 3, 9), LatentNormalizer()
    assert torch.equal(normalizer.normalize(z), z)
    assert torch.equal(normalizer.denormalize(z), z)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_keeps_the_type(dtype: torch.dtype) -> None:
    z: Tensor = normal(1, 3, 4).to(dtype)
    normalizer = LatentNormalizer((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))
    assert normalizer.normalize(z).dtype == normalizer.denormalize(z).dtype == dtype


def stored() -> StoredNormalizer:
    normalizer = StoredNormalizer(3)
    normalizer.load_state_dict({"mean": torch.tensor([0.1, -0.2, 3.0]), "std": torch.tensor([0.5, 2.0, 1.25])})
    return normalizer.double()


@pytest.mark.parametrize("axes", [(7,), (3, 2), (3, 2, 2)])
def test_stored_statistics(axes: tuple[int, ...]) -> None:
    z, normalizer = normal(2, 3, *axes), stored()
    for c in range(3):
        mean, std = normalizer.mean[c], normalizer.std[c]
        assert difference(normalizer.normalize(z)[:, c], (z[:, c] - mean) / std) < 1e-15
        assert difference(normalizer.denormalize(z)[:, c], z[:, c] * std + mean) < 1e-15
    assert difference(normalizer.denormalize(normalizer.normalize(z)), z) < 1e-15


def test_stored_statistics_are_at_rest_until_loaded_and_are_saved() -> None:
    z, normalizer = normal(1, 3, 9), StoredNormalizer(3)
    assert torch.equal(normalizer.normalize(z), z)
    assert torch.equal(normalizer.denormalize(z), z)
    assert {key: tuple(t.shape) for key, t in normalizer.state_dict().items()} == {"mean": (3,), "std": (3,)}
    assert not list(normalizer.parameters()), "no optimiser moves them"


@pytest.mark.parametrize("normalizer", [LatentNormalizer((0.1, 0.2, 3.0), (0.5, 2.0, 1.3)), stored()])
def test_a_deviation_is_scaled_and_not_shifted(normalizer: LatentNormalizer | StoredNormalizer) -> None:
    a, b = normal(2, 3, 4, seed=1), normal(2, 3, 4, seed=2)
    assert difference(normalizer.scaled(a - b), normalizer.normalize(a) - normalizer.normalize(b)) < 1e-14


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_stored_statistics_keep_the_type(dtype: torch.dtype) -> None:
    z: Tensor = normal(1, 3, 4).to(dtype)
    assert stored().normalize(z).dtype == stored().denormalize(z).dtype == stored().scaled(z).dtype == dtype
