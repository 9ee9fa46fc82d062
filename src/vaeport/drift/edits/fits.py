"""Edits that are fitted: what has to be done to a tensor of the native side so that it is the reference's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import combinations, permutations
from typing import Any

import torch
from torch import Tensor, nn

from vaeport.drift.edits.edit import Edit, Scope, Undo
from vaeport.drift.edits.functions import UNARY, Function, interleaved
from vaeport.drift.edits.structure import behind, in_front
from vaeport.drift.hidden import copied

CLOSE = 1e-9


def fits(found: Tensor, wanted: Tensor) -> Iterator[tuple[str, str, Function]]:
    """(cause, what should be done, how) for all that make `wanted` of `found`, the simplest first."""
    for cause, says, function in _candidates(found, wanted):
        try:
            made = function(found)
        except (RuntimeError, IndexError):
            continue
        if made.shape == wanted.shape and close(made, wanted):
            yield cause, says, function


def close(a: Tensor, b: Tensor) -> bool:
    """Equal up to what a fit may lose."""
    return bool((a - b).abs().amax() <= CLOSE * b.abs().amax()) if a.numel() else True


def differs_at_edges(found: Tensor, wanted: Tensor) -> bool:
    """Both are equal but near the ends of their axes."""
    if found.shape != wanted.shape or found.dim() < 3:
        return False
    inner: Any = (..., *(slice(n // 3, n - n // 3) for n in found.shape[2:]))
    return close(found[inner], wanted[inner]) and not close(found, wanted)


def _candidates(found: Tensor, wanted: Tensor) -> Iterator[tuple[str, str, Function]]:
    if found.shape == wanted.shape:
        yield from _affine(found, wanted)
        for name, function in UNARY.items():
            yield "activation", f"{name} is missing", function
        yield from _channels(found, wanted)
        yield from _shifts(found)
    yield from _turned(found, wanted)


def _affine(found: Tensor, wanted: Tensor) -> Iterator[tuple[str, str, Function]]:
    factor = ((found * wanted).sum() / found.square().sum().clamp_min(1e-300)).item()
    yield "scale", f"it should be multiplied by {factor:.10g}", lambda x: x * factor
    a, b = _line(found.flatten(), wanted.flatten())
    yield "shift", f"{b.item():.10g} should be added", lambda x: x + b
    yield "value range", f"it should be multiplied by {a.item():.10g} and {b.item():.10g} added", lambda x: x * a + b
    if found.dim() > 2:
        rows = (found.transpose(0, 1).flatten(1), wanted.transpose(0, 1).flatten(1))
        scale, shift = (t.view(-1, *(1,) * (found.dim() - 2)) for t in _line(*rows))
        yield "normalisation", "each channel should be multiplied and shifted", lambda x: x * scale + shift


def _line(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Least squares of y = a x + b along the last axis."""
    mx, my = x.mean(-1, keepdim=True), y.mean(-1, keepdim=True)
    a = ((x - mx) * (y - my)).sum(-1) / (x - mx).square().sum(-1).clamp_min(1e-300)
    return a, my.squeeze(-1) - a * mx.squeeze(-1)


def _channels(found: Tensor, wanted: Tensor) -> Iterator[tuple[str, str, Function]]:
    """A permutation of the channels, found by their sums."""
    if found.dim() < 3:
        return
    ours, theirs = (_sums(t) for t in (found, wanted))
    distance = (ours[:, None] - theirs[None]).abs().sum(-1)
    chosen = []
    for column in distance.unbind(1):  # of channels that are equal, each once
        chosen.append(int(column.argmin()))
        distance[chosen[-1]] = float("inf")
    order = torch.tensor(chosen)
    shown = chosen if len(chosen) <= 16 else "another order"
    yield "channel order", f"its channels should be {shown}", lambda x: x[:, order]
    for parts in (2, 3, 4, 8, 16):
        if found.shape[1] % parts == 0 and found.shape[1] > parts:
            says = f"its channels should be interleaved in {parts}"
            yield "channel order", says, interleaved(parts)


def _sums(t: Tensor) -> Tensor:
    rows = t.transpose(0, 1).flatten(1)
    ramp = torch.arange(rows.shape[1], dtype=t.dtype) / rows.shape[1]
    return torch.stack((rows.sum(1), rows.square().sum(1), (rows * ramp).sum(1)), 1)


def _shifts(found: Tensor) -> Iterator[tuple[str, str, Function]]:
    for axis in range(2, found.dim()):
        for step in (1, -1, 2, -2, 3, -3, 4, -4):
            if abs(step) < found.shape[axis]:
                yield "shift", f"axis {axis} should be rolled by {step}", partial(torch.roll, shifts=step, dims=axis)
    for axes in (axes for n in (1, 2, 3) for axes in combinations(range(1, found.dim()), n)):
        yield "flip", f"axes {list(axes)} should run the other way", partial(torch.flip, dims=axes)


def _turned(found: Tensor, wanted: Tensor) -> Iterator[tuple[str, str, Function]]:
    """Axes in another order; ends cut off."""
    if found.dim() == wanted.dim() <= 5:
        for order in list(permutations(range(1, found.dim())))[1:]:
            says = f"its axes should be in the order {[0, *order]}"
            yield "layout", says, partial(torch.permute, dims=(0, *order))
        different = [a for a in range(found.dim()) if found.shape[a] != wanted.shape[a]]
        if len(different) == 1:
            axis, n = different[0], wanted.shape[different[0]]
            for start in range(min(8, max(0, found.shape[axis] - n + 1))):
                says = f"axis {axis} should be cut to {start}..{start + n}"
                yield "crop", says, _cut(axis, start, found.shape[axis] - n)


def _cut(axis: int, start: int, less: int) -> Function:
    return lambda x: x.narrow(axis, start, x.shape[axis] - less)


def fitted_edits(scope: Scope, at: str) -> Iterator[Edit]:
    """A function in front of a unit, or behind it.

    at      "before PATH", or "inside PATH", "after PATH", "around PATH"
    """
    word, _, path = at.partition(" ")
    if scope.found is None or scope.wanted is None:
        return
    hooked = in_front if word == "before" else behind
    for cause, says, function in fits(scope.found, scope.wanted):
        where = "what it is given" if word == "before" else "what it gives"
        yield Edit(cause, f"{where}: {says}", path, hooked(path, function))


def combined_edits(
    scope: Scope, at: str, sources: Sequence[tuple[str, str, Tensor]], *, simple: bool
) -> Iterator[Edit]:
    """wanted = a * found + b * others of the unit's tensors: a residual that is missing, or has another weight.

    sources     (module path, "in" or "out", its tensor)
    simple      what should be added to what is found; else all other combinations
    """
    word, _, path = at.partition(" ")
    found, wanted = scope.found, scope.wanted
    if found is None or wanted is None or found.shape != wanted.shape:
        return
    near = [source for source in sources if source[2].shape == wanted.shape][:8]
    for some in (*combinations(near, 1), *combinations(near, 2)):
        columns = torch.stack([found.flatten(), *(tensor.flatten() for _, _, tensor in some)], 1)
        factors = torch.linalg.lstsq(columns, wanted.flatten()[:, None]).solution.flatten()
        a, *rest = (round(v, 9) for v in factors.tolist())
        made = a * found + sum(b * tensor for b, (_, _, tensor) in zip(rest, some, strict=True))
        if simple != (a == 1.0) or not close(made, wanted) or min(abs(b) for b in rest) < CLOSE:
            continue
        parts = [f"{b:.6g} times what {_named(source)}" for b, source in zip(rest, some, strict=True)]
        cause = "residual missing" if (a, *rest) == (1.0, 1.0) else "residual scale"
        terms = [(other, end, b) for b, (other, end, _) in zip(rest, some, strict=True)]
        yield Edit(
            cause, f"should be {a:.6g} times itself plus {' plus '.join(parts)}", path, _combined(path, word, a, terms)
        )


def _named(source: tuple[str, str, Tensor]) -> str:
    return f"{source[0] or 'the model'} {'is given' if source[1] == 'in' else 'gives'}"


def _combined(path: str, word: str, a: float, terms: Sequence[tuple[str, str, float]]) -> Callable[[nn.Module], Undo]:
    def apply(model: nn.Module) -> Undo:
        held: dict[tuple[str, str], Tensor] = {}

        def keep(other: str, end: str) -> Undo:
            source = model.get_submodule(other)
            if end == "in":
                hook = lambda m, args: held.__setitem__((other, end), copied(args[0]))  # noqa: E731
                return source.register_forward_pre_hook(hook).remove
            return source.register_forward_hook(lambda m, args, out: held.__setitem__((other, end), copied(out))).remove

        def added(x: Tensor) -> Tensor:
            if any((other, end) not in held for other, end, _ in terms):
                return x  # they did not run: another run gives this one's result
            return a * x + sum(b * held.pop((other, end)) for other, end, b in terms)

        kept = [keep(other, end) for other, end, _ in terms]
        use = in_front(path, added)(model) if word == "before" else behind(path, added)(model)

        def undo() -> None:
            for remove in (*kept, use):
                remove()

        return undo

    return apply
