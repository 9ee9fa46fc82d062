"""`trace`: runs a model once and writes down its `Flow`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

from vaeport.mapping.flow import Flow, Operand, Source, Use

_LINEAR = {"convolution", "convolution_overrideable", "mm", "addmm", "bmm", "baddbmm", "linear"}
_PRODUCTS = {"mm", "addmm", "bmm", "baddbmm"}
_NORMS = {"native_group_norm", "native_layer_norm", "native_batch_norm", "_native_batch_norm_legit"}
_SCALES = {"mul", "mul_", "div", "div_"}
_SHIFTS = {"add", "add_", "sub", "sub_", "rsub"}
_SOFTMAX = {"_softmax", "_safe_softmax"}
_FACTORIES = {
    *("zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like", "bernoulli"),
    *("new_zeros", "new_ones", "new_empty", "new_full", "new_empty_strided"),
}
_POINTWISE = {"clone", "_to_copy", "mul", "div", "mul_", "div_", "add", "sub", "silu", "silu_"}
# copies, joins and arithmetic, which say nothing about what an operation before them did
_SILENT = {"clone", "_to_copy", "copy_", "cat", "stack", "bmm", "mm", "index", "index_put_", "fill_", "zero_"} | (
    _SCALES | _SHIFTS
)


@dataclass
class _Weight:
    """A tensor made of weights alone; `index` follows the elements of one weight through views."""

    keys: tuple[str, ...]
    index: Tensor | None = None
    viewed: bool = True


@dataclass
class _Data:
    """What a storage holds: the uses it comes from, and the operations since."""

    sources: frozenset[Source] = frozenset()
    trail: tuple[str, ...] = ()


@dataclass
class _Channels:
    """The output channels of a use that a tensor holds, element by element."""

    use: int
    count: int
    index: Tensor


@dataclass
class Tracer(TorchDispatchMode):
    """Follows weights by identity, data by storage, and output channels by index tensors that share every view.

    values      add up statistics of every result
    """

    module: nn.Module
    values: bool = False
    flow: Flow = field(default_factory=Flow)

    def __post_init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._weights: Any = WeakIdKeyDictionary()
        self._channels: Any = WeakIdKeyDictionary()
        self._data: dict[int, _Data] = {}
        self._pins: dict[int, StorageWeakRef] = {}  # an address that is named is not given out again
        self._numbers: dict[tuple[str, ...], int] = {}
        for key, tensor in self.module.state_dict(keep_vars=True).items():
            self._weights[tensor] = _Weight((key,))
            self.flow.shapes[key] = tuple(tensor.shape)

    def enter(self, name: str, tensor: Tensor) -> Tensor:
        """Names an input of the model."""
        self._hold(tensor, _Data(frozenset((Source(name),))))
        return tensor

    def leave(self, name: str, outputs: Iterable[Tensor]) -> None:
        """Names an output of the model."""
        held = [self._of(t) for t in outputs]
        self.flow.outputs[name] = {Source(s.use) for data in held for s in data.sources}
        self.flow.trails[name] = list(dict.fromkeys(step for data in held for step in data.trail))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs one operation."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        inputs = [t for t in tree_iter((args, kwargs)) if isinstance(t, Tensor)]
        outputs = [t for t in tree_iter(out) if isinstance(t, Tensor)]
        if not outputs or name in _FACTORIES:
            self._forget(outputs)
            return out
        weights = [t for t in inputs if t in self._weights]
        data = [t for t in inputs if t not in self._weights and self._of(t).sources]
        alias = func._schema.returns[0].alias_info
        if weights and not data:
            self._derive(func, args, kwargs, weights, outputs, alias is not None and not alias.is_write)
        elif alias is not None and not alias.is_write:
            self._view(func, args, kwargs, data, outputs)
        elif weights:
            self._use(name, args, weights, data, outputs)
        elif data:
            self._pass(name, func, args, kwargs, data, outputs)
        else:
            self._forget(outputs)
        return out

    def _of(self, tensor: Tensor) -> _Data:
        """Where the data of a tensor comes from; of some channels of a use, if it holds no others."""
        held = self._data.get(_storage(tensor), _Data())
        channels = self._channels.get(tensor)
        if channels is None or not channels.index.numel():
            return held
        seen = _once(channels.index).unique()
        first, last = int(seen[0]), int(seen[-1]) + 1
        if len(seen) == channels.count or len(seen) != last - first:
            return held
        return _Data(frozenset((Source(channels.use, (first, last)),)), held.trail)

    def _forget(self, outputs: list[Tensor]) -> None:
        for tensor in outputs:
            self._data.pop(_storage(tensor), None)

    def _hold(self, tensor: Tensor, made: _Data) -> None:
        storage = tensor.untyped_storage()
        self._data[storage._cdata] = made
        self._pins.setdefault(storage._cdata, StorageWeakRef(storage))

    def _derive(
        self, func: Any, args: Any, kwargs: Any, weights: list[Tensor], outputs: list[Tensor], view: bool
    ) -> None:
        """Weights, views of weights, and what is computed from nothing else."""
        held = [self._weights[t] for t in weights]
        keys = tuple(dict.fromkeys(key for w in held for key in w.keys))
        name = func.overloadpacket.__name__
        copied = len(weights) == 1 and name in ("clone", "_to_copy", "detach", "alias", "_unsafe_view")
        index = None
        if len(weights) == 1 and held[0].viewed and (view or copied):
            followed = held[0].index
            if view or name == "_unsafe_view":
                followed = torch.arange(weights[0].numel()).view(weights[0].shape) if followed is None else followed
                moved = func(*tree_map_only(Tensor, lambda t: followed if t is weights[0] else t, args), **kwargs)
                for tensor, part in zip(outputs, _tensors(moved), strict=True):
                    self._weights[tensor] = _Weight(keys, part)
                return
            index = followed
        for tensor in outputs:
            self._weights[tensor] = _Weight(keys, index, copied and held[0].viewed)

    def _view(self, func: Any, args: Any, kwargs: Any, data: list[Tensor], outputs: list[Tensor]) -> None:
        """Data stays where it is; the channels go the same way."""
        channels = self._channels.get(data[0]) if len(data) == 1 else None
        if channels is not None:
            self._follow(channels, data[0], func, args, kwargs, outputs)

    def _follow(
        self, channels: _Channels, tensor: Tensor, func: Any, args: Any, kwargs: Any, outputs: list[Tensor]
    ) -> None:
        def apply(index: Tensor) -> Any:
            return func(*tree_map_only(Tensor, lambda t: index if t is tensor else t, args), **kwargs)

        try:
            moved = apply(channels.index)
        except RuntimeError:  # an expanded index has no view in which channels join the batch
            moved = apply(channels.index.contiguous())
        for out, part in zip(outputs, _tensors(moved), strict=True):
            self._channels[out] = _Channels(channels.use, channels.count, part)

    def _pass(self, name: str, func: Any, args: Any, kwargs: Any, data: list[Tensor], outputs: list[Tensor]) -> None:
        """An operation without weights."""
        held = [self._of(t) for t in data]
        softened = held
        if name in _SOFTMAX:
            softened = [_through_softmax(d) for d in held]
        elif name.startswith("_scaled_dot_product"):
            softened = [_through_softmax(self._of(args[0])), _through_softmax(self._of(args[1])), self._of(args[2])]
        trail = tuple(dict.fromkeys(step for d in softened for step in d.trail))
        if name not in _SILENT:
            trail = (*trail, _told(name, args))
        sources = frozenset().union(*(d.sources for d in softened))
        if name in ("cat", "stack"):
            sources = _rejoined(sources, self.flow)
        made = _Data(sources, tuple(dict.fromkeys(trail)))
        for tensor in outputs:
            self._write(tensor, made, name.endswith("_") and tensor.numel() < _held(tensor))
        if name in ("cat", "stack"):
            self._join(func, args, kwargs, outputs[0])
        channels = self._channels.get(data[0]) if len(data) == 1 and name in _POINTWISE | {"_unsafe_view"} else None
        if channels is None:
            return
        if name == "_unsafe_view":
            self._follow(channels, data[0], torch.ops.aten.reshape, (args[0], args[1]), {}, outputs)
        elif outputs[0].shape == channels.index.shape:
            self._channels[outputs[0]] = channels

    def _join(self, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
        """Channels of one use that are put together again, in whatever order, keep their numbers."""
        held = [self._channels.get(t) for t in args[0]]
        first = held[0]
        if first is not None and all(c is not None and c.use == first.use for c in held):
            index = func([c.index for c in held], *args[1:], **kwargs)
            self._channels[out] = _Channels(first.use, first.count, index)

    def _write(self, tensor: Tensor, made: _Data, partly: bool) -> None:
        before = self._data.get(_storage(tensor))
        if partly and before is not None:
            made = _Data(before.sources | made.sources, tuple(dict.fromkeys(before.trail + made.trail)))
        self._hold(tensor, made)
        if not partly:
            self._channels.pop(tensor, None)

    def _use(self, name: str, args: Any, weights: list[Tensor], data: list[Tensor], outputs: list[Tensor]) -> None:
        """An operation with weights and data."""
        if name in ("addmm", "baddbmm"):
            weights = [t for t in (args[2], args[1], args[0]) if t in self._weights]
        elif name in _LINEAR | _NORMS:
            weights = [t for t in tree_iter(args) if isinstance(t, Tensor) and t in self._weights]
        operands = tuple(self._operand(name, place, t, args) for place, t in enumerate(weights))
        number = self._numbers.setdefault(tuple(k for o in operands for k in o.keys), len(self.flow.uses))
        if number == len(self.flow.uses):
            self.flow.uses.append(Use(operands, attributes=_attributes(name, args)))
        use = self.flow.uses[number]
        held = [self._of(t) for t in data]
        use.inputs |= {source for d in held for source in d.sources}
        use.trail = list(dict.fromkeys([*use.trail, *(step for d in held for step in d.trail)]))
        use.lengths.append(data[0].shape[2] if data[0].dim() > 2 else 0)
        result = outputs[0]
        if self.values:
            _add_up(use, result)
        for tensor in outputs:
            self._write(tensor, _Data(frozenset((Source(number),))), False)
        if name in _LINEAR:
            # a product gives the channels last, or before the positions if the weight is its first factor
            axis = 1 if name.startswith("convolution") else -2 if args[-2] is weights[0] and name in _PRODUCTS else -1
            shape = [1] * result.dim()
            shape[axis] = count = result.shape[axis]
            self._channels[result] = _Channels(number, count, torch.arange(count).view(shape).expand(result.shape))
        elif len(data) == 1 and (channels := self._channels.get(data[0])) and result.shape == data[0].shape:
            self._channels[result] = _Channels(number, channels.count, channels.index)

    def _operand(self, name: str, place: int, tensor: Tensor, args: Any) -> Operand:
        weight = self._weights[tensor]
        kind = name.removesuffix("_")
        if name in _LINEAR:
            transposed = name.startswith("convolution") and bool(args[6])
            kind = "shift" if place else "transposed" if transposed else "linear"
        elif name in _NORMS:
            kind = "shift" if place else "scale"
        elif name in _SCALES | _SHIFTS:
            kind = "scale" if name in _SCALES else "shift"
        if not weight.viewed:
            return Operand(kind, weight.keys, ())
        # a product reads its second factor with input channels first
        across = kind == "linear" and name in _PRODUCTS and tensor is not args[-2]
        if name in ("bmm", "baddbmm") and (tensor.shape[0] == 1 or tensor.stride(0) == 0):
            # one matrix for the whole batch
            index = None if weight.index is None else weight.index[0]
            weight, tensor = _Weight(weight.keys, index), tensor[0]
        return _read(kind, weight, self.flow.shapes[weight.keys[0]], tensor, across)


def _read(kind: str, weight: _Weight, stored: tuple[int, ...], tensor: Tensor, across: bool) -> Operand:
    """How a view of one weight is read: as it is stored, transposed, or one block of rows of it."""
    matrix = tuple(n for n in stored if n != 1)
    if weight.index is None and not across:
        return Operand(kind, weight.keys, matrix)
    index = torch.arange(tensor.numel()).view(tensor.shape) if weight.index is None else weight.index
    order = (index.transpose(-1, -2) if across else index).reshape(-1)
    shape = tuple(n for n in (tensor.transpose(-1, -2) if across else tensor).shape if n != 1)
    first, count, whole = int(order[0]), len(order), math.prod(stored)
    if torch.equal(order, torch.arange(first, first + count)):
        if count == whole:
            return Operand(kind, weight.keys, matrix)
        if first % count == whole % count == 0:
            return Operand(kind, (f"{weight.keys[0]}#{first // count}/{whole // count}",), shape)
    turned = torch.arange(whole).view(matrix).transpose(0, -1).reshape(-1)
    return Operand(kind, weight.keys, shape, len(matrix) == 2 and torch.equal(order, turned))


def _once(index: Tensor) -> Tensor:
    """What an expanded tensor repeats, once."""
    return index[tuple(slice(0, 1) if step == 0 else slice(None) for step in index.stride())]


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _held(tensor: Tensor) -> int:
    return tensor.untyped_storage().nbytes() // tensor.element_size()


def _tensors(value: Any) -> list[Tensor]:
    return [t for t in tree_iter(value) if isinstance(t, Tensor)]


def _through_softmax(data: _Data) -> _Data:
    return _Data(frozenset(Source(s.use, s.part, True) for s in data.sources), data.trail)


def _rejoined(sources: frozenset[Source], flow: Flow) -> frozenset[Source]:
    """Blocks of channels that were only laid out anew are the whole again."""
    found = set(sources)
    for use, softmax in {(s.use, s.softmax) for s in sources if s.part is not None}:
        parts = {s for s in sources if (s.use, s.softmax) == (use, softmax) and s.part is not None}
        rows = flow.uses[int(use)].operands[0].shape[:1]
        if sum(s.part[1] - s.part[0] for s in parts if s.part) == sum(rows):
            found = found - parts | {Source(use, None, softmax)}
    return frozenset(found)


def _told(name: str, args: Any) -> str:
    """Name of an operation, with its numbers where they matter (padding, clamps, upsampling)."""
    if "pad" in name or "clamp" in name or "upsample" in name or "shuffle" in name:
        numbers = [a for a in args if not isinstance(a, Tensor)]
        return f"{name}({', '.join(map(str, numbers))})"
    return name


def _attributes(name: str, args: Any) -> dict[str, Any]:
    if name.startswith("convolution"):
        names = ("stride", "padding", "dilation", "transposed", "output_padding", "groups")
        return dict(zip(names, args[3:9], strict=True))
    if name == "native_group_norm":
        return {"groups": args[6], "eps": args[7]}
    if name == "native_layer_norm":
        return {"eps": args[4]}
    return {}


def _add_up(use: Use, result: Tensor) -> None:
    wide = result.detach().double()
    sums = [wide.numel(), wide.sum().item(), wide.square().sum().item(), wide.abs().pow(3).sum().item()]
    use.values = [a + b for a, b in zip(use.values or [0.0] * 4, sums, strict=True)]


@torch.no_grad()
def trace(
    module: nn.Module,
    *,
    calls: dict[str, tuple[str, Tensor, Callable[[Tensor], Any]]],
    values: bool = False,
) -> Flow:
    """The flow of `module`.

    calls   output name -> (input name, input, function), carried out one after the other
    """
    tracer = Tracer(module, values)
    for name, (origin, tensor, call) in calls.items():
        with tracer:
            outputs = _tensors(call(tracer.enter(origin, tensor)))
        tracer.leave(name, outputs)
    return tracer.flow
