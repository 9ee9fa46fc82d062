"""`Edit`, one change that can be taken back, and `Scope`, what is known of the place where it is wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

Undo = Callable[[], None]


@dataclass(frozen=True)
class Edit:
    """One change.

    cause   class of what it mends
    change  in words, after the name of the module
    module  path of the module that it changes
    apply   makes the change in a model and says how to take it back; may raise anything
    """

    cause: str
    change: str
    module: str
    apply: Callable[[nn.Module], Undo] = field(repr=False)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """The change, within."""
        undo = self.apply(model)
        try:
            yield
        finally:
            undo()


@dataclass
class Scope:
    """Where a change is looked for.

    model       the native VAE
    modules     paths of the modules that may be changed, "" for the model itself
    hints       values that the reference has there: attributes of its module, arguments of its operations
    found       the native tensor that differs
    wanted      the reference's
    """

    model: nn.Module
    modules: Sequence[str]
    hints: Sequence[Any] = ()
    found: Tensor | None = None
    wanted: Tensor | None = None

    def own(self) -> Iterator[tuple[str, nn.Module]]:
        """The modules, by path."""
        for path in self.modules:
            yield path, self.model.get_submodule(path)


def setting(path: str, holder: Callable[[nn.Module], Any], name: str, value: Any) -> Callable[[nn.Module], Undo]:
    """Sets an attribute of what `holder` gives of the module at `path`."""

    def apply(model: nn.Module) -> Undo:
        target = holder(model.get_submodule(path))
        before = getattr(target, name)
        _set(target, name, value)
        return lambda: _set(target, name, before)

    return apply


def all_of(changes: Iterable[Callable[[nn.Module], Undo]]) -> Callable[[nn.Module], Undo]:
    """Several changes as one."""
    parts = tuple(changes)

    def apply(model: nn.Module) -> Undo:
        undo: list[Undo] = []

        def back() -> None:
            for one in reversed(undo):
                one()

        try:
            for part in parts:
                undo.append(part(model))
        except BaseException:
            back()  # half of a change is none
            raise
        return back

    return apply


def recast(path: str, other: type) -> Callable[[nn.Module], Undo]:
    """A module gets another class, and keeps its weights and constants."""
    return setting(path, lambda module: module, "__class__", other)


def putting(path: str, make: Callable[[nn.Module], nn.Module]) -> Callable[[nn.Module], Undo]:
    """Another module, made of the one at `path`, in its place."""

    def apply(model: nn.Module) -> Undo:
        parent, _, name = path.rpartition(".")
        table: dict[str, Any] = model.get_submodule(parent)._modules
        before = table[name]
        table[name] = make(before)
        return lambda: table.__setitem__(name, before)

    return apply


def overriding(name: str, new: Callable[..., Any]) -> Callable[[nn.Module], Undo]:
    """A method of the model that calls `new(model, old, ...)`."""

    def apply(model: nn.Module) -> Undo:
        held = vars(model).get(name)
        old = getattr(model, name)
        object.__setattr__(model, name, lambda *args, **kwargs: new(model, old, *args, **kwargs))

        def undo() -> None:
            object.__delattr__(model, name)
            if held is not None:
                object.__setattr__(model, name, held)

        return undo

    return apply


def _set(target: Any, name: str, value: Any) -> None:
    if isinstance(target, nn.Module):
        setattr(target, name, value)
    else:
        object.__setattr__(target, name, value)  # frozen constants too


def of_type(hints: Iterable[Any], like: Any) -> list[Any]:
    """The hints that could stand in for a value."""
    if isinstance(like, bool):
        return []
    if isinstance(like, int | float):
        kinds: tuple[type, ...] = (int, float) if isinstance(like, float) else (int,)
        return [h for h in hints if isinstance(h, kinds) and not isinstance(h, bool)]
    if isinstance(like, tuple | list):
        return [h for h in hints if isinstance(h, list | tuple) and len(h) == len(like) and _alike(h, like)]
    return [h for h in hints if isinstance(h, type(like))]


def _alike(a: Sequence[Any], b: Sequence[Any]) -> bool:
    return all(isinstance(x, list | tuple) == isinstance(y, list | tuple) for x, y in zip(a, b, strict=True))


def values(constants: Mapping[str, Any]) -> Iterator[Any]:
    """Constants, and what lists of them hold."""
    for value in constants.values():
        yield value
        if isinstance(value, list | tuple):
            yield from (v for v in value if not isinstance(v, list | tuple))
