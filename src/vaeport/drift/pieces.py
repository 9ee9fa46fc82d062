"""A layer whose `step` is not its `forward`: the innermost one, on what it gets in a whole run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vaeport.drift.hidden import copied
from vaeport.drift.truth import LIMIT, error_of
from vaeport.layers import Layer, run_in_pieces, stream
from vaeport.proof.jobs import in_float64
from vaeport.proof.noise import drawn_noise


@torch.no_grad()
def unlike_whole(layer: Layer, x: Tensor, axis: int, pieces: tuple[int, int]) -> tuple[str, float] | None:
    """(path of the innermost layer that gives something else in pieces, its error); None if `layer` does not.

    The path is "" for `layer` itself, and where all layers are right and the pieces are put together wrongly.
    """
    with in_float64():
        error = _error(layer, x, axis, pieces)
        if error <= LIMIT:
            return None
        joined = _error(layer, x, axis, pieces, _joined) <= LIMIT
        inputs: dict[str, Tensor] = {}

        def keep(path: str) -> Any:
            def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
                inputs.setdefault(path, copied(args[0]))

            return hook

        handles = [m.register_forward_pre_hook(keep(path)) for path, m in layer.named_modules()]
        try:
            with drawn_noise():
                layer(x.clone())
        finally:
            for handle in handles:
                handle.remove()
        if joined:  # each layer is right: how the pieces are put together
            return _of_another_length(layer, inputs, axis), error
        worst = "", error
        for path, y in inputs.items():
            child = layer.get_submodule(path)
            inside = path.startswith(f"{worst[0]}.") if worst[0] else bool(path)
            if not (inside and isinstance(child, Layer) and y.dim() == x.dim()):
                continue
            for cut in ((1, 1), (1, 4), (2, 3), pieces):
                error = _error(child, y, axis, cut)
                if error > LIMIT:
                    worst = path, error
                    break
        return worst


def _of_another_length(layer: Layer, inputs: Mapping[str, Tensor], axis: int) -> str:
    """The innermost layer that does not give as much as it says; "" if all do."""
    found = ""
    for path, x in inputs.items():
        child = layer.get_submodule(path)
        inside = path.startswith(f"{found}.") if found else bool(path)
        if inside and isinstance(child, Layer) and x.dim() == inputs[""].dim():
            with drawn_noise():
                given = child(x.clone()).shape[axis]
            found = found if child.length(x.shape[axis], axis) == given else path
    return found


Run = Callable[[Layer, Tensor, int, int, int], Tensor]


def _joined(layer: Layer, x: Tensor, axis: int, first: int, rest: int) -> Tensor:
    """As `run_in_pieces`, but all pieces are kept."""
    n = x.shape[axis]
    cuts = [min(first, n), *[min(rest, n - a) for a in range(first, n, rest)]]
    return torch.cat(list(stream(layer, x.split(cuts, axis), axis)), axis)


def _error(layer: Layer, x: Tensor, axis: int, pieces: tuple[int, int], run: Run = run_in_pieces) -> float:
    try:
        with drawn_noise():
            found = run(layer, x.clone(), axis, *pieces)
        with drawn_noise():
            return error_of(found, layer(x.clone()))
    except Exception:  # a wrong port may raise anything
        return float("inf")
