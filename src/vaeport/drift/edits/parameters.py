"""Edits of weights: what the map should have given, and how a weight may lie otherwise than it was meant."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, permutations
from typing import Any

import torch
from torch import Tensor, nn

from vaeport.drift.edits.edit import Edit, Scope, Undo, all_of
from vaeport.drift.edits.structure import exchanging

Transform = Callable[[Tensor], Tensor]
_TYPES = (torch.bfloat16, torch.float16, torch.float32)


def transforms(weight: Tensor) -> Iterator[tuple[str, str, Transform]]:
    """(cause, what is wrong, the weight as it should be) for a weight of this shape."""
    for a, b in combinations(range(weight.dim()), 2):
        if weight.shape[a] == weight.shape[b] > 1:
            yield "transposed weight", f"axes {a} and {b} should be exchanged", _transposed(a, b)
    spatial = [axis for axis in range(2, weight.dim()) if weight.shape[axis] > 1]
    for n in range(1, len(spatial) + 1):
        for axes in combinations(spatial, n):
            yield "flipped weight", f"axes {list(axes)} should run the other way", _flipped(axes)
    for axis in range(min(2, weight.dim())):
        yield from _orders(weight, axis)
    yield from VALUES


def _orders(weight: Tensor, axis: int) -> Iterator[tuple[str, str, Transform]]:
    n = weight.shape[axis]
    for parts in (2, 3):
        if n % parts == 0 and n > parts:
            for order in list(permutations(range(parts)))[1:]:
                says = f"its {parts} parts along axis {axis} should be in the order {list(order)}"
                yield "weight order", says, _reordered(axis, parts, order)
    for parts in range(2, n):
        if n % parts == 0:
            yield "weight order", f"axis {axis} should be interleaved in {parts}", _interleaved(axis, parts)
    if n > 1:
        yield "channel order", f"axis {axis} should run the other way", _flipped((axis,))


VALUES: tuple[tuple[str, str, Transform], ...] = (
    ("weight value", "1 should be added", lambda w: w + 1),
    ("weight value", "1 should be taken away", lambda w: w - 1),
    ("weight value", "the sign should be the other", torch.neg),
    ("weight value", "the exponential is meant", torch.exp),
    ("weight value", "the logarithm is meant", torch.log),
    ("weight value", "the inverse is meant", torch.reciprocal),
    ("weight value", "the square root is meant", torch.sqrt),
    ("weight value", "the square is meant", torch.square),
    ("weight value", "it should be zero", torch.zeros_like),
    ("weight value", "it should be one", torch.ones_like),
)


def parameter_edits(scope: Scope) -> Iterator[Edit]:
    """A weight, or a buffer, as it might be meant; all of a module alike; two of one shape exchanged."""
    held: list[tuple[str, str, Tensor]] = []
    for path, module in scope.own():
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        held += [(path, name, tensor) for name, tensor in own]
        rows = {name: t for name, t in own if t.dim() and own[0][1].dim() and len(t) == len(own[0][1])}
        if len(rows) > 1:
            for cause, says, transform in _orders(own[0][1], 0):
                change = f"{' and '.join(rows)}: {says}"
                yield Edit(cause, change, path, all_of(replacing(path, name, transform) for name in rows))
            for cause, says, transform in VALUES:
                change = f"{' and '.join(rows)}: {says}"
                yield Edit(cause, change, path, all_of(replacing(path, name, transform) for name in rows))
    for path, name, tensor in held:
        for cause, says, transform in transforms(tensor):
            yield Edit(cause, f"{name}: {says}", path, replacing(path, name, transform))
    for (path, name, one), (other, twin, two) in combinations(held, 2):
        if one.shape == two.shape:
            change = f"{name} and {other}.{twin} should be exchanged"
            yield Edit("swapped weights", change, path, _swapping((path, name), (other, twin)))


def weight_edits(model: nn.Module, expected: Callable[[str], Tensor], names: Sequence[str]) -> Iterator[Edit]:
    """For each module whose weights are not what the map makes of the reference's: what was done, and what mends it.

    An edit has to be applied before the next is asked for.
    """
    wrong = _wrong(model, expected, names)
    for parent, a, b in list(_exchanges(model, expected, wrong)):
        edit = Edit("order", f"{a} and {b} should be exchanged", parent, exchanging(parent, a, b))
        with edit.applied(model):
            left = _wrong(model, expected, names)
        if len(left) < len(wrong) - 1:
            wrong = left
            yield edit
    modules: dict[tuple[str, str], list[tuple[str, str]]] = {}
    state = _state(model)
    for name in wrong:
        path, _, leaf = name.rpartition(".")
        cause, says = _what_happened(expected(name), state.get(name), {n: expected(n) for n in wrong if n != name})
        modules.setdefault((path, cause), []).append((leaf, says))
    for (path, cause), leaves in modules.items():
        says = "; ".join(dict.fromkeys(f"{leaf}: {told}" for leaf, told in leaves))
        right = {leaf: expected(f"{path}.{leaf}".lstrip(".")) for leaf, _ in leaves}
        yield Edit(cause, says, path, all_of(replacing(path, leaf, _always(t)) for leaf, t in right.items()))


def _always(tensor: Tensor) -> Transform:
    return lambda _: tensor


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _wrong(model: nn.Module, expected: Callable[[str], Tensor], names: Sequence[str]) -> list[str]:
    state = _state(model)
    return [name for name in names if name not in state or not _same(state[name], expected(name))]


def _exchanges(
    model: nn.Module, expected: Callable[[str], Tensor], wrong: Sequence[str]
) -> Iterator[tuple[str, str, str]]:
    """Two modules of one parent that may stand in each other's place."""
    state, seen = _state(model), set()
    for one, two in combinations([name.split(".") for name in wrong], 2):
        n = next((i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), 0)
        place = ".".join(one[:n]), one[n], two[n]
        if one[n + 1 :] != two[n + 1 :] or n + 1 >= len(one) or place in seen:
            continue
        seen.add(place)
        found = state.get(".".join(one))
        if found is not None and _same(found, expected(".".join(two))):
            yield place


def _what_happened(right: Tensor, found: Tensor | None, wrong: dict[str, Tensor]) -> tuple[str, str]:
    if found is None:
        return "missing weight", "the reference has it, the native module does not"
    if found.shape != right.shape:
        return "weight shape", f"{list(found.shape)} should be {list(right.shape)}"
    for dtype in _TYPES:
        if _same(found, right.to(dtype)):
            return "rounded weight", f"was rounded to {str(dtype).removeprefix('torch.')}"
    for name, other in wrong.items():
        if _same(found, other):
            return "swapped weights", f"is {name}"
    for cause, says, transform in transforms(found):
        if _same(transform(found), right):
            return cause, says
    return "weight value", "is not what the map makes of the reference's"


def replacing(path: str, name: str, transform: Transform) -> Callable[[nn.Module], Undo]:
    """Another tensor in the place of a parameter or buffer, whose own memory stays as it is."""

    def apply(model: nn.Module) -> Undo:
        module = model.get_submodule(path)
        table: dict[str, Any] = module._buffers if name in module._buffers else module._parameters
        before: Any = table.get(name)
        made = transform(torch.empty(0) if before is None else before.detach())
        if before is not None:
            made = made.to(before)
        missing, shadow = name not in table, name in vars(module)
        hidden = vars(module).pop(name, None)
        table[name] = made if table is module._buffers else nn.Parameter(made.contiguous(), requires_grad=False)

        def undo() -> None:
            if missing:
                del table[name]
            else:
                table[name] = before
            if shadow:
                vars(module)[name] = hidden

        return undo

    return apply


def _swapping(one: tuple[str, str], two: tuple[str, str]) -> Callable[[nn.Module], Undo]:
    def apply(model: nn.Module) -> Undo:
        left, right = (getattr(model.get_submodule(path), name).detach() for path, name in (one, two))
        return all_of((replacing(*one, _always(right)), replacing(*two, _always(left))))(model)

    return apply


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a.double(), b.double())


def _transposed(a: int, b: int) -> Transform:
    return lambda w: w.transpose(a, b)


def _flipped(axes: tuple[int, ...]) -> Transform:
    return lambda w: w.flip(axes)


def _reordered(axis: int, parts: int, order: tuple[int, ...]) -> Transform:
    return lambda w: torch.cat([w.chunk(parts, axis)[i] for i in order], axis)


def _interleaved(axis: int, parts: int) -> Transform:
    return lambda w: w.unflatten(axis, (parts, -1)).transpose(axis, axis + 1).flatten(axis, axis + 1)
