"""Error grids as pictures, and errors along an axis as bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vaeport.report.checks import shown
from vaeport.report.pictures import coloured, png
from vaeport.report.schema import Cell

SPAN = 1e-4
"""Of the largest error: where the scale of a picture begins."""


@dataclass(frozen=True)
class Grid:
    """A picture of an error grid, its scale, and its worst cell."""

    picture: str
    low: str
    high: str
    worst: str


def grid(heat: Sequence[Sequence[Cell]], axes: Sequence[str]) -> Grid:
    """On a logarithmic scale from its least to its largest error, over at most four decades."""
    values = [[math.inf if cell is None else cell for cell in row] for row in heat]
    flat = [v for row in values for v in row if math.isfinite(v)]
    high = max(flat, default=0.0)
    low = max(min(flat, default=0.0), high * SPAN)
    span = math.log10(high / low) if 0 < low < high else 0.0

    def place(value: float) -> float:
        if not math.isfinite(value):
            return 1.0
        if span == 0:
            return 0.5 if value > 0 else 0.0
        return math.log10(max(value, low) / low) / span

    picture = png(coloured(torch.tensor([[place(v) for v in row] for row in values], dtype=torch.float64)))
    at = max(((v, i, j) for i, row in enumerate(values) for j, v in enumerate(row)), key=lambda one: one[0])
    where = f"{axes[0]} cell {at[1]} of {len(values)}, {axes[1]} cell {at[2]} of {len(values[0])}"
    return Grid(picture, shown(low), "not finite" if len(flat) < sum(map(len, values)) else shown(high), where)


@dataclass(frozen=True)
class Bar:
    """One value along an axis; geometry in hundredths of the drawing."""

    x: float
    width: float
    y: float
    height: float
    title: str


@dataclass(frozen=True)
class Bars:
    """Bars, and the least and the largest of their values."""

    bars: list[Bar]
    low: str
    high: str


def bars(along: Sequence[Cell]) -> Bars:
    """On a logarithmic scale over the decades below the largest, eight at most."""
    finite = [v for v in along if v is not None and v > 0]
    high = math.log10(max(finite)) if finite else 0.0
    low = max(min((math.log10(v) for v in finite), default=0.0), high - 8) - 0.5
    width = 100 / max(1, len(along))
    made = []
    for i, value in enumerate(along):
        if value is None:
            share = 1.0
        elif value <= 0:
            share = 0.0
        else:
            share = min(1.0, max(0.02, (math.log10(value) - low) / (high - low)))
        title = f"{i}: {'not finite' if value is None else shown(value)}"
        height = round(100 * share, 2)
        made.append(Bar(round(i * width, 3), round(width * 0.86, 3), round(100 - height, 2), height, title))
    known = [v for v in along if v is not None]
    least, most = min(known, default=0.0), max(known, default=0.0)
    return Bars(made, shown(least), shown(most) if len(known) == len(along) else "not finite")
