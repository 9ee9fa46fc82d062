"""What is kept of a weight is made again whenever the weight is another."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from vaeport.kernels.kept import Kept, served


def _filled(layer: nn.Module, value: float) -> None:
    layer.load_state_dict({"weight": torch.full((2, 2), value)})


def _assigned(layer: nn.Module, value: float) -> None:
    layer.load_state_dict({"weight": torch.full((2, 2), value)}, assign=True)


def _replaced(layer: nn.Module, value: float) -> None:
    layer.weight.data = torch.full((2, 2), value)


def _in_place(layer: nn.Module, value: float) -> None:
    with torch.no_grad():
        layer.weight.fill_(value)


def _in_inference(layer: nn.Module, value: float) -> None:
    with torch.inference_mode():
        layer.weight.fill_(value)


@pytest.mark.parametrize("change", [_filled, _assigned, _replaced, _in_place, _in_inference])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_changes_are_seen(change: Callable[[nn.Module, float], None], mode: Callable[[], torch.no_grad]) -> None:
    made: list[Tensor] = []
    layer, kept = nn.Linear(2, 2, bias=False), Kept(lambda weight: made.append(weight) or (2 * weight,))  # type: ignore[func-returns-value]
    for value in (1.0, 3.0, 4.0):
        change(layer, value)
        with mode():
            assert [float(kept.of(layer.weight)[0].mean()) for _ in range(2)] == [2 * value] * 2
    assert len(made) == 3


def test_there_and_back_is_another_weight() -> None:
    """Rounded on the way, though memory and version may be as before."""
    layer, kept = nn.Linear(64, 64), Kept(lambda weight: (weight.clone(),))
    for _ in range(5):
        kept.of(layer.weight)
        layer.to(torch.float64).to(torch.bfloat16).to(torch.float32)
        assert torch.equal(kept.of(layer.weight)[0], layer.weight)
        _in_place(layer, 1 / 3)
    assert kept.of(layer.double().weight)[0].dtype is torch.float64


def test_weights_of_inference_mode_are_not_kept() -> None:
    with torch.inference_mode():
        layer, kept = nn.Linear(2, 2, bias=False), Kept(lambda weight: (weight.clone(),))
        for value in (1.0, 3.0):
            layer.weight.fill_(value)
            assert float(kept.of(layer.weight)[0].mean()) == value


def test_what_is_kept_asks_for_no_gradients() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    assert not Kept(lambda w: (2 * w,)).of(weight)[0].requires_grad


def test_served() -> None:
    x, weight = torch.ones(2), nn.Parameter(torch.ones(2))
    assert not served(x, weight)
    assert not served(weight.detach().requires_grad_(), None)
    assert served(x, weight.detach(), None)
    with torch.no_grad():
        assert served(x, weight)
        assert served(x.double(), weight)
        assert not served(x.bfloat16(), weight)
        assert not served(x.half(), weight)
