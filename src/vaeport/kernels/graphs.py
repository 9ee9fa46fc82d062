"""CUDA graphs: the launches of a run are recorded once and replayed, where kernels end before the next is launched.

A graph holds its input, its output and all that lies between, in memory of its own, for as long as it is kept. That of
a piece of a stream holds the stream's state as well, so that from one piece to the next the piece alone is copied.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from vaeport.layers import Layer
from vaeport.layers.layer import State

_KEPT = 4
"""graphs of a VAE, of the shapes that were used last"""
_PLAIN = (type(None), bool, int, float, str)
Key = tuple[Any, ...]
Replay = Callable[[], Tensor]
"""runs what was recorded, and gives where its output lies"""


@dataclass
class _Graph:
    """A run of a layer, which is kept since another one may not get its identity; `replay`: once it is recorded.

    x, state    where its input and, in a stream, the tensors of its state lie; the state is replaced by the next one
    user        the stream whose state lies there
    too_large   there was no memory to record it
    """

    layer: Layer
    replay: Replay | None = None
    x: Tensor | None = None
    state: Sequence[Tensor] = ()
    user: _Held | None = None
    too_large: bool = False

    def run(self, x: Tensor) -> Tensor:
        """A copy of what it makes of x."""
        assert self.replay is not None
        assert self.x is not None
        self.x.copy_(x)
        return self.replay().clone()


@dataclass
class _Held:
    """The state of a stream in the memory of a graph, until that is wanted by another stream."""

    graph: _Graph
    likeness: Any
    tree: TreeSpec
    leaves: list[Any]
    """of the state; `_ELSEWHERE` stands for the tensors as long as the graph has them"""

    def state(self) -> State:
        """The state in memory of its own; the graph is free then."""
        if self.graph.user is self:
            rest = iter([tensor.clone() for tensor in self.graph.state])
            self.leaves = [next(rest) if leaf is _ELSEWHERE else leaf for leaf in self.leaves]
            self.graph.user = None
        return tree_unflatten(self.leaves, self.tree)


_ELSEWHERE = object()


class Graphs:
    """Runs layers, from the second time on, a layer and a shape that it has met by a graph."""

    def __reduce__(self) -> tuple[type[Graphs], tuple[()]]:
        """A copy begins without graphs: they belong to the layers that they were recorded of."""
        return type(self), ()

    def __init__(self) -> None:
        self._known: OrderedDict[Key, _Graph] = OrderedDict()

    def run(self, layer: Layer, x: Tensor) -> Tensor:
        """`layer(x)`, in a tensor of its own. As ever where gradients are wanted, and elsewhere than on CUDA."""
        if not self._serves(x) or _wants_gradients(x, *layer.parameters()):
            return _called(layer, x)
        key = (_identity(layer), _likeness(x))
        graph = self._met(key)
        if graph is None:
            self._meet(key, layer)
            return _called(layer, x)
        if not self._ready(graph, lambda: self._record(graph, x)):
            return _called(layer, x)
        return graph.run(x)

    def drop(self) -> bool:
        """Let go of all graphs and their memory; whether any was recorded."""
        recorded = any(graph.replay is not None for graph in self._known.values())
        self._known.clear()
        return recorded

    def stream(self, layer: Layer, pieces: Iterable[Tensor], axis: int) -> Iterator[Tensor]:
        """As `stream`. A piece runs by a graph if one like it has come before, in a state like the one that it left."""
        state: State = None
        identity: Key | None = None
        trained = _wants_gradients(*layer.parameters())
        try:
            for piece in pieces:
                if not piece.shape[axis] or trained or not self._serves(piece):
                    y, state = layer.step(piece if piece.shape[axis] else None, _own(state), False, axis)
                else:
                    identity = identity or (_identity(layer), axis)
                    y, state = self._step(layer, piece, state, axis, identity)
                if y is not None:
                    yield y
            yield from layer.flush(_own(state), axis)
        finally:
            if isinstance(state, _Held) and state.graph.user is state:
                state.graph.user = None

    def _step(self, layer: Layer, x: Tensor, state: State, axis: int, identity: Key) -> tuple[Tensor | None, State]:
        lies_there = isinstance(state, _Held) and state.graph.user is state
        if lies_there and state.likeness == _likeness(x) and not _wants_gradients(x):
            return state.graph.run(x), state
        leaves, tree = tree_flatten(_own(state))
        before = None if _wants_gradients(x, *leaves) else _likenesses(leaves), tree
        key = (identity, _likeness(x), *before)
        graph = None if before[0] is None else self._met(key)
        if graph is None or not self._ready(graph, lambda: self._record_step(graph, x, leaves, tree, axis)):
            y, after = layer.step(x, tree_unflatten(leaves, tree), False, axis)
            left, shape = tree_flatten(after)
            if graph is None and before[0] is not None and y is not None and (_likenesses(left), shape) == before:
                self._meet(key, layer)
            return y, after
        if graph.user is not None:
            graph.user.state()
        for static, tensor in zip(graph.state, filter(_moves, leaves), strict=True):
            static.copy_(tensor)
        kept = [_ELSEWHERE if _moves(leaf) else leaf for leaf in leaves]
        graph.user = _Held(graph, _likeness(x), tree, kept)
        return graph.run(x), graph.user

    def _ready(self, graph: _Graph, record: Callable[[], None]) -> bool:
        """Whether it is recorded, now if need be; where memory does not suffice, all others are given up."""
        if graph.replay is None and not graph.too_large:
            try:
                with torch.inference_mode(False), torch.no_grad():
                    record()
            except torch.OutOfMemoryError:
                graph.too_large, graph.x, graph.state = True, None, ()
            if graph.too_large:
                self._known = OrderedDict((key, other) for key, other in self._known.items() if other.replay is None)
        return graph.replay is not None

    def _record(self, graph: _Graph, x: Tensor) -> None:
        layer, static = graph.layer, x.clone()
        _beside(lambda: _called(layer, static), x)
        graph.x, graph.replay = static, self._recorded(lambda: _called(layer, static), x.device)

    def _record_step(self, graph: _Graph, x: Tensor, leaves: list[Any], tree: TreeSpec, axis: int) -> None:
        layer, static = graph.layer, x.clone()
        own, spare = ([leaf.clone() if _moves(leaf) else leaf for leaf in leaves] for _ in range(2))
        graph.x, graph.state = static, [leaf for leaf in own if _moves(leaf)]
        tensors = graph.state
        _beside(lambda: layer.step(static, tree_unflatten(spare, tree), False, axis), x)
        places = {tensor.untyped_storage().data_ptr() for tensor in tensors}

        def run() -> Tensor:
            y, after = layer.step(static, tree_unflatten(own, tree), False, axis)
            assert y is not None
            left = [leaf for leaf in tree_flatten(after)[0] if _moves(leaf)]
            # what the step left in the memory of the old state may lie where another tensor of it goes
            moved = [
                (old, new.clone() if new.untyped_storage().data_ptr() in places else new)
                for old, new in zip(tensors, left, strict=True)
                if (new.data_ptr(), new.stride()) != (old.data_ptr(), old.stride())
            ]
            y = y.clone() if y.untyped_storage().data_ptr() in places else y
            for old, new in moved:
                old.copy_(new)
            return y

        graph.replay = self._recorded(run, x.device)

    def _met(self, key: Key) -> _Graph | None:
        if key in self._known:
            self._known.move_to_end(key)
        return self._known.get(key)

    def _meet(self, key: Key, layer: Layer) -> None:
        """Kernels were compiled and chosen in the run that it has just had."""
        self._known[key] = _Graph(layer)
        while len(self._known) > _KEPT:
            self._known.popitem(last=False)

    def _serves(self, x: Tensor) -> bool:
        return x.is_cuda and not torch.cuda.is_current_stream_capturing() and not torch.is_autocast_enabled("cuda")

    def _recorded(self, run: Callable[[], Tensor], device: torch.device) -> Replay:
        graph = torch.cuda.CUDAGraph()
        side = torch.cuda.Stream(device)
        with (
            torch.cuda.device(device),
            torch.cuda.stream(torch.cuda.current_stream(device)),  # again in use even if the recording fails to end
            torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"),  # other threads pin memory
        ):
            y = run()

        def replay() -> Tensor:
            graph.replay()
            return y

        return replay


def _called(layer: Layer, x: Tensor) -> Tensor:
    y: Tensor = layer(x)
    return y


def _own(state: State) -> State:
    """The state in memory of its own."""
    return state.state() if isinstance(state, _Held) else state


def _wants_gradients(*values: Any) -> bool:
    return torch.is_grad_enabled() and any(isinstance(value, Tensor) and value.requires_grad for value in values)


def _identity(layer: Layer) -> Key:
    weights = tuple((p.data_ptr(), 0 if p.is_inference() else p._version) for p in layer.parameters())
    return id(layer), weights


def _moves(leaf: Any) -> bool:
    """Whether it is a tensor that another piece leaves another of; a weight stays."""
    return isinstance(leaf, Tensor) and not isinstance(leaf, Parameter)


def _likeness(x: Tensor) -> Key:
    return tuple(x.shape), x.stride(), x.dtype, x.device


def _likenesses(leaves: Sequence[Any]) -> Key | None:
    """What a state is like; None for one that holds what this does not know."""
    if not leaves or not all(isinstance(leaf, (Tensor, *_PLAIN)) for leaf in leaves):
        return None
    return tuple(
        # its strides are those of a copy in the graph's memory
        (tuple(leaf.shape), leaf.dtype, leaf.device)
        if _moves(leaf)
        else (type(leaf), leaf.data_ptr() if isinstance(leaf, Tensor) else leaf)
        for leaf in leaves
    )


def _beside(run: Callable[[], object], x: Tensor) -> None:
    """Runs it on another stream, as recording does, so that what libraries keep for each stream is there."""
    if not x.is_cuda:
        run()
        return
    side = torch.cuda.Stream(x.device)
    side.wait_stream(torch.cuda.current_stream(x.device))
    with torch.cuda.stream(side):
        run()
    torch.cuda.current_stream(x.device).wait_stream(side)
