"""Edits of plain attributes: of modules, and of the constants and small objects that they hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from itertools import combinations, product
from typing import Any, Literal, get_args, get_origin, get_type_hints

from torch import Tensor, nn

from vaeport.drift.edits.edit import Edit, Scope, Undo, all_of, setting
from vaeport.drift.edits.values import others
from vaeport.proof.recording import is_plain

Held = Callable[[nn.Module], Any]
"""Finds what holds the attribute."""
_SPELT = {"variance_epsilon": "eps", "epsilon": "eps", "num_groups": "groups", "norm_num_groups": "groups"}
_PADDINGS = {"zeros", "constant", "replicate", "reflect", "circular"}
_UNUSED = {"training", "arch", "config", "encode_pieces", "decode_pieces"}


def attribute_edits(scope: Scope) -> Iterator[Edit]:
    """One attribute another value, two of one holder exchanged, or two of one module as the reference has them."""
    for path, module in scope.own():
        hinted: list[list[Edit]] = []
        for label, held in holders(module):
            target = held(module)
            plain = {n: v for n, v in vars(target).items() if not n.startswith("_") and _known(n, v)}
            for name, value in plain.items():
                edits = [_edit(path, label, held, name, value, other) for other in others(value, scope.hints)]
                yield from edits
                hinted.append(edits[:4])
            for (a, left), (b, right) in combinations(plain.items(), 2):
                if type(left) is type(right) and left != right and isinstance(left, float | tuple | list):
                    change = f"{label}{a} and {label}{b} should be exchanged"
                    yield Edit("order", change, path, _exchange(path, held, a, b))
        for one, two in combinations(hinted, 2):
            for left, right in product(one, two):
                change = f"{left.change} and {right.change}"
                yield Edit(left.cause, change, path, all_of((left.apply, right.apply)))


def config_edits(scope: Scope) -> Iterator[Edit]:
    """How the model was asked to run: other options of its config."""
    config = vars(scope.model).get("config")
    for name, value in vars(config).items() if is_dataclass(config) else ():
        for other in _options(config, name, value):
            yield _edit("", "config.", _attribute("config"), name, value, other)


def _edit(path: str, label: str, held: Held, name: str, value: Any, other: Any) -> Edit:
    change = f"{label}{name} {_shown(value)} should be {_shown(other)}"
    return Edit(cause_of(name, value, other), change, path, setting(path, held, name, other))


def _options(target: Any, name: str, value: Any) -> list[Any]:
    """What the annotation of a dataclass's field allows besides."""
    hint = get_type_hints(type(target)).get(name)
    return [option for option in get_args(hint) if get_origin(hint) is Literal and option != value]


def holders(module: nn.Module) -> Iterator[tuple[str, Held]]:
    """The module itself, and plain objects among its attributes."""
    yield "", lambda m: m
    for name, value in vars(module).items():
        if name.startswith("_") or name in _UNUSED or isinstance(value, nn.Module | Tensor | type) or callable(value):
            continue
        if is_dataclass(value) or type(value).__module__.startswith("vaeport."):
            yield f"{name}.", _attribute(name)


def _attribute(name: str) -> Held:
    return lambda module: getattr(module, name)


def _known(name: str, value: Any) -> bool:
    if name in _UNUSED or value is None:
        return False
    return is_plain(value) and not (isinstance(value, list | tuple) and not value)


def _exchange(path: str, held: Held, a: str, b: str) -> Callable[[nn.Module], Undo]:
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
