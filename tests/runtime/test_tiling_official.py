"""The tiler against captures of the official tilings, over the same halves."""

from __future__ import annotations

import pytest
import torch

from tests.layers.laws import difference
from tests.runtime.tiling_official import AGREEMENT, CASES, STORED, Case, captured
from vaeport.runtime.tiling import run_tiled

KEYS = [(model, key) for model, cases in CASES.items() for key in cases]


@pytest.mark.parametrize(("model", "key"), KEYS)
def test_is_official(model: str, key: str) -> None:
    case, expected = CASES[model][key], captured(model)[key]
    x = case.x
    found = run_tiled(case.half, x, case.policy, case.rules, case.way)
    assert expected.dtype == torch.float64
    assert difference(found[:, :STORED], expected) <= AGREEMENT * float(expected.square().mean().sqrt())
    assert torch.equal(found, case.half(x)) == key.endswith("_within"), "tiled where it should not be, or not at all"


@pytest.mark.parametrize("model", CASES)
def test_captures_are_of_these_cases(model: str) -> None:
    outputs = captured(model)
    assert outputs.keys() == CASES[model].keys()
    assert len({tuple(y.flatten()[:8].tolist()) for y in outputs.values()}) == len(outputs)


def test_weights_that_do_not_sum_to_one_are_divided_by() -> None:
    """The deep overlap is the case for it: more than half a tile."""
    case: Case = CASES["ltx2"]["decode_deep"]
    (time, _), *_ = case.tiles
    assert 2 * (time - case.tiles[0][1]) > time
