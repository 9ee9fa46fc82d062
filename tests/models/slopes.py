"""What an output depends on, read off gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.layers.laws import normal
from vaeport.layers import TIME, Layer


def weighted(y: Tensor) -> Tensor:
    """A sum in which nothing cancels by symmetry."""
    return (y * normal(*y.shape, seed=9)).sum()


def frames_seen(layer: Layer, x: Tensor) -> list[tuple[int, int]]:
    """For every frame that comes out, the first and the last that it depends on."""
    x = x.clone().requires_grad_()
    y = layer(x)
    found = []
    for frame in range(y.shape[TIME]):
        (slope,) = torch.autograd.grad(weighted(y[:, :, frame]), x, retain_graph=True)
        seen = slope.abs().amax((0, 1, 3, 4)).nonzero().flatten()
        found.append((int(seen[0]), int(seen[-1])))
    return found


def assert_needs_tight(layer: Layer, seen: list[tuple[int, int]], n: int) -> None:
    """`needs` states of every frame what it depends on, clipped to n frames."""
    for frame, (first, last) in enumerate(seen):
        needed = layer.needs((frame, frame + 1), TIME)
        assert needed is not None
        assert (max(needed[0], 0), min(needed[1], n)) == (first, last + 1), frame
