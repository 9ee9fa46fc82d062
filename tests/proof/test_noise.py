"""Normal noise of a known value, however it is asked for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from vaeport.proof.noise import Noise, drawn_noise, without_noise

MEAN, STD = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[0.5, 1.0], [1.5, 2.0]])

STANDARD: dict[str, Callable[[], Tensor]] = {
    "randn": lambda: torch.randn(2, 2),
    "randn with a generator": lambda: torch.randn((2, 2), generator=torch.Generator().manual_seed(1)),
    "randn_like": lambda: torch.randn_like(MEAN),
    "normal_": lambda: torch.empty(2, 2).normal_(),
    "normal of a size": lambda: torch.normal(0.0, 1.0, (2, 2)),
}
OWN: dict[str, Callable[[], Tensor]] = {
    "in parts": lambda: MEAN + STD * torch.randn(2, 2),
    "normal of tensors": lambda: torch.normal(MEAN, STD),
    "a distribution": lambda: Normal(MEAN, STD).sample(),
    "a reparametrised one": lambda: Normal(MEAN, STD).rsample(),
}


@pytest.mark.parametrize("value", [0.0, 1.0, -2.5])
@pytest.mark.parametrize("name", STANDARD)
def test_standard_noise_is_the_value(name: str, value: float) -> None:
    with Noise(value) as noise:
        found = STANDARD[name]()
    assert torch.equal(found, torch.full((2, 2), value))
    assert noise.drawn == 1


@pytest.mark.parametrize("name", OWN)
def test_samples_of_a_distribution_keep_its_mean_and_deviation(name: str) -> None:
    with Noise(0.0):
        assert torch.equal(OWN[name](), MEAN)
    with Noise(1.0):
        assert torch.equal(OWN[name](), MEAN + STD)


def test_mean_and_deviation_as_numbers() -> None:
    with Noise(2.0):
        assert torch.equal(torch.empty(3).normal_(5.0, 0.5), torch.full((3,), 6.0))
        assert torch.equal(torch.normal(5.0, 0.5, (3,)), torch.full((3,), 6.0))
        assert torch.equal(torch.normal(MEAN, 0.5), MEAN + 1)
        assert torch.equal(torch.normal(3.0, STD), 3 + 2 * STD)


def test_a_tensor_as_value() -> None:
    with Noise(MEAN) as noise:
        assert torch.equal(torch.randn(2, 2), MEAN)
        assert torch.equal(torch.normal(MEAN, STD), MEAN + STD * MEAN)
    assert noise.drawn == 2


def test_a_function_as_value() -> None:
    """It is told how many were drawn before, and the shape."""
    asked: list[tuple[int, tuple[int, ...]]] = []

    def value(n: int, shape: tuple[int, ...]) -> Tensor:
        asked.append((n, shape))
        return torch.full(shape, float(n))

    with Noise(value) as noise:
        found = [torch.randn(2, 3), torch.randn_like(MEAN), torch.normal(MEAN, STD), torch.empty(4).normal_(1.0, 2.0)]
    assert asked == [(0, (2, 3)), (1, (2, 2)), (2, (2, 2)), (3, (4,))]
    expected = [torch.zeros(2, 3), torch.ones(2, 2), MEAN + 2 * STD, torch.full((4,), 7.0)]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert noise.drawn == 4


def draws(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    with drawn_noise():
        return [torch.randn(shape, dtype=dtype) for shape in shapes]


def test_drawn_noise_depends_on_order_and_shape_alone() -> None:
    first = draws((3, 4), (3, 4), (5,))
    torch.manual_seed(7)
    assert all(torch.equal(a, b) for a, b in zip(first, draws((3, 4), (3, 4), (5,)), strict=True))
    assert not torch.equal(first[0], first[1])
    assert torch.equal(first[2], draws((1,), (1,), (5,))[2])
    assert not torch.equal(first[2], draws((5,))[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_drawn_noise_is_the_same_in_every_type(dtype: torch.dtype) -> None:
    """So that a run in a short type and its truth differ by the run's own rounding alone."""
    (whole,), (short,) = draws((50, 40)), draws((50, 40), dtype=dtype)
    assert short.dtype == dtype
    assert torch.equal(short.double(), whole)


def test_drawn_noise_is_standard_normal() -> None:
    (noise,) = draws((100, 100))
    assert abs(float(noise.mean())) < 0.03
    assert abs(float(noise.std()) - 1) < 0.03


def test_other_randomness_stays() -> None:
    with Noise(0.0) as noise:
        assert torch.rand(100).std() > 0.1
        assert torch.randint(0, 100, (100,)).double().std() > 1
    assert noise.drawn == 0
    assert torch.randn(100).std() > 0.1


def test_without_computing() -> None:
    with Noise(1.0) as noise:
        assert torch.randn(2, 3, device="meta").shape == (2, 3)
        assert torch.randn_like(torch.empty(4, device="meta", dtype=torch.float64)).dtype == torch.float64
    assert noise.drawn == 2


def test_without_noise() -> None:
    assert without_noise(lambda: 3) == (3, False)
    found, sampled = without_noise(lambda: torch.randn(2, requires_grad=True) + 1)
    assert sampled
    assert torch.equal(found, torch.ones(2))
    assert not found.requires_grad
