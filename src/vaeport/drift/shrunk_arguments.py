"""A reference's own arguments at another configuration of the native model, whose fields may have other names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vaeport.configs import VAEArchConfig

Arguments = Mapping[str, Any]


def adapted(given: Arguments | None, before: VAEArchConfig, after: VAEArchConfig) -> Iterator[Arguments | None]:
    """What they may be, the likeliest first; None, the published configuration, stays None.

    Arguments change with the published keys of the same name and value; then so do whole numbers of any name, or in any
    list or mapping, that are equal to one that has changed.
    """
    if given is None:
        yield None
        return
    old, new = before.to_published(), after.to_published()
    by_name = {n: new[n] if n in new and old.get(n) == _plain(v) else v for n, v in given.items()}
    yield by_name
    numbers = {a: b for n, value in old.items() for a, b in _pairs(value, new.get(n)) if a != b}
    by_value = {n: _replaced(v, numbers) if v == given[n] else v for n, v in by_name.items()}
    if by_value != by_name:
        yield by_value


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _pairs(before: Any, after: Any) -> Iterator[tuple[int, int]]:
    if isinstance(before, list) and isinstance(after, list):
        for one, other in zip(before, after, strict=False):
            yield from _pairs(one, other)
    elif type(before) is int and type(after) is int:
        yield before, after


def _replaced(value: Any, numbers: Mapping[int, int]) -> Any:
    if isinstance(value, Mapping):
        return {n: _replaced(v, numbers) for n, v in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(v, numbers) for v in value]
    return numbers.get(value, value) if type(value) is int else value
