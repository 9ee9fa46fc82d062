"""Edits of single calls of torch functions inside a module, for what stands in its code and in no attribute.

The n-th call gets another constant, is replaced by a function of its family, or its results change places. Which calls
there are is seen by running the module once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vaeport.drift.edits.edit import Edit, Scope, Undo
from vaeport.drift.edits.functions import UNARY
from vaeport.drift.edits.values import others
from vaeport.proof.precision import place
from vaeport.proof.recording import is_plain

_IGNORED = {"__get__", "size", "dim", "numel", "is_floating_point", "__len__", "stride", "is_contiguous", "__set__"}
_FAMILIES: tuple[tuple[str, ...], ...] = (("add", "sub"), ("mul", "div"), ("mean", "sum"), ("repeat", "repeat_interleave"))
_ACTIVATIONS = {"silu", "relu", "gelu", "tanh", "sigmoid", "elu", "leaky_relu", "mish", "softplus", "hardtanh", "selu"}
_TRIGONOMETRY = {"sin", "cos", "exp", "sqrt", "square", "rsqrt", "reciprocal", "log", "neg", "abs", "pow"}
_CAUSES = {
    "eps": "eps",
    "num_groups": "groups",
    "scale": "attention scale",
    "is_causal": "attention mask",
    "attn_mask": "attention mask",
    "pad": "padding amount",
    "dim": "axis",
    "approximate": "activation",
}


@dataclass(frozen=True)
class Call:
    """The n-th call inside a module: which function, with what."""

    module: str
    number: int
    name: str
    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    place: str
    results: int


Change = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]
"""(function, args, kwargs) -> result"""


class _Calls(TorchFunctionMode):
    """Counts the calls of one module, those of modules within it left out; changes one, or writes all down."""

    def __init__(self, module: str, number: int | None = None, change: Change | None = None) -> None:
        super().__init__()
        self.module, self.number, self.change = module, number, change
        self.count, self.paused = 0, 0
        self.seen: list[Call] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if self.paused or name in _IGNORED:
            return func(*args, **kwargs)
        number, self.count = self.count, self.count + 1
        if number == self.number and self.change is not None:
            return self.change(func, args, kwargs)
        out = func(*args, **kwargs)
        if self.number is None:
            results = len(out) if isinstance(out, tuple | list) else 1
            plain = tuple(_kept(a) for a in args)
            self.seen.append(Call(self.module, number, name, func, plain, {k: _kept(v) for k, v in kwargs.items()}, place(), results))
        return out


def _kept(value: Any) -> Any:
    return value if is_plain(value) else list(value) if isinstance(value, list | tuple) and not _has_tensor(value) else Ellipsis


def _has_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, list | tuple) and any(_has_tensor(v) for v in value))


def watching(model: nn.Module, path: str, mode: _Calls) -> Undo:
    """Has `mode` see each call of the module at `path`; hooks, since they are shared with what is bound to conditions."""
    module, handles = model.get_submodule(path), []

    def enter(*_: Any) -> None:
        mode.count = mode.paused = 0
        mode.__enter__()

    def leave(*_: Any) -> None:
        mode.__exit__(None, None, None)

    def pause(*_: Any) -> None:
        mode.paused += 1

    def go_on(*_: Any) -> None:
        mode.paused -= 1

    handles.append(module.register_forward_pre_hook(enter))
    handles.append(module.register_forward_hook(leave, prepend=True, always_call=True))
    for child in module.children():
        handles.append(child.register_forward_pre_hook(pause, prepend=True))
        handles.append(child.register_forward_hook(go_on, always_call=True))

    def undo() -> None:
        for handle in handles:
            handle.remove()

    return undo


def calls_in(scope: Scope, run: Callable[[], Any]) -> list[Call]:
    """The calls of the modules in scope, seen in one run."""
    modes = {path: _Calls(path) for path in scope.modules if path}
    undo = [watching(scope.model, path, mode) for path, mode in modes.items()]
    try:
        run()
    finally:
        for back in undo:
            back()
    return [call for mode in modes.values() for call in mode.seen]


def call_edits(scope: Scope, calls: Sequence[Call]) -> Iterator[Edit]:
    """Each call with another constant, of another function, with its results in another order, or left out."""
    for call in calls:
        for cause, says, change in _changes(call, scope.hints):
            yield Edit(cause, f"{says} ({call.place})", call.module, _changed(call, change))


def _changed(call: Call, change: Change) -> Callable[[nn.Module], Undo]:
    return lambda model: watching(model, call.module, _Calls(call.module, call.number, change))


def _changes(call: Call, hints: Sequence[Any]) -> Iterator[tuple[str, str, Change]]:
    shown = call.name.strip("_")
    base = shown.removeprefix("i") if shown in ("iadd", "isub", "imul", "idiv") else shown
    base = {"truediv": "div", "radd": "add", "rmul": "mul"}.get(base, base)
    names = _names(call.function)
    for i, value in enumerate(call.args):
        if value is Ellipsis:
            continue
        name = names[i] if i < len(names) else f"argument {i}"
        for other in others(value, hints):
            says = f"{shown}: {name} {value!r} should be {other!r}"
            yield _CAUSES.get(name, _cause_of(base, name)), says, _with_argument(i, other)
    for name, value in call.kwargs.items():
        if value is not Ellipsis:
            for other in (*others(value, hints), *((None,) if value is not None else ())):
                says = f"{shown}: {name} {value!r} should be {other!r}"
                yield _CAUSES.get(name, _cause_of(base, name)), says, _with_keyword(name, other)
        elif name == "attn_mask":
            yield "attention mask", f"{shown}: there should be no mask", _with_keyword(name, None)
    if call.function is F.scaled_dot_product_attention:
        yield "attention mask", f"{shown}: is_causal should be True", _with_keyword("is_causal", True)
        for order in list(permutations(range(3)))[1:]:
            yield "order", f"{shown}: its operands should be {list(order)}", _permuted_arguments(order)
    if 1 < call.results <= 4:
        for order in list(permutations(range(call.results)))[1:]:
            yield "order", f"{shown}: its results should be in the order {list(order)}", _permuted(order)
    if base in _ACTIVATIONS | _TRIGONOMETRY:
        for function, f in UNARY.items():
            yield "activation", f"{shown} should be {function}", lambda _, args, __, f=f: f(args[0])
    for family in _FAMILIES:
        for other in family:
            if base in family and other != base:
                yield "operation", f"{shown} should be {other}", _of_name(other)
    if base in ("sub", "div", "matmul", "add", "mul") and len(call.args) == 2:
        yield "order", f"{shown}: its operands should change places", lambda f, args, kwargs: f(args[1], args[0], **kwargs)
    yield "operation", f"{shown} should not be there", lambda _, args, __: args[0]


def _cause_of(function: str, name: str) -> str:
    if function in ("permute", "transpose", "movedim", "flip", "swapaxes"):
        return "axis"
    if function in ("mul", "div", "pow"):
        return "scale"
    if function == "interpolate":
        return "upsample mode"
    return "eps" if function == "add" else "constant"


def _names(function: Any) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        packet = getattr(torch.ops.aten, getattr(function, "__name__", ""), None)
        schema = getattr(getattr(packet, "default", None), "_schema", None)
        return [] if schema is None else [a.name for a in schema.arguments]


def _with_argument(i: int, value: Any) -> Change:
    return lambda f, args, kwargs: f(*args[:i], value, *args[i + 1 :], **kwargs)


def _with_keyword(name: str, value: Any) -> Change:
    return lambda f, args, kwargs: f(*args, **{**kwargs, name: value})


def _permuted_arguments(order: Sequence[int]) -> Change:
    return lambda f, args, kwargs: f(*(args[i] for i in order), *args[len(order) :], **kwargs)


def _permuted(order: Sequence[int]) -> Change:
    def change(f: Any, args: Any, kwargs: Any) -> Any:
        out = f(*args, **kwargs)
        return [out[i] for i in order]

    return change


def _of_name(name: str) -> Change:
    def change(f: Any, args: Any, kwargs: Any) -> Any:
        if name == "repeat":  # from repeat_interleave(x, times, dim)
            times = [1] * args[0].dim()
            times[args[2] if len(args) > 2 else kwargs["dim"]] = args[1]
            return args[0].repeat(*times)
        if name == "repeat_interleave":
            sizes = args[1] if isinstance(args[1], list | tuple) else args[1:]
            axis = next(i for i, n in enumerate(sizes) if n > 1)
            return args[0].repeat_interleave(sizes[axis], axis)
        return getattr(torch, name)(*args, **kwargs)

    return change
