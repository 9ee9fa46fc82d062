"""Runs that leave something behind: a second call of the same model on the same input must give the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from vaeport.drift.edits.edit import Edit, all_of, overriding

Snapshot = Mapping[str, Mapping[str, Any]]
"""Module path -> attributes, and copies of what they hold"""


def snapshot(model: nn.Module) -> Snapshot:
    """All attributes and buffers of all modules that are no weights, hooks or modules."""
    return {path: {name: _copied(value) for name, value in _plain(module)} for path, module in model.named_modules()}


def left_behind(model: nn.Module, before: Snapshot) -> list[tuple[str, str]]:
    """(module, attribute) that are not as they were."""
    return [
        (path, name)
        for path, module in model.named_modules()
        for name, value in _plain(module)
        if not _equal(value, before.get(path, {}).get(name, _ABSENT))
    ]


def resetting(model: nn.Module, before: Snapshot, left: list[tuple[str, str]]) -> Edit:
    """Puts the attributes back before every encode and decode."""
    path = left[0][0]
    shown = ", ".join(f"{p}.{n}".lstrip(".") for p, n in left)

    def call(vae: nn.Module, old: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        for module, attribute in left:
            value = before.get(module, {}).get(attribute, _ABSENT)
            if value is _ABSENT:
                vars(vae.get_submodule(module)).pop(attribute, None)
            else:
                setattr(vae.get_submodule(module), attribute, _copied(value))
        return old(*args, **kwargs)

    apply = all_of(overriding(method, call) for method in ("encode", "decode"))
    return Edit("cache reset", f"{shown} should be reset before every call", path, apply)


_ABSENT = object()
_OWN = {"training", "_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"}


def _plain(module: nn.Module) -> list[tuple[str, Any]]:
    return [
        (name, value)
        for name, value in (*vars(module).items(), *module.named_buffers(recurse=False))
        if name not in _OWN and "_hooks" not in name and not callable(value)
    ]


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    if type(value) is dict:
        return {key: _copied(v) for key, v in value.items()}
    return type(value)(_copied(v) for v in value) if type(value) in (list, tuple) else value


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and bool((a == b).all())
    if type(a) in (list, tuple) and type(a) is type(b):
        return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))
    if type(a) is dict and type(b) is dict:
        return a.keys() == b.keys() and all(_equal(value, b[key]) for key, value in a.items())
    return type(a) is type(b) and (a is b or (not isinstance(a, Tensor) and bool(a == b)))
