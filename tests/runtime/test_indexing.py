"""Tensors of more elements than a 32-bit index counts."""

from __future__ import annotations

import pytest
import torch

from vaeport.layers import Conv
from vaeport.runtime import indexing
from vaeport.runtime.indexing import NO_BUDGET, Largest, indexable
from vaeport.runtime.plan import Cost


def test_the_largest_tensor_is_one_that_is_computed() -> None:
    conv = Conv(2, 4, (1, 1, 1)).to("meta")
    x = torch.empty(1, 2, 10, 10, 10, device="meta")
    with torch.no_grad(), Largest() as largest:
        place = x.new_empty(1, 2, 99, 99, 99)
        place[:, :, :10, :10, :10].copy_(x)
        place.view(-1)
        assert largest.elements == 0
        y = conv(x)
    assert largest.elements == y.numel() == 4000


@pytest.mark.parametrize(("device", "elements", "peak"), [("cpu", 101, 7), ("cuda", 100, 7), ("cuda", 101, NO_BUDGET)])
def test_no_budget_is_enough_for_what_cannot_be_indexed(
    monkeypatch: pytest.MonkeyPatch, device: str, elements: int, peak: int
) -> None:
    assert indexing.INDEXABLE == 2147483647
    monkeypatch.setattr(indexing, "INDEXABLE", 100)

    def foretell() -> Cost:
        torch.ones(elements, device="meta")
        return Cost(7, 1.5, 3)

    assert indexable(foretell, torch.device(device)) == Cost(peak, 1.5, 3)
