"""How far published tilings are from the exact result, on one input."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vaeport.errors import InputError
from vaeport.registry import ModelRegistry
from vaeport.runtime.plan import Half, Plan
from vaeport.runtime.tiling import tiled, tiling_names
from vaeport.vae import VAE


@dataclass(frozen=True)
class Difference:
    """A tiling against the exact result.

    largest     the largest difference, over the range of the exact result
    psnr        in dB, the range being the peak; None: they are equal
    refused     why this input cannot be tiled so; then there is no figure
    """

    tiling: str
    largest: float | None = None
    psnr: float | None = None
    refused: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and strings."""
        return vars(self)

    @property
    def line(self) -> str:
        """For people."""
        if self.refused is not None:
            return f"  {self.tiling}: {self.refused}"
        if self.psnr is None:
            return f"  {self.tiling}: the same, since nothing is cut at this size"
        return (
            f"  {self.tiling}: approximate, PSNR {self.psnr:.1f} dB, largest difference {self.largest:.1e} of the range"
        )


@torch.no_grad()
def compare(vae: VAE, x: Tensor, half: Half, plan: Plan) -> Iterator[Difference]:
    """Each published tiling of the model on x, media of an encoder or latents of a decoder, against the plan's result.

    Of an encoder the moments are compared. Yields nothing for a model without published tilings.
    """
    exact = plan.run(vae.decoder_at() if half == "decoder" else vae._running("encoder"), x)
    for name in tiling_names(ModelRegistry.find_class(type(vae)).name, vae.arch):
        ours = tiled(vae, name)
        try:
            y = ours._run(half, ours.decoder_at() if half == "decoder" else ours._running("encoder"), x, None)
        except InputError as error:
            yield Difference(name, refused=error.what)
            continue
        yield difference(name, y, exact)


def difference(name: str, y: Tensor, exact: Tensor) -> Difference:
    """Between two tensors of one shape."""
    error = (y - exact).double()
    peak, square = float(exact.max() - exact.min()), float(error.square().mean())
    if square == 0:
        return Difference(name)
    return Difference(name, float(error.abs().max()) / peak, 10 * math.log10(peak**2 / square))
