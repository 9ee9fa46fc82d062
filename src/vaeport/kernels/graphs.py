"""CUDA graphs: the launches of a run are recorded once and replayed, where kernels end before the next is launched.

A graph holds its input, its output and all that lies between, in memory of its own, for as long as it is kept.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vaeport.layers import Layer

_KEPT = 4
"""graphs of a VAE, of the shapes that were used last"""


@dataclass(frozen=True)
class _Graph:
    """layer: kept, since another one may not get its identity."""

    layer: Layer
    recorded: torch.cuda.CUDAGraph | None
    x: Tensor | None = None
    y: Tensor | None = None

    def replay(self, x: Tensor) -> Tensor:
        """A copy of what it makes of x."""
        assert self.recorded is not None
        assert self.x is not None
        assert self.y is not None
        self.x.copy_(x)
        self.recorded.replay()
        return self.y.clone()


class Graphs:
    """Runs layers; from the second time on, a layer and a shape that it has met by a graph."""

    def __reduce__(self) -> tuple[type[Graphs], tuple[()]]:
        """A copy begins without graphs: they belong to the layers that they were recorded of."""
        return Graphs, ()

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[Any, ...], _Graph] = OrderedDict()

    def run(self, layer: Layer, x: Tensor) -> Tensor:
        """`layer(x)`, in a tensor of its own. Without gradients; with them, or elsewhere than on CUDA, as ever."""
        if not x.is_cuda or torch.is_grad_enabled() or torch.cuda.is_current_stream_capturing():
            return _called(layer, x)
        weights = tuple((p.data_ptr(), p._version) for p in layer.parameters() if not p.is_inference())
        key = (id(layer), tuple(x.shape), x.stride(), x.dtype, x.device, weights)
        if key not in self._known:
            self._known[key] = _Graph(layer, None)  # kernels are compiled and chosen in the first run
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)
            return _called(layer, x)
        graph = self._known[key]
        if graph.recorded is None:
            graph = self._known[key] = _recorded(layer, x)
        self._known.move_to_end(key)
        return graph.replay(x)


def _called(layer: Layer, x: Tensor) -> Tensor:
    y: Tensor = layer(x)
    return y


def _recorded(layer: Layer, x: Tensor) -> _Graph:
    static, graph = x.clone(), torch.cuda.CUDAGraph()
    side = torch.cuda.Stream(x.device)
    side.wait_stream(torch.cuda.current_stream(x.device))
    with torch.cuda.stream(side):
        _called(layer, static)
    torch.cuda.current_stream(x.device).wait_stream(side)
    with torch.cuda.graph(graph):
        y = _called(layer, static)
    return _Graph(layer, graph, static, y)
