"""Geometry of the chart of units: errors on a logarithmic scale in the order of the run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vaeport.report.checks import number, shown
from vaeport.report.schema import Figure, Unit

HEIGHT, TOP, BOTTOM, LEFT, RIGHT = 300, 16, 44, 58, 14
LEAST, WIDE = 1e-17, 940
LIMIT = 1e-10
LEAST_STEP = 3.5


@dataclass(frozen=True)
class Mark:
    """One unit: x of its column, y of its own and of its inherited error, what is told of it."""

    x: float
    own: float | None
    inherited: float | None
    title: str
    wrong: bool


@dataclass(frozen=True)
class Band:
    """A stretch of units of one half."""

    name: str
    x: float
    width: float


@dataclass(frozen=True)
class Chart:
    """All that the SVG draws, in its own units."""

    width: float
    height: float
    left: float
    right: float
    floor: float
    marks: Sequence[Mark]
    path: str
    ticks: Sequence[tuple[float, str]]
    limit: float
    bands: Sequence[Band]


def chart(units: Sequence[Unit], wrong_above: float) -> Chart:
    """Of units that were measured; errors above `wrong_above` are made in the unit itself."""
    values = [number(v) for unit in units for v in (unit.own, unit.inherited, unit.after) if v is not None]
    highest = max([v for v in values if math.isfinite(v)] + [LIMIT * 10])
    low, high = math.log10(LEAST), math.ceil(math.log10(highest) + 0.3)
    step = max(LEAST_STEP, (WIDE - LEFT - RIGHT) / max(1, len(units)))
    width = LEFT + RIGHT + step * len(units)

    def y(value: Figure | None) -> float | None:
        if value is None:
            return None
        exponent = high if not math.isfinite(number(value)) else math.log10(max(number(value), LEAST))
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (high - exponent) / (high - low), 2)

    marks = [
        Mark(
            x=round(LEFT + step * (i + 0.5), 2),
            own=y(unit.own),
            inherited=y(unit.inherited),
            title=_told(unit),
            wrong=number(unit.own) > wrong_above if unit.own is not None else False,
        )
        for i, unit in enumerate(units)
    ]
    drawn = [(mark.x, mark.inherited) for mark in marks if mark.inherited is not None]
    every = 2 if high - low <= 20 else 4
    ticks = [(y(10.0**e) or 0.0, f"1e{e}") for e in range(-16, high + 1) if e % every == 0]
    return Chart(
        width=round(width, 2),
        height=HEIGHT,
        left=LEFT,
        right=round(width - RIGHT, 2),
        floor=HEIGHT - BOTTOM,
        marks=marks,
        path=" ".join(f"{'M' if i == 0 else 'L'}{x} {at}" for i, (x, at) in enumerate(drawn)),
        ticks=ticks,
        limit=y(LIMIT) or 0.0,
        bands=_bands(units, step),
    )


def _told(unit: Unit) -> str:
    return f"{unit.unit}: own {shown(unit.own)}, inherited {shown(unit.inherited)}"


def _bands(units: Sequence[Unit], step: float) -> list[Band]:
    found: list[tuple[str, int, int]] = []
    for i, unit in enumerate(units):
        name = unit.unit.split(".")[0]
        if found and found[-1][0] == name:
            found[-1] = (name, found[-1][1], i + 1)
        else:
            found.append((name, i, i + 1))
    return [Band(name, round(LEFT + step * a, 2), round(step * (b - a), 2)) for name, a, b in found]
