"""Edits of types: which calls inside a module run in the model's own type and which in a wider one, and what it gives.

In float64 none of them does anything, so no function changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_iter, tree_map

from vaeport.drift.edits.edit import Edit, Undo, all_of
from vaeport.drift.edits.watching import Calls, Change, watching
from vaeport.proof.precision import place

CAUSE = "cast placement"
_MOST_CALLS, _MOST_CUTS = 1000, 24
_NAMED = {"float", "half", "bfloat16", "double"}
_CASTS = _NAMED | {"to", "type", "type_as"}
Apply = Callable[[nn.Module], Undo]
Wide = Callable[[torch.dtype], torch.dtype]
"""The model's own type -> the other one; what it makes of float64 is float64."""


@dataclass(frozen=True)
class TypedCall:
    """The n-th call inside a module; `weighs`: it brings a weight to what is no weight."""

    number: int
    name: str
    place: str
    weighs: bool


def typed_calls(model: nn.Module, path: str, run: Callable[[], Any]) -> list[TypedCall]:
    """The calls of a module's own code in its first run within `run`."""
    weights: list[Tensor] = [*model.get_submodule(path).parameters(recurse=False)]
    found: dict[int, TypedCall] = {}

    def spy(f: Any, args: Any, kwargs: Any, _: Any) -> Any:
        out = f(*args, **kwargs)
        given = [t for t in tree_iter((args, kwargs)) if isinstance(t, Tensor) and t.is_floating_point()]
        known = [any(t is w for w in weights) for t in given]
        number, name = mode.count - 1, f.__name__.strip("_")
        if given and known[0] and (all(known) or name in _CASTS):
            weights.extend(t for t in tree_iter(out) if isinstance(t, Tensor))
        weighs = any(known) and not all(known) and name not in _CASTS
        found.setdefault(number, TypedCall(number, name, place(), weighs))
        return out

    mode = Calls(path, frozenset(range(_MOST_CALLS)), spy)
    undo = watching(model, path, mode)
    try:
        run()
    finally:
        undo()
    return list(found.values())


def widened_to(wide: torch.dtype) -> Wide:
    """float32 and float64 are met from below; a narrower type is taken as it is."""
    narrow = torch.finfo(wide).bits < 32
    return lambda own: own if own == torch.float64 else wide if narrow else torch.promote_types(own, wide)


def cast_edits(path: str, calls: Sequence[TypedCall], wide: torch.dtype, *, outside: bool = True) -> Iterator[Edit]:
    """Changes of a module's types, the simplest first.

    wide        the type beside the model's own
    outside     of what it is given too, which is someone else's work
    """
    other, name = widened_to(wide), str(wide).removeprefix("torch.")
    every, n = [c.number for c in calls], len(calls)

    def edit(change: str, *parts: Apply) -> Edit:
        return Edit(CAUSE, change, path, all_of(parts))

    def of(own: Sequence[int], wider: Sequence[int] = ()) -> Apply:
        return _calls(path, frozenset(own), frozenset(wider), other)

    yield edit("its result should be cast back to the model's own type", _gives(path, None))
    yield edit(f"should run in the model's own type, without {name} inside", of(every), _gives(path, None))
    yield edit(f"should be computed in {name} and its result cast back", of([], every), _gives(path, None))
    weighing = [c for c in calls if c.weighs]
    rest = [c for c in reversed(calls) if not c.weighs]
    for call in [c for c in (*weighing, *rest) if 0 < calls.index(c) < n][:_MOST_CUTS]:
        at = f"`{call.name}`" + (", before the weight is applied" if call.weighs else "") + f" ({call.place})"
        before, after = every[: calls.index(call)], every[calls.index(call) :]
        up_to = f"should be computed in {name} and cast back before {at}"
        yield edit(up_to, of(after, before), _gives(path, None))
        yield edit(f"should be cast back to the model's own type before {at}", of(after), _gives(path, None))
        yield edit(f"should be cast to {name} from {at} on, and its result back", of(before, after), _gives(path, None))
    for call in (*weighing, *rest)[:_MOST_CUTS]:
        at = f"`{call.name}` ({call.place})"
        yield edit(f"{at} should run in the model's own type", of([call.number]))
        yield edit(f"{at} should run in {name} and its result be cast back", _single(path, call.number, other))
    yield edit(f"should give {name}", _gives(path, other))
    if outside:
        yield edit("what it is given should be cast to the model's own type", _takes(path, None))
        yield edit(f"what it is given should be cast to {name}", _takes(path, other))


def _calls(path: str, own: frozenset[int], wide: frozenset[int], other: Wide) -> Apply:
    def apply(model: nn.Module) -> Undo:
        weights = tuple(model.get_submodule(path).parameters(recurse=False))
        witness = _witness(model)

        def change(f: Any, args: Any, kwargs: Any, _: Any) -> Any:
            target = witness.dtype if mode.count - 1 in own else other(witness.dtype)
            return _in_type(f, args, kwargs, target, weights)

        mode = Calls(path, own | wide, change)
        return watching(model, path, mode)

    return apply


def _single(path: str, number: int, other: Wide) -> Apply:
    def apply(model: nn.Module) -> Undo:
        weights = tuple(model.get_submodule(path).parameters(recurse=False))
        witness = _witness(model)
        change: Change = lambda f, args, kwargs, _: _to(  # noqa: E731
            _in_type(f, args, kwargs, other(witness.dtype), weights), witness.dtype
        )
        return watching(model, path, Calls(path, frozenset([number]), change))

    return apply


def _in_type(f: Any, args: Any, kwargs: Any, target: torch.dtype, weights: Sequence[Tensor]) -> Any:
    """A call with all that floats in one type; a copy of a weight is the weight."""
    name = f.__name__
    if (name.endswith("_") and not name.endswith("__")) or "out" in kwargs:
        return f(*args, **kwargs)  # what it writes to is someone else's

    def cast(value: Any) -> Any:
        if isinstance(value, torch.dtype):
            return target if value.is_floating_point else value
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        same = (
            w for w in weights if w is not value and w.shape == value.shape and torch.equal(w.to(value.dtype), value)
        )
        return next(same, value).to(target)

    args, kwargs = tree_map(cast, (tuple(args), dict(kwargs)))
    return args[0] if name in _NAMED else _to(f(*args, **kwargs), target)


def _gives(path: str, other: Wide | None) -> Apply:
    def apply(model: nn.Module) -> Undo:
        witness = _witness(model)
        hook = lambda _, args, out: _to(out, witness.dtype if other is None else other(witness.dtype))  # noqa: E731
        return model.get_submodule(path).register_forward_hook(hook).remove

    return apply


def _takes(path: str, other: Wide | None) -> Apply:
    def apply(model: nn.Module) -> Undo:
        witness = _witness(model)
        hook = lambda _, args: _to(args, witness.dtype if other is None else other(witness.dtype))  # noqa: E731
        return model.get_submodule(path).register_forward_pre_hook(hook).remove

    return apply


def _witness(model: nn.Module) -> Tensor:
    """A weight; its type is the model's, now and when it is cast later."""
    return next(p for p in model.parameters() if p.is_floating_point())


def _to(value: Any, target: torch.dtype) -> Any:
    return tree_map(lambda t: t.to(target) if isinstance(t, Tensor) and t.is_floating_point() else t, value)
