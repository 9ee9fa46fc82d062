"""What the default VAE is trained for: pixels, edges at several sizes, changes in time, latents' spread."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vaeport.layers import DiagonalGaussian


@dataclass(frozen=True)
class Weights:
    """How much each part counts; every part is a mean over its numbers."""

    squares: float = 2.0
    edges: float = 0.5
    changes: float = 0.5
    kl: float = 1e-4


def charbonnier(difference: Tensor) -> Tensor:
    """mean(sqrt(d^2 + eps^2)), eps half a level of 8 bits: absolute errors that round off at nothing."""
    return (difference.square() + (0.5 / 127.5) ** 2).sqrt().mean()


def edges(difference: Tensor, sizes: int = 3) -> Tensor:
    """Errors of the steps between neighbours, of the whole picture, its half and its quarter: [B, 3, T, H, W]."""
    flat, parts = difference.transpose(1, 2).flatten(0, 1), []
    for _ in range(sizes):
        parts += [flat.diff(dim=-1).abs().mean(), flat.diff(dim=-2).abs().mean()]
        flat = F.avg_pool2d(flat, 2)
    return torch.stack(parts).mean()


def loss(
    seen: Tensor, wanted: Tensor, posterior: DiagonalGaussian, weights: Weights
) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum, and its parts with the mean squared error of the batch (for pixels in -1..1)."""
    difference = seen - wanted
    squares = difference.square().mean()
    parts = {
        "pixels": charbonnier(difference),
        "squares": squares,
        "edges": edges(difference),
        "kl": posterior.kl().sum() / posterior.mean.numel(),
    }
    total = parts["pixels"] + weights.squares * squares + weights.edges * parts["edges"] + weights.kl * parts["kl"]
    if wanted.shape[2] > 1:
        parts["changes"] = difference.diff(dim=2).abs().mean()
        total = total + weights.changes * parts["changes"]
    return total, {name: part.detach() for name, part in parts.items()}
