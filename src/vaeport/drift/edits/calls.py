"""Edits of single calls of torch functions inside a module, for what stands in its code and in no attribute.

A call gets another constant, is replaced by a function of its family, or what it takes or gives changes places; calls
that do the same in one place are changed together too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations
from typing import Any

import torch
import torch.nn.functional as F

from vaeport.drift.edits.attention_calls import attention_changes
from vaeport.drift.edits.edit import Edit
from vaeport.drift.edits.functions import UNARY
from vaeport.drift.edits.values import others
from vaeport.drift.edits.watching import Call, Change, changed, parameter_names

_FAMILIES = (("add", "sub"), ("mul", "div"), ("mean", "sum"), ("repeat", "repeat_interleave"))
_ACTIVATIONS = {"silu", "relu", "gelu", "tanh", "sigmoid", "elu", "leaky_relu", "mish", "softplus", "hardswish", "selu"}
_CURVES = {"sin", "cos", "exp", "sqrt", "square", "rsqrt", "reciprocal", "log", "neg", "abs"}
_SPELT = {
    "truediv": "div",
    "rtruediv": "div",
    "radd": "add",
    "rmul": "mul",
    "iadd": "add",
    "imul": "mul",
    "rsub": "sub",
}
_CAUSES = {
    "eps": "eps",
    "num_groups": "groups",
    "scale": "attention scale",
    "is_causal": "attention mask",
    "attn_mask": "attention mask",
    "pad": "padding amount",
    "padding": "padding amount",
    "dilation": "dilation",
    "stride": "stride",
    "dim": "axis",
    "dims": "axis",
    "dim0": "axis",
    "dim1": "axis",
    "mode": "mode",
    "approximate": "activation",
}


def call_edits(calls: Sequence[Call], hints: Sequence[Any], *, operations: bool = False) -> Iterator[Edit]:
    """Each call with another constant, of its family's, with its operands in another order.

    operations  instead: each as another operation, or left out
    """
    groups: dict[tuple[Any, ...], list[Call]] = {}
    for call in calls:
        groups.setdefault(call.alike, []).append(call)
    for call in calls:
        alike = groups[call.alike]
        for cause, says, change in _changes(call, hints):
            if (cause == "operation") != operations:
                continue
            yield Edit(cause, f"{says} ({call.place})", call.module, changed([call], change))
            if len(alike) > 1 and call is alike[0]:
                yield Edit(cause, f"{says}, {len(alike)} times ({call.place})", call.module, changed(alike, change))


def _changes(call: Call, hints: Sequence[Any]) -> Iterator[tuple[str, str, Change]]:
    shown = call.name.strip("_")
    base = _SPELT.get(shown, shown)
    if base == "getitem":
        yield from _slices(call)
        return
    if base == "_weight_norm" or base == "weight_norm":
        return  # another axis ends the process
    names = parameter_names(call.function)
    for i, value in enumerate(call.args):
        name = names[i] if i < len(names) else f"argument {i}"
        if _listed(value) and 1 < len(value) <= 4:
            for order in list(permutations(range(len(value))))[1:]:
                yield "order", f"{shown}: its operands should be in the order {list(order)}", _with_list(i, order)
        if value is ... or _listed(value):
            continue
        for other in others(value, hints):
            says = f"{shown}: {name} {value!r} should be {other!r}"
            yield cause_of(base, name, value, other), says, _with_argument(i, other)
    for name, value in call.kwargs.items():
        if value is not ... and not _listed(value):
            for other in (*others(value, hints), *((None,) if value is not None else ())):
                says = f"{shown}: {name} {value!r} should be {other!r}"
                yield cause_of(base, name, value, other), says, _with_keyword(name, other)
    if call.function is F.scaled_dot_product_attention:
        yield from attention_changes()
    if 1 < call.results <= 4:
        for order in list(permutations(range(call.results)))[1:]:
            yield "order", f"{shown}: its results should be in the order {list(order)}", _permuted(order)
    if base in _ACTIVATIONS | _CURVES:
        for function, f in UNARY.items():
            cause = "activation" if base in _ACTIVATIONS else "operation"
            yield cause, f"{shown} should be {function}", lambda _, args, *__, f=f: f(args[0])
    for other in (o for family in _FAMILIES if base in family for o in family if o != base):
        cause = "repeat order" if "repeat" in other else "operation"
        yield cause, f"{shown} should be {other}", _of_name(other)
    if base in ("sub", "div", "matmul", "pow") and len(call.args) == 2:
        says = f"{shown}: its operands should change places"
        yield "operation", says, lambda f, args, kwargs, _: f(args[1], args[0], **kwargs)
    yield "operation", f"{shown} should not be there", lambda _, args, *__: args[0]
    if base in ("add", "mul", "sub") and len(call.args) == 2:
        yield "operation", f"{shown} should not be there", lambda _, args, *__: args[1]


def _listed(value: Any) -> bool:
    """A list of tensors."""
    return isinstance(value, list | tuple) and bool(value) and all(v is ... for v in value)


def cause_of(function: str, name: str, value: Any, other: Any) -> str:
    """The class of a wrong constant: what the parameter is for, or else the function."""
    if function == "pad" and isinstance(value, str):
        return "padding mode"
    if function == "interpolate" and name in ("mode", "scale_factor"):
        return "upsample mode"
    if name in _CAUSES and _CAUSES[name] != "mode":
        moved = isinstance(value, list | tuple) and isinstance(other, list | tuple) and sum(value) == sum(other)
        return "padding side" if _CAUSES[name] == "padding amount" and moved else _CAUSES[name]
    if function in ("permute", "transpose", "movedim", "flip", "swapaxes", "unflatten", "flatten"):
        return "axis"
    if function == "add" and isinstance(value, float) and abs(value) < 1e-2:
        return "eps"
    return {"narrow": "crop", "mul": "scale", "div": "scale", "pow": "operation", "chunk": "heads"}.get(
        function, "constant"
    )


def _slices(call: Call) -> Iterator[tuple[str, str, Change]]:
    """Parts of a tensor: from the other end, one more or less, in other steps, or all of it."""
    index = call.args[1] if len(call.args) > 1 else None
    parts = list(index) if isinstance(index, tuple) else [index]
    for i, part in enumerate(parts):
        if not isinstance(part, slice) or part == slice(None):
            continue
        start, stop, step = part.start, part.stop, part.step
        ways: list[Any] = [slice(None), slice(None, None, step)]
        if isinstance(start, int) and stop is None:
            ways += [
                slice(None, -start) if start else slice(None),
                slice(start + 1, None, step),
                slice(max(0, start - 1), None, step),
            ]
        if isinstance(stop, int) and start is None:
            ways += [
                slice(-stop, None) if stop else slice(None),
                slice(None, stop + 1, step),
                slice(None, stop - 1, step),
            ]
            ways += [_Last(stop)]
        if isinstance(start, int) and isinstance(stop, int):
            ways += [slice(start + n, stop + n, step) for n in (1, -1)]
        for way in ways:
            says = f"{part} of axis {i} should be {way}"
            yield "crop", says, _with_slice(i, way, isinstance(index, tuple))


class _Last:
    """As many from the end as a slice takes from the start."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __repr__(self) -> str:
        return f"the last {self.count}"


def _with_slice(i: int, way: Any, several: bool) -> Change:
    def change(f: Any, args: Any, kwargs: Any, _: Any) -> Any:
        index = list(args[1]) if several else [args[1]]
        size = args[0].shape[i] if Ellipsis not in index[:i] else args[0].shape[i - len(index)]
        index[i] = slice(size - way.count, None) if isinstance(way, _Last) else way
        return f(args[0], tuple(index) if several else index[0])

    return change


def _with_argument(i: int, value: Any) -> Change:
    return lambda f, args, kwargs, _: f(*args[:i], value, *args[i + 1 :], **kwargs)


def _with_keyword(name: str, value: Any) -> Change:
    return lambda f, args, kwargs, _: f(*args, **{**kwargs, name: value})


def _with_list(i: int, order: Sequence[int]) -> Change:
    return lambda f, args, kwargs, _: f(*args[:i], [args[i][n] for n in order], *args[i + 1 :], **kwargs)


def _permuted(order: Sequence[int]) -> Change:
    def change(f: Any, args: Any, kwargs: Any, _: Any) -> Any:
        out = f(*args, **kwargs)
        return [out[i] for i in order]

    return change


def _of_name(name: str) -> Change:
    def change(f: Any, args: Any, kwargs: Any, _: Any) -> Any:
        if name == "repeat":  # from repeat_interleave(x, times, dim)
            times = [1] * args[0].dim()
            times[args[2] if len(args) > 2 else kwargs["dim"]] = args[1]
            return args[0].repeat(*times)
        if name == "repeat_interleave":  # from repeat(*times)
            x, counts = args[0], args[1] if isinstance(args[1], list | tuple) else args[1:]
            for axis, n in enumerate(counts):
                x = x.repeat_interleave(n, axis) if n > 1 else x
            return x
        return getattr(torch, name)(*args, **kwargs)

    return change
