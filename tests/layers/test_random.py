"""Standard normal noise: type, device, and whose numbers it is made of."""

from __future__ import annotations

import pytest
import torch
from diffusers.utils.torch_utils import randn_tensor

from vaeport.layers import standard_normal


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_is_that_of_diffusers(dtype: torch.dtype) -> None:
    like = torch.empty(3, dtype=dtype)
    one, two = (torch.Generator().manual_seed(7) for _ in range(2))
    for shape in ((2, 3), (5,)):
        found = standard_normal(shape, like, one)
        assert found.dtype == dtype
        assert torch.equal(found, randn_tensor(shape, two, torch.device("cpu"), dtype))


def test_without_generator_it_follows_the_seed() -> None:
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(standard_normal((4, 4), torch.empty(1)))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_is_drawn_where_the_generator_is() -> None:
    like, generator = torch.empty(1, device="meta"), torch.Generator().manual_seed(1)
    before = generator.get_state()
    assert standard_normal((2, 3), like, generator).device == torch.device("meta")
    assert not torch.equal(generator.get_state(), before)


def test_is_standard_normal() -> None:
    noise = standard_normal((100, 100), torch.empty(1, dtype=torch.float64), torch.Generator().manual_seed(3))
    assert abs(float(noise.mean())) < 0.03
    assert abs(float(noise.std()) - 1) < 0.03
