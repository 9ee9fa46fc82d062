"""Smaller configurations of one architecture: narrower, with fewer latent channels, blocks and levels; and small cases.

Nothing is known of the architecture but the names and types of its fields, so some of what comes out may not build.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from functools import partial
from math import gcd, prod
from typing import Any

from vaeport.configs import LatentContract, VAEArchConfig
from vaeport.errors import ConfigError
from vaeport.proof.cases import Case

_WIDTH = re.compile(r"(?!(in|out)_channels$)(?!.*mult).*(channels|dim|hidden|width)")
_BLOCKS = re.compile(r".*(layers|blocks)")
_GROUPS = re.compile(r".*groups")
LEAST_WIDTH = 4
FEW_LATENTS = (2, 4)
Move = Callable[[VAEArchConfig, int], Iterator[VAEArchConfig]]
"""architecture, its latent channels -> smaller ones, the smallest first"""


def smaller(arch: VAEArchConfig, latents: int) -> Iterator[VAEArchConfig]:
    """Each once; first all moves together, then one at a time. `latents`: channels of a latent."""
    seen = [arch]
    for found in (*_together(arch, latents), *(one for move in MOVES for one in move(arch, latents))):
        if found not in seen:
            seen.append(found)
            yield found


def _together(arch: VAEArchConfig, latents: int) -> Iterator[VAEArchConfig]:
    for few in (*fewer_latents(arch, latents), arch):
        for flat in (*fewer_blocks(few, latents), few):
            yield from narrower(flat, latents)


def narrower(arch: VAEArchConfig, latents: int) -> Iterator[VAEArchConfig]:
    """All widths over a power of 2, and groups that divide them, with more than one channel in each.

    Latents stay, unless their channels and the widths depend on each other.
    """
    widths = {n: v for n, v in _values(arch, _WIDTH) if max(_all(v)) >= 2 * LEAST_WIDTH and not _is_latent(v, latents)}
    if not widths:
        return
    flat = [w for v in widths.values() for w in _all(v)]
    for k in range(max(flat).bit_length(), 0, -1):
        if min(flat) >> k < LEAST_WIDTH or any(w % 2**k for w in flat):
            continue
        changes = {n: _each(v, partial(_halved, times=k)) for n, v in widths.items()}
        for name, groups in _values(arch, _GROUPS):
            fitting = gcd(groups, *(w >> k for w in flat))
            changes[name] = fitting // 2 if fitting == min(flat) >> k and fitting % 2 == 0 else fitting
        yield from [*_changed(arch, changes)] or _changed(arch, changes | _latents(arch, latents, latents >> k))


def fewer_latents(arch: VAEArchConfig, latents: int) -> Iterator[VAEArchConfig]:
    """Fewer channels of a latent, with their statistics."""
    for few in FEW_LATENTS:
        if few < latents:
            yield from _changed(arch, _latents(arch, latents, few))


def fewer_blocks(arch: VAEArchConfig, latents: int) -> Iterator[VAEArchConfig]:
    """One block or layer wherever there are several."""
    yield from _changed(arch, {n: _each(v, lambda count: 1) for n, v in _values(arch, _BLOCKS)})


def fewer_levels(arch: VAEArchConfig, latents: int) -> Iterator[VAEArchConfig]:
    """Without the innermost level, or the outermost."""
    levels = {f.name: getattr(arch, f.name) for f in fields(arch)}
    levels = {n: v for n, v in levels.items() if isinstance(v, tuple) and len(v) > 1 and not _floats(v)}
    for kept in (slice(None, -1), slice(1, None)):
        yield from _changed(arch, {n: v[kept] for n, v in levels.items()})


MOVES: tuple[Move, ...] = (narrower, fewer_latents, fewer_blocks, fewer_levels)


def small_cases(contract: LatentContract, others: Sequence[Case]) -> Iterator[Case]:
    """One sample of the shortest legal lengths, then of longer ones, then `others` that are not skipped, by size."""
    shortest = [1 - axis.offset for axis in contract.axes]
    longer = [[n + (i == j) for j, n in enumerate(shortest)] for i in range(len(shortest))]
    shapes = []
    for more in (shortest, *(longer if len(shortest) > 1 else ()), *([n + k for n in shortest] for k in (1, 2, 3))):
        media = tuple(axis.offset + axis.multiple * n for axis, n in zip(contract.axes, more, strict=True))
        shapes.append((1, contract.channels, *media))
    for shape in shapes:
        yield Case("small", shape, contract.latent_shape(shape))
    yield from sorted((case for case in others if case.skip is None), key=lambda case: prod(case.media))


def _values(arch: VAEArchConfig, names: re.Pattern[str]) -> Iterator[tuple[str, Any]]:
    """Fields with such a name that hold a whole number or several."""
    for field in fields(arch):
        value = getattr(arch, field.name)
        numbers = value if isinstance(value, tuple) else (value,)
        if names.match(field.name) and numbers and all(type(n) is int for n in numbers):
            yield field.name, value


def _changed(arch: VAEArchConfig, changes: dict[str, Any]) -> Iterator[VAEArchConfig]:
    if all(getattr(arch, n) == v for n, v in changes.items()):
        return
    try:
        yield arch.replace(**changes)
    except ConfigError:
        return


def _latents(arch: VAEArchConfig, latents: int, few: int) -> dict[str, Any]:
    """The fields that say how many channels a latent has, and those that say something of each."""
    counts = dict.fromkeys((n for n, v in _values(arch, _WIDTH) if _is_latent(v, latents)), max(few, 1))
    each = {n: v for n, v in vars(arch).items() if isinstance(v, tuple) and len(v) == latents and _floats(v)}
    return counts | {n: v[: max(few, 1)] for n, v in each.items()}


def _is_latent(value: Any, latents: int) -> bool:
    return bool(value == latents)


def _floats(values: tuple[Any, ...]) -> bool:
    return any(type(v) is float for v in values)


def _all(value: Any) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)


def _each(value: Any, made: Callable[[int], int]) -> Any:
    return tuple(map(made, value)) if isinstance(value, tuple) else made(value)


def _halved(width: int, times: int) -> int:
    return width >> times
