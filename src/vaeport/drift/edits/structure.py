"""Edits of how modules are put together: exchanged, left out, put in, or of another kind."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from itertools import combinations

from torch import nn

from vaeport.drift.edits.edit import Edit, Scope, Undo
from vaeport.drift.edits.functions import UNARY, Elementwise


def structure_edits(scope: Scope) -> Iterator[Edit]:
    """Another function, another class, another order, a module less or more."""
    for path, module in scope.own():
        parent, _, name = path.rpartition(".")
        if path and not any(True for _ in (*module.parameters(), *module.buffers(), *module.children())):
            for function in UNARY:
                change = f"{_kind(module)} should be {function}"
                yield Edit("activation", change, path, _child(parent, name, lambda f=function: Elementwise(f)))
        for other in _relatives(module):
            yield Edit("layer kind", f"{_kind(module)} should be {other.__name__}", path, _recast(path, other))
    for path, module in scope.own():
        names = [name for name, _ in module.named_children() if path or name not in ("encoder", "decoder")]
        for a, b in combinations(names, 2):
            yield Edit("order", f"{a} and {b} should be exchanged", path, exchanging(path, a, b))
        for a in names:
            for b in names:
                if a != b and abs(names.index(a) - names.index(b)) > 1:
                    change = f"{a} should stand where {b} is"
                    yield Edit("order", change, path, _moved(path, names.index(a), names.index(b)))
        for name in names:
            yield Edit("superfluous layer", f"{name} should not be there", path, _child(path, name, nn.Identity))
            for function in list(UNARY)[1:6]:
                change = f"{function} is missing in front of {name}"
                yield Edit("activation", change, path, _in_front(path, name, function))


def _kind(module: nn.Module) -> str:
    return module.name if isinstance(module, Elementwise) else type(module).__name__


def _relatives(module: nn.Module) -> Iterator[type[nn.Module]]:
    """Classes beside the module's own that take the same constants: its bases, and others of its file."""
    own = type(module)
    file = sys.modules.get(own.__module__)
    near = [*own.__mro__[1:], *(vars(file).values() if file else ())]
    for other in near:
        if not isinstance(other, type) or other is own or not issubclass(other, nn.Module):
            continue
        if "forward" in vars(other) and not other.__module__.startswith("torch"):
            asked = set(inspect.signature(other).parameters) - {"channels"}
            if asked <= set(vars(module)):
                yield other


def _recast(path: str, other: type) -> Callable[[nn.Module], Undo]:
    def apply(model: nn.Module) -> Undo:
        module = model.get_submodule(path)
        before = module.__class__
        module.__class__ = other
        return lambda: setattr(module, "__class__", before)

    return apply


def _child(parent: str, name: str, make: Callable[[], nn.Module]) -> Callable[[nn.Module], Undo]:
    def apply(model: nn.Module) -> Undo:
        table = model.get_submodule(parent)._modules
        before, table[name] = table[name], make()
        return lambda: table.__setitem__(name, before)

    return apply


def _in_front(parent: str, name: str, function: str) -> Callable[[nn.Module], Undo]:
    def apply(model: nn.Module) -> Undo:
        module = model.get_submodule(f"{parent}.{name}".lstrip("."))
        layer = Elementwise(function)
        handle = module.register_forward_pre_hook(lambda m, args: (layer(args[0]), *args[1:]), prepend=True)
        return handle.remove

    return apply


def exchanging(path: str, a: str, b: str) -> Callable[[nn.Module], Undo]:
    """Two modules of one parent change places."""

    def apply(model: nn.Module) -> Undo:
        table = model.get_submodule(path)._modules
        table[a], table[b] = table[b], table[a]
        return lambda: table.update({a: table[b], b: table[a]})

    return apply


def _moved(path: str, source: int, target: int) -> Callable[[nn.Module], Undo]:
    def apply(model: nn.Module) -> Undo:
        table = model.get_submodule(path)._modules
        names, modules = list(table), list(table.values())
        moved = [*modules]
        moved.insert(target, moved.pop(source))
        table.update(zip(names, moved, strict=True))
        return lambda: table.update(zip(names, modules, strict=True))

    return apply
