"""Tensors of more elements than a kernel counts: the same values, from calls that each count no further."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.layers.laws import filled, normal
from vaeport.layers import ChannelLayerNorm, Layer, NearestUpsample, Pad, large

X = (2, 3, 4, 5, 6)
NONE = (0, 0)
LAYERS: dict[str, tuple[Callable[[], Layer], str, tuple[int, ...]]] = {
    "layer norm": (lambda: filled(ChannelLayerNorm(3)), "layer_norm", X),
    "layer norm of sound": (lambda: filled(ChannelLayerNorm(3)), "layer_norm", (2, 3, 240)),
    "layer norm of a frame": (lambda: filled(ChannelLayerNorm(3)), "layer_norm", (2, 3, 1, 20, 6)),
    "nearest, 3 axes": (lambda: NearestUpsample((2, 2, 2)), "interpolate", X),
    "nearest, 2 axes": (lambda: NearestUpsample(2), "interpolate", (2, 3, 20, 12)),
    "mirrored in time": (lambda: Pad("reflect", ((2, 1), NONE, NONE)), "pad", X),
    "mirrored in width": (lambda: Pad("reflect", (NONE, NONE, (0, 3))), "pad", X),
    "mirrored in space": (lambda: Pad("reflect", (NONE, (1, 2), (2, 1))), "pad", X),
    "mirrored": (lambda: Pad("reflect", ((1, 1), (1, 1), (1, 1))), "pad", X),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("share", [1.0, 0.5, 0.3])
def test_what_no_kernel_counts(monkeypatch: pytest.MonkeyPatch, name: str, share: float) -> None:
    make, function, shape = LAYERS[name]
    layer, x, called = make().double(), normal(*shape), []
    expected, kernel = layer(x), getattr(F, function)

    def counted(*args: Any, **options: Any) -> Tensor:
        y: Tensor = kernel(*args, **options)
        called.append(args[0].numel() if function == "pad" else y.numel())
        return y

    monkeypatch.setattr(F, function, counted)
    most = share * (x.numel() if function == "pad" else expected.numel())
    monkeypatch.setattr(large, "INDEXABLE", int(most))
    assert torch.equal(layer(x), expected)
    assert max(called, default=0) <= most
    assert len(called) == 1 if share == 1 else len(called) != 1


def test_a_part_reaches_as_far_as_its_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    part = normal(2, 3, 4, 9, 6)[:, :, :, :4]
    assert large.reach(part) == 2 * 3 * 4 * 9 * 6 - 5 * 6 > part.numel()
    expected = Pad("reflect", (NONE, (1, 1), NONE))(part)
    monkeypatch.setattr(large, "INDEXABLE", part.numel() + 1)
    monkeypatch.setattr(F, "pad", None)
    assert torch.equal(Pad("reflect", (NONE, (1, 1), NONE))(part), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.full
@pytest.mark.parametrize("name", ["layer norm", "nearest, 3 axes", "mirrored in space"])
def test_on_a_gpu(name: str) -> None:
    """Over 2^32 elements in bfloat16, 9 GiB: rows at the end are those of a smaller tensor."""
    layer = LAYERS[name][0]().to("cuda", torch.bfloat16)
    rows = 700 if name.startswith("nearest") else 5600
    x = torch.empty(1, 3, 256, rows, 1024, device="cuda", dtype=torch.bfloat16).normal_()
    assert torch.equal(layer(x)[..., -8:, :], layer(x[..., -16:, :].contiguous())[..., -8:, :])
