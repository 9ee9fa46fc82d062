"""Other values that a constant might have been meant to have: those of the reference first, then its neighbours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations
from typing import Any

from vaeport.drift.edits.edit import of_type

_MODES = ("zeros", "constant", "replicate", "reflect", "circular")
_WAYS = ("nearest", "nearest-exact", "bilinear", "trilinear", "linear", "bicubic", "area")
_SMALL = (0, 1, 2, 3, 4, 8, 16, 32)


def others(value: Any, hints: Sequence[Any]) -> Iterator[Any]:
    """Values of the same kind, each once, without `value` itself."""
    seen: list[Any] = [value]
    for candidate in _candidates(value, hints):
        if not any(type(candidate) is type(s) and candidate == s for s in seen):
            seen.append(candidate)
            yield candidate


def _candidates(value: Any, hints: Sequence[Any]) -> Iterator[Any]:
    if isinstance(value, bool):
        yield not value
    elif value is None:
        yield from (True, 1.0, 0.5)
    elif isinstance(value, int):
        yield from of_type(hints, value)
        yield from (2 * value, value // 2, value + 1, value - 1, -value, *_SMALL)
    elif isinstance(value, float):
        yield from (float(h) for h in of_type(hints, value))
        yield from _floats(value)
    elif isinstance(value, str):
        yield from of_type(hints, value)
        yield from _MODES if value in _MODES else _WAYS if value in _WAYS else ()
    elif isinstance(value, tuple | list):
        yield from (type(value)(c) for c in _lists(value, hints))


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _floats(value: float) -> Iterator[float]:
    for power in (-1, 1, -2, 2, -3, 3, -4, 4):
        yield float(f"{value * 10.0**power:.12g}")
    yield -value
    if value:
        yield 1 / value
    if value > 0:
        yield from (value**0.5, value**-0.5)
    yield from (
        value + 1,
        value - 1,
        value * value,
        2 * value,
        value / 2,
        1 - value,
        1.0,
        0.0,
        0.5,
        2.0,
        1e-5,
        1e-6,
        1e-8,
        1e-9,
        1e-12,
    )


def _lists(value: Sequence[Any], hints: Sequence[Any]) -> Iterator[list[Any]]:
    yield from (list(h) for h in of_type(hints, value))
    if value and all(isinstance(v, tuple | list) and len(v) == 2 for v in value):
        even = [h for h in hints if isinstance(h, list | tuple) and len(h) == len(value) and all(map(_is_int, h))]
        yield from ([(n, n) for n in h] for h in even)
        yield from _pads([tuple(v) for v in value])
        return
    if len(value) <= 4:
        yield from (list(p) for p in permutations(value))
    if all(isinstance(v, float) for v in value):
        yield [1 / v if v else v for v in value]
        yield [-v for v in value]
        yield [v * v for v in value]
        yield [0.0] * len(value)
        yield [1.0] * len(value)
        return
    for i, part in enumerate(value):
        for other in others(part, hints) if not isinstance(part, tuple | list) else ():
            yield [*value[:i], other, *value[i + 1 :]]
    if value and all(isinstance(v, int) and not isinstance(v, bool) for v in value):
        for other in others(value[0], hints):
            yield [other] * len(value)


def _pads(pairs: list[tuple[Any, Any]]) -> Iterator[list[Any]]:
    """(before, after) of each axis: the other side, both sides, more, less; axis by axis, then all axes alike."""

    def moved(pair: tuple[Any, Any]) -> list[tuple[Any, Any]]:
        a, b = pair
        total = a + b
        ways = [(total, 0), (0, total), (total // 2, total - total // 2), (b, a)]
        ways += [(a + 1, b), (a, b + 1), (a - 1, b), (a, b - 1), (a + 1, b + 1), (a - 1, b - 1), (0, 0), (2 * a, 2 * b)]
        ways += [(1, 1), (2, 0), (0, 1), (3, 3), (1, 0)]
        return [w for w in dict.fromkeys(ways) if min(w) >= 0]

    for i, pair in enumerate(pairs):
        for way in moved(pair):
            yield [*pairs[:i], way, *pairs[i + 1 :]]
    for number in range(len(moved(pairs[-1]))):
        for some in (range(len(pairs)), range(max(0, len(pairs) - 2), len(pairs))):
            yield [moved(p)[number] if i in some and number < len(moved(p)) else p for i, p in enumerate(pairs)]
    yield from (list(p) for p in permutations(pairs))
