"""`compared`: where one output of both sides differs, as numbers on a small grid and as pictures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from vaeport.configs import LatentContract
from vaeport.proof.gates import rms
from vaeport.report.pictures import difference_pictured, pictured, spectra
from vaeport.report.schema import Cell, Comparison, Figure, Frame

CELLS, STEPS = 32, 64
FRAMES = 3


def figure(value: float) -> Figure:
    """A number with three digits, as JSON has it."""
    if math.isfinite(value):
        return float(f"{value:.2e}")
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def compared(
    case: str, output: str, native: Tensor | None, reference: Tensor, contract: LatentContract, *, pictures: bool
) -> Comparison:
    """One output [B, C, *axes] of one case.

    native      None where the native side gave none
    pictures    whether its values are media that can be shown
    """
    empty = Comparison(
        case=case,
        output=output,
        shape=None if native is None else tuple(native.shape),
        reference_shape=tuple(reference.shape),
        error=None,
        peak=None,
        frames=tuple(_frames(native, reference, contract)) if pictures else (),
    )
    if native is None or native.shape != reference.shape:
        return empty
    apart = native.double() - reference.double()
    scale = rms(reference)
    relative = apart / scale if scale > 0 else apart
    *around, last = [axis.name for axis in contract.axes]
    squares = relative.square()
    found: dict[str, Any] = {"error": figure(rms(relative)), "peak": figure(float(apart.abs().max()))}
    if squares.dim() == 3:
        found |= {"along_axis": last, "along": _pooled(squares.mean((0, 1)))}
        return empty.model_copy(update=found)
    plane = squares.mean((0, 1, 2) if squares.dim() == 5 else (0, 1))
    coarser = min(1.0, CELLS / max(plane.shape))
    rows, columns = (max(1, round(n * coarser)) for n in plane.shape)
    grid = F.adaptive_avg_pool2d(plane[None], (rows, columns))[0].sqrt()
    found |= {"axes": (around[-1], last), "heat": tuple(tuple(map(_cell, row)) for row in grid.tolist())}
    if squares.dim() == 5:
        found |= {"along_axis": around[0], "along": _pooled(squares.mean((0, 1, 3, 4)))}
    return empty.model_copy(update=found)


def _pooled(squares: Tensor) -> tuple[Cell, ...]:
    kept = F.adaptive_avg_pool1d(squares[None, None], min(STEPS, squares.numel()))[0, 0]
    return tuple(map(_cell, kept.sqrt().tolist()))


def _cell(value: float) -> Cell:
    return float(f"{value:.2e}") if math.isfinite(value) else None


def _frames(native: Tensor | None, reference: Tensor, contract: LatentContract) -> Iterator[Frame]:
    """Of the sample that differs most: the image, the spectrogram, or the first, worst and last frame."""
    alike = native is not None and native.shape == reference.shape
    sample = _worst(native, reference, 0) if alike else 0
    theirs = reference[sample]
    ours = None if native is None or sample >= len(native) else native[sample]
    if contract.modality == "audio":
        one, other, between = spectra(ours, theirs)
        yield Frame(label=f"sample {sample}", native=one, reference=other, difference=between)
        return
    if contract.modality == "image":
        yield _frame(f"sample {sample}", ours, theirs, contract)
        return
    length = theirs.shape[1]
    worst = _worst(ours, theirs, 1) if alike else 0
    for t in sorted({0, worst, length - 1})[:FRAMES]:
        mine = ours[:, t] if ours is not None and t < ours.shape[1] else None
        yield _frame(f"sample {sample}, frame {t}", mine, theirs[:, t], contract)


def _frame(label: str, ours: Tensor | None, theirs: Tensor, contract: LatentContract) -> Frame:
    alike = ours is not None and ours.shape == theirs.shape
    return Frame(
        label=label,
        native=None if ours is None else pictured(ours, contract.value_range),
        reference=pictured(theirs, contract.value_range),
        difference=difference_pictured(ours, theirs) if ours is not None and alike else None,
    )


def _worst(native: Tensor | None, reference: Tensor, axis: int) -> int:
    assert native is not None
    others = [a for a in range(reference.dim()) if a != axis]
    return int((native.double() - reference.double()).square().nan_to_num(float("inf")).mean(others).argmax())


_AGAIN = {"unclamped": ("decoded",), "moments": ("mean", "normalized"), "mean": ("normalized",)}
"""Outputs that show nothing more where one of those is shown and fails."""


def chosen(outputs: Sequence[str], failing: set[str]) -> list[str]:
    """What is worth a look: the media, one latent, and whatever else fails and is not the same again."""
    latent = next((name for name in ("normalized", "mean") if name in outputs), None)
    again = {name for name in failing if failing & set(_AGAIN.get(name, ()))}
    return [name for name in outputs if name in ("decoded", latent) or name in failing - again]
