"""Sizes as people write them: "4096x4096", "81x720x1280", "60s"."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from vaeport.configs import LatentContract
from vaeport.errors import InputError
from vaeport.runtime.plan import Half
from vaeport.vae import VAE

_EXAMPLES = {"image": "720x1280 (height x width)", "video": "81x720x1280 (frames x height x width)", "audio": "60s"}


def shape_of(size: str, contract: LatentContract, half: Half, batch: int = 1) -> tuple[int, ...]:
    """The input [B, C, *axes] of a half that encodes media of this size, or decodes latents to it.

    size    lengths of the axes with x between them; audio in samples or, with an s behind it, in seconds

    Lengths that the model does not take are raised to the next that it does. InputError for another form.
    """
    numbers = [int(n) for n in size.split("x")] if re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", size) else []
    if contract.sample_rate and (seconds := re.fullmatch(r"(\d+(?:\.\d*)?)s", size)):
        numbers = [round(float(seconds[1]) * contract.sample_rate)]
    if len(numbers) != len(contract.axes) or min(numbers) < 1:
        raise InputError("not a size of this model's media", expected=_EXAMPLES[contract.modality], found=size)
    media = (batch, contract.channels, *(a.padded(n) for a, n in zip(contract.axes, numbers, strict=True)))
    return media if half == "encoder" else contract.latent_shape(media)


def example(vae: VAE, shape: Sequence[int]) -> Tensor:
    """Standard normal numbers, the same each time; media are kept within -1..1."""
    x = torch.randn(tuple(shape), generator=torch.Generator().manual_seed(0)).to(vae.device, vae.dtype)
    return x if shape[1] == vae.contract.latent_channels else x.clamp_(-1, 1)
