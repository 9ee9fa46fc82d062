"""Edits of how modules are put together: exchanged, left out, put in, or of another kind."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import combinations, permutations

from torch import nn

from vaeport.drift.edits.edit import Edit, Scope, Undo, putting, recast
from vaeport.drift.edits.functions import UNARY, Elementwise, Function, interleaved

_FACTORS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)


def structure_edits(scope: Scope) -> Iterator[Edit]:
    """Another function, another class, another order, a module less or more."""
    for path, module in scope.own():
        if path and not any(True for _ in (*module.parameters(), *module.buffers(), *module.children())):
            for function in UNARY:
                change = f"{_kind(module)} should be {function}"
                yield Edit("activation", change, path, putting(path, _always(partial(Elementwise, function))))
        for other in _relatives(module):
            yield Edit("layer kind", f"{_kind(module)} should be {other.__name__}", path, recast(path, other))
    for path, module in scope.own():
        names = [name for name, _ in module.named_children() if path or name not in ("encoder", "decoder")]
        for a, b in combinations(names, 2):
            yield Edit(
                "order", f"{a} and {b} should stand in each other's place", path, _reordered(path, _swapped(a, b))
            )
            yield Edit("order", f"{a} and {b} should be exchanged", path, exchanging(path, a, b))
        for a, b in permutations(names, 2):
            yield Edit("order", f"{a} should stand where {b} is", path, _reordered(path, _moved(a, b)))
        for name in names:
            child, inner = module.get_submodule(name), f"{path}.{name}".lstrip(".")
            if not any(True for _ in child.parameters()):
                for parts in _FACTORS:
                    for hooked, where in ((in_front, "what it is given"), (behind, "what it gives")):
                        change = f"{where}: channels should be interleaved in {parts}"
                        yield Edit("channel order", change, inner, hooked(inner, interleaved(parts)))
            without = putting(inner, _always(nn.Identity))
            yield Edit("superfluous layer", f"{name} should not be there", path, without)
            for function in list(UNARY)[1:6]:
                change = f"{function} is missing in front of {name}"
                yield Edit("activation", change, path, in_front(inner, UNARY[function]))


def _always(make: Callable[[], nn.Module]) -> Callable[[nn.Module], nn.Module]:
    return lambda _: make()


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


def in_front(path: str, function: Function) -> Callable[[nn.Module], Undo]:
    """A function of what a module is given."""

    def apply(model: nn.Module) -> Undo:
        hook = lambda m, args: (function(args[0]), *args[1:])  # noqa: E731
        return model.get_submodule(path).register_forward_pre_hook(hook, prepend=True).remove

    return apply


def behind(path: str, function: Function) -> Callable[[nn.Module], Undo]:
    """A function of what a module gives."""

    def apply(model: nn.Module) -> Undo:
        handle = model.get_submodule(path).register_forward_hook(lambda m, args, out: function(out), prepend=True)
        return handle.remove

    return apply


def exchanging(path: str, a: str, b: str) -> Callable[[nn.Module], Undo]:
    """Two modules of one parent change places."""

    def apply(model: nn.Module) -> Undo:
        table = model.get_submodule(path)._modules
        table[a], table[b] = table[b], table[a]
        return lambda: table.update({a: table[b], b: table[a]})

    return apply


def _reordered(path: str, order: Callable[[list[str]], list[str]]) -> Callable[[nn.Module], Undo]:
    """The modules keep their names and are in another order, as chains run them."""

    def apply(model: nn.Module) -> Undo:
        table = model.get_submodule(path)._modules
        before = dict(table)

        def put(names: list[str]) -> None:
            table.clear()
            table.update({name: before[name] for name in names})

        put(order(list(before)))
        return lambda: put(list(before))

    return apply


def _swapped(a: str, b: str) -> Callable[[list[str]], list[str]]:
    return lambda names: [{a: b, b: a}.get(name, name) for name in names]


def _moved(a: str, b: str) -> Callable[[list[str]], list[str]]:
    def moved(names: list[str]) -> list[str]:
        place = names.index(b)
        rest = [name for name in names if name != a]
        return [*rest[:place], a, *rest[place:]]

    return moved
