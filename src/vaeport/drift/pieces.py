"""A layer whose `step` is not its `forward`: the innermost one, on what it gets in a whole run."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vaeport.drift.forced import LIMIT, error_of
from vaeport.layers import Layer, run_in_pieces
from vaeport.proof.jobs import in_float64


@torch.no_grad()
def unlike_whole(layer: Layer, x: Tensor, axis: int, pieces: tuple[int, int]) -> tuple[str, float] | None:
    """(path of the innermost layer that gives something else in pieces, its error); None if `layer` does not."""
    with in_float64():
        error = _error(layer, x, axis, pieces)
        if error <= LIMIT:
            return None
        inputs: dict[str, Tensor] = {}

        def keep(path: str) -> object:
            def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
                inputs.setdefault(path, args[0].clone())

            return hook

        handles = [m.register_forward_pre_hook(keep(path)) for path, m in layer.named_modules()]  # type: ignore[arg-type]
        try:
            layer(x.clone())
        finally:
            for handle in handles:
                handle.remove()
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


def _error(layer: Layer, x: Tensor, axis: int, pieces: tuple[int, int]) -> float:
    try:
        return error_of(run_in_pieces(layer, x.clone(), axis, *pieces), layer(x.clone()))
    except Exception:  # a wrong port may raise anything
        return float("inf")
