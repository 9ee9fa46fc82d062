"""Sizes as people write them."""

from __future__ import annotations

import pytest
import torch

from tests.narrow import native
from vaeport.errors import InputError
from vaeport.runtime.plan import Half
from vaeport.runtime.sizes import example, shape_of


@pytest.mark.parametrize(
    ("name", "size", "half", "shape"),
    [
        ("kl", "40x24", "decoder", (1, 4, 5, 3)),
        ("kl", "41x24", "encoder", (1, 3, 48, 24)),
        ("wan", "9x32x48", "decoder", (1, 4, 3, 4, 6)),
        ("wan", "8x32x47", "encoder", (1, 3, 9, 32, 48)),
        ("oobleck8", "80", "decoder", (1, 8, 10)),
    ],
)
def test_shapes(name: str, size: str, half: Half, shape: tuple[int, ...]) -> None:
    vae = native(name)
    assert shape_of(size, vae.contract, half) == shape
    assert shape_of(size, vae.contract, half, batch=3) == (3, *shape[1:])
    x = example(vae, shape)
    assert (tuple(x.shape), x.dtype) == (shape, vae.dtype)
    assert torch.equal(x, example(vae, shape))


def test_seconds() -> None:
    contract = native("oobleck8").contract
    assert contract.sample_rate is not None
    samples = shape_of("0.5s", contract, "encoder")[2]
    assert 0 <= samples - contract.sample_rate // 2 < contract.axes[0].multiple


@pytest.mark.parametrize(
    ("name", "size"), [("kl", "40"), ("kl", "9x40x24"), ("wan", "40x24"), ("kl", "0x8"), ("kl", "ax8"), ("kl", "8s")]
)
def test_other_sizes_are_refused(name: str, size: str) -> None:
    with pytest.raises(InputError, match="not a size of this model's media") as refused:
        shape_of(size, native(name).contract, "decoder")
    assert refused.value.found == size
