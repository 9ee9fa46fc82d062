"""The calls of torch functions inside a module, seen one by one, and changed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vaeport.drift.edits.edit import Scope, Undo
from vaeport.drift.hidden import is_hidden
from vaeport.proof.precision import place
from vaeport.proof.recording import is_plain

_IGNORED = {"__get__", "__set__", "__len__", "size", "dim", "numel", "stride", "is_contiguous", "is_floating_point"} | {
    *("__bool__", "item", "tolist", "asarray", "device", "requires_grad_", "detach"),
}


@dataclass(frozen=True)
class Call:
    """The n-th call inside a module: which function, with what; tensors are left out as `...`."""

    module: str
    number: int
    name: str
    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    place: str
    results: int

    @property
    def alike(self) -> tuple[Any, ...]:
        """Equal for calls that do the same in one place, such as those of a loop."""
        return self.module, self.name, repr(self.args), repr(self.kwargs)


Change = Callable[[Any, tuple[Any, ...], dict[str, Any], Sequence[int]], Any]
"""(function, args, kwargs, shape of what the module is given) -> result"""


@dataclass
class Calls(TorchFunctionMode):
    """Counts the calls of one module, those of modules within it left out; changes some, or writes all down."""

    module: str
    numbers: frozenset[int] = frozenset()
    change: Change | None = None
    seen: list[Call] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.count = self.paused = 0
        self.shape: Sequence[int] = ()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs one call."""
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if self.paused or is_hidden() or name in _IGNORED:
            return func(*args, **kwargs)
        number, self.count = self.count, self.count + 1
        if self.change is not None:
            return self.change(func, args, kwargs, self.shape) if number in self.numbers else func(*args, **kwargs)
        out = func(*args, **kwargs)
        results = len(out) if isinstance(out, tuple | list) else 1
        shown = tuple(_shown(a) for a in args), {k: _shown(v) for k, v in kwargs.items()}
        self.seen.append(Call(self.module, number, name, func, *shown, place(), results))
        return out


def _shown(value: Any) -> Any:
    """Numbers and lists of them as they are, slices too, lists of tensors by their length, tensors as `...`."""
    if is_plain(value) or isinstance(value, slice):
        return value
    if isinstance(value, tuple | list):
        return type(value)(_shown(v) for v in value) if type(value) in (list, tuple) else [_shown(v) for v in value]
    return ...


def watching(model: nn.Module, path: str, mode: Calls) -> Undo:
    """Has `mode` see each run of the module at `path`, and its binding to conditions.

    By hooks, since copies that are bound to conditions share them.
    """
    module = model.get_submodule(path)

    def enter(_: Any, args: Any) -> None:
        mode.count = mode.paused = 0
        mode.shape = next((tuple(a.shape) for a in args if isinstance(a, Tensor)), ())
        mode.__enter__()  # type: ignore[no-untyped-call]

    def leave(*_: Any) -> None:
        mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def pause(*_: Any) -> None:
        mode.paused += 1

    def go_on(*_: Any) -> None:
        mode.paused -= 1

    handles = [
        module.register_forward_pre_hook(enter),
        module.register_forward_hook(leave, prepend=True, always_call=True),
    ]
    for child in module.children():
        handles.append(child.register_forward_pre_hook(pause, prepend=True))
        handles.append(child.register_forward_hook(go_on, always_call=True))
    bind, held = getattr(module, "bind", None), vars(module).get("bind")
    if bind is not None and not list(module.children()):

        def bound(*args: Any) -> Any:
            mode.count, mode.shape = _BIND, ()
            with mode:
                twin = bind(*args)
            vars(twin).pop("bind", None)
            return twin

        vars(module)["bind"] = bound

    def undo() -> None:
        for handle in handles:
            handle.remove()
        vars(module).pop("bind", None)
        if held is not None:
            vars(module)["bind"] = held

    return undo


_BIND = 1_000_000
"""Where the numbers of calls begin that bind a module to conditions."""


def calls_in(scope: Scope, run: Callable[[], Any]) -> list[Call]:
    """The calls of the modules in scope, seen in one run."""
    modes = {path: Calls(path) for path in scope.modules if path}
    undo = [watching(scope.model, path, mode) for path, mode in modes.items()]
    try:
        run()
    finally:
        for back in undo:
            back()
    found = {(call.module, call.number): call for mode in modes.values() for call in mode.seen}
    return list(found.values())


def changed(calls: Iterable[Call], change: Change) -> Callable[[nn.Module], Undo]:
    """Those calls of one module go another way."""
    some = list(calls)
    path, numbers = some[0].module, frozenset(call.number for call in some)
    return lambda model: watching(model, path, Calls(path, numbers, change))


def parameter_names(function: Any) -> list[str]:
    """Names of a function's parameters: of its signature, or of the ATen operation of its name."""
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        packet = getattr(torch.ops.aten, getattr(function, "__name__", "").strip("_"), None)
        if packet is None:
            return []
        schema = getattr(packet, packet.overloads()[0])._schema
        return [a.name for a in schema.arguments]
