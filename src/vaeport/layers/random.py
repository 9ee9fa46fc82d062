"""Standard normal noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def standard_normal(shape: Sequence[int], like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Noise in the type and on the device of `like`, drawn on the generator's device and moved."""
    device = like.device if generator is None else generator.device
    return torch.randn(tuple(shape), generator=generator, device=device, dtype=like.dtype).to(like.device)


def default_generator(device: torch.device) -> torch.Generator:
    """The one that noise comes from if none is given."""
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        return torch.cuda.default_generators[index]
    return torch.default_generator
