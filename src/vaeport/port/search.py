"""Arguments of a native model that fit official weights, sought among the values of the official constructor."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import fields
from itertools import product
from typing import Any

import torch

from vaeport.configs import VAEArchConfig
from vaeport.errors import ConfigError
from vaeport.registry import Registration

MOST_ROUNDS, KEPT = 3, 3
"""Times that every field is tried, and best arguments from which it goes on."""
Shape = tuple[int, ...]
_REFUSED = (ConfigError, RuntimeError, ValueError, IndexError, TypeError, ZeroDivisionError)


def search(
    registration: Registration,
    start: VAEArchConfig,
    wanted: Counter[Shape],
    arguments: Mapping[str, Any],
    contract: Mapping[str, Any],
) -> tuple[VAEArchConfig, float]:
    """From `start`, field after field takes the values that come nearest; the arguments, and the similarity of shapes.

    What the probe found of channels and compression counts first, then the shapes of the weights. A value that
    contradicts another field is tried together with a value of that one. Latent statistics, which have no shape to go
    by, are neutral where their number changes.
    """
    known: dict[str, tuple[int, float]] = {}

    def near(arch: VAEArchConfig) -> tuple[int, float]:
        if repr(arch) not in known:
            try:
                known[repr(arch)] = _agreeing(registration, arch, contract), similarity(registration, arch, wanted)
            except _REFUSED:
                known[repr(arch)] = -1, 0.0
        return known[repr(arch)]

    best, values, channels = [start], _values(arguments), int(contract["latent_channels"])
    for _ in range(MOST_ROUNDS):
        before = near(best[0])
        for name in (f.name for f in fields(start) if f.name != "extra"):
            tried = [*best, *(move for arch in best for move in _moves(arch, name, values, channels))]
            best = sorted({repr(arch): arch for arch in tried}.values(), key=near, reverse=True)[:KEPT]
            if near(best[0])[1] == 1.0:
                return best[0], 1.0
        if near(best[0]) == before:
            break
    return best[0], near(best[0])[1]


def _agreeing(registration: Registration, arch: VAEArchConfig, contract: Mapping[str, Any]) -> int:
    """How many of channels, latent channels and rules of the axes are as probed."""
    mine = registration.model.contract_of(arch)
    axes = [(a.multiple, a.offset) for a in mine.axes]
    found = [(a["multiple"], a["offset"]) for a in contract["axes"]]
    pairs: list[tuple[Any, Any]] = [*zip(axes, found, strict=False), (mine.channels, contract["channels"])]
    return sum(bool(a == b) for a, b in [*pairs, (mine.latent_channels, contract["latent_channels"])])


def _moves(arch: VAEArchConfig, name: str, values: list[Any], channels: int) -> Iterator[VAEArchConfig]:
    """The arguments with another value of a field, and of a second one where they contradict each other."""
    for value in _like(getattr(arch, name), [*values, *_products(values)]):
        tried = _replaced(arch, {name: value}, channels)
        if tried is not None:
            yield tried
            continue
        for other in (f.name for f in fields(arch) if f.name not in (name, "extra")):
            for second in _like(getattr(arch, other), values):
                both = _replaced(arch, {name: value, other: second}, channels)
                if both is not None:
                    yield both


def _replaced(arch: VAEArchConfig, changes: Mapping[str, Any], channels: int) -> VAEArchConfig | None:
    neutral = {"latents_mean": (0.0,) * channels, "latents_std": (1.0,) * channels}
    statistics = {name: value for name, value in neutral.items() if isinstance(getattr(arch, name, None), tuple)}
    for more in ({}, statistics):
        try:
            return arch.replace(**{**more, **changes})
        except _REFUSED:
            continue
    return None


def _like(held: Any, values: list[Any]) -> list[Any]:
    """Other values of the same type, of lists those with the same type of elements."""

    def kind(value: Any) -> Any:
        return (tuple, *{type(v) for v in value}) if isinstance(value, tuple) else type(value)

    return [value for value in values if kind(value) == kind(held) and value != held]


def _values(arguments: Any) -> list[Any]:
    """Numbers and lists of the official arguments, doubled, halved and reversed, and both truth values."""
    values: list[Any] = [True, False]

    def collect(value: Any) -> None:
        if isinstance(value, Mapping):
            for inner in value.values():
                collect(inner)
        elif isinstance(value, list | tuple) and value:
            values.extend((tuple(value), tuple(reversed(value))))
        elif type(value) is int:
            values.extend((value, 2 * value, value // 2))

    collect(arguments)
    return list({repr(value): value for value in values}.values())


def _products(values: list[Any]) -> list[Any]:
    """A number times each of a list of numbers."""
    rows = [v for v in values if isinstance(v, tuple) and all(type(n) is int for n in v)]
    found = [tuple(n * m for m in row) for n, row in product((v for v in values if type(v) is int), rows)]
    return [row for row in dict.fromkeys(found) if row not in rows]


def shapes(weights: Mapping[str, Shape]) -> Counter[Shape]:
    """Shapes without ones and in any order, so that neither units nor transposition matter."""
    return Counter(tuple(sorted(n for n in shape if n != 1)) for shape in weights.values())


def similarity(registration: Registration, arch: VAEArchConfig, wanted: Counter[Shape]) -> float:
    """Share of the elements, of the side that has more, that lie in weights of equal shape."""
    with torch.device("meta"):
        state = registration.model(arch).state_dict()
    mine = shapes({key: tuple(t.shape) for key, t in state.items()})
    shared = sum(min(n, mine[shape]) * math.prod(shape) for shape, n in wanted.items())
    largest = max(sum(n * math.prod(shape) for shape, n in one.items()) for one in (mine, wanted))
    return shared / largest if mine != wanted else 1.0


def adapted(arch: VAEArchConfig, pairs: Mapping[Any, Any]) -> Iterator[VAEArchConfig]:
    """The arguments with each constant that has no shape (groups, eps) as the official operations have it.

    pairs   native value -> official value, of attributes that differ
    """
    for native, official in pairs.items():
        for name in (f.name for f in fields(arch) if f.name != "extra"):
            held = getattr(arch, name)
            if type(held) is type(native) and held == native:
                tried = _replaced(arch, {name: official}, 0)
                if tried is not None:
                    yield tried
