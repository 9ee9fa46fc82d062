"""Edits of plain attributes: of modules, and of the constants and small objects that they hold."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from typing import Any

from torch import Tensor, nn

from vaeport.drift.edits.edit import Edit, Scope, Undo, all_of, setting
from vaeport.drift.edits.values import others
from vaeport.proof.recording import is_plain

_SPELT = {"variance_epsilon": "eps", "epsilon": "eps", "num_groups": "groups", "norm_num_groups": "groups"}
_PADDINGS = {"zeros", "constant", "replicate", "reflect", "circular"}
_UNUSED = {"training", "arch", "config", "encode_pieces", "decode_pieces"}


def attribute_edits(scope: Scope) -> Iterator[Edit]:
    """One attribute another value, or two of one holder exchanged."""
    for path, module in scope.own():
        for label, held in holders(module):
            target = held(module)
            plain = {n: v for n, v in vars(target).items() if not n.startswith("_") and n not in _UNUSED and _known(v)}
            for name, value in plain.items():
                shown = f"{label}{name}"
                for other in others(value, scope.hints):
                    change = f"{shown} {_shown(value)} should be {_shown(other)}"
                    yield Edit(cause_of(name, value, other), change, path, setting(path, held, name, other))
            for (a, left), (b, right) in _pairs(plain):
                if type(left) is type(right) and left != right and isinstance(left, float | tuple | list):
                    change = f"{label}{a} and {label}{b} should be exchanged"
                    yield Edit("order", change, path, _exchange(path, held, a, b))


def holders(module: nn.Module) -> Iterator[tuple[str, Callable[[nn.Module], Any]]]:
    """The module itself, and plain objects among its attributes."""
    yield "", lambda m: m
    for name, value in vars(module).items():
        if name.startswith("_") or name in _UNUSED or isinstance(value, nn.Module | Tensor | type) or callable(value):
            continue
        if is_dataclass(value) or type(value).__module__.startswith("vaeport."):
            yield f"{name}.", _attribute(name)


def _attribute(name: str) -> Callable[[nn.Module], Any]:
    return lambda module: getattr(module, name)


def _known(value: Any) -> bool:
    return is_plain(value) and value is not None and not (isinstance(value, list | tuple) and not value)


def _pairs(plain: dict[str, Any]) -> Iterator[tuple[tuple[str, Any], tuple[str, Any]]]:
    items = list(plain.items())
    yield from ((items[i], items[j]) for i in range(len(items)) for j in range(i + 1, len(items)))


def _exchange(path: str, held: Callable[[nn.Module], Any], a: str, b: str) -> Callable[[nn.Module], Undo]:
    def apply(model: nn.Module) -> Undo:
        target = held(model.get_submodule(path))
        left, right = getattr(target, a), getattr(target, b)
        return all_of((setting(path, held, a, right), setting(path, held, b, left)))(model)

    return apply


def cause_of(name: str, value: Any, other: Any) -> str:
    """The class of a cause: the attribute's own name in the field's usual spelling; for padding, what is wrong."""
    name = _SPELT.get(name, name)
    if isinstance(value, str) and (value in _PADDINGS or other in _PADDINGS):
        return "padding mode"
    if name.startswith("pad"):
        pairs = [(p, q) for p, q in zip(value, other, strict=True) if p != q] if isinstance(value, list | tuple) else []
        moved = bool(pairs) and all(isinstance(p, list | tuple) and sum(p) == sum(q) for p, q in pairs)
        return "padding side" if moved else "padding amount"
    return name


def _shown(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def signature_names(function: Callable[..., Any]) -> list[str]:
    """Names of a function's parameters, as far as they can be known."""
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return []
