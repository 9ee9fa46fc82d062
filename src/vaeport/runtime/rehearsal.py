"""A run on tensors without memory: how many bytes it would hold at its peak, and how long it would take.

The executor runs as always, on the meta device; every operation on the way is counted. What an operation needs beside
its tensors, and how fast it is, a `Profile` says, which is measured on the device.
"""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from vaeport.runtime.profile import Kernel, Profile

_ATEN = torch.ops.aten
_MOVES = (_ATEN.copy_.default, _ATEN._to_copy.default)


class Rehearsal(TorchDispatchMode):
    """Counts what runs within.

    device      whose tensors are counted: "meta", or another to count what a real run holds

    peak        bytes of all tensors made within that were alive at once, with what kernels need beside them
    seconds     sum over all operations
    flops       of convolutions, matrix products and attention
    moved       bytes between device and host
    """

    def __init__(self, profile: Profile, device: str = "meta") -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.profile, self.device = profile, device
        self.live = self.peak = self.flops = self.moved = 0
        self.seconds = 0.0
        self.kernels: set[Kernel] = set()
        self._holders: dict[int, int] = defaultdict(int)
        self._attention = _Attention(self)

    def __enter__(self) -> Rehearsal:
        super().__enter__()  # type: ignore[no-untyped-call]
        self._attention.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        self._attention.__exit__(*error)  # type: ignore[no-untyped-call]
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _MOVES and self.device == "meta" and (parked := self._parked(func, args, kwargs)) is not None:
            return parked
        out = func(*args, **kwargs)
        made = [t for t in tree_leaves(out) if isinstance(t, Tensor) and t.device.type == self.device]
        taken = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        for t in made:
            self._hold(t)
        if all(_is_view(t, taken) for t in made):
            return out
        kernel = Kernel.of(func, args)
        flops = int(flop_registry[func._overloadpacket](*args, **kwargs, out_val=out)) if kernel else 0
        self.count(kernel, flops, sum(t.nbytes for t in (*taken, *made)))
        return out

    def count(self, kernel: Kernel | None, flops: int, size: int) -> None:
        """One operation, which reads and writes `size` bytes."""
        if kernel is not None:
            self.kernels.add(kernel)
        self.flops += flops
        self.seconds += self.profile.seconds(kernel, flops, size)
        self.peak = max(self.peak, self.live + self.profile.workspace(kernel, size))

    def _hold(self, t: Tensor) -> None:
        storage = t.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if not self._holders[key]:
            self.live += size
            self.peak = max(self.peak, self.live)
        self._holders[key] += 1
        weakref.finalize(t, self._let_go, key, size)

    def _let_go(self, key: int, size: int) -> None:
        self._holders[key] -= 1
        if not self._holders[key]:
            del self._holders[key]
            self.live -= size

    def _parked(self, func: Any, args: Any, kwargs: Any) -> Any:
        """A move to host memory and back: a host tensor stands for what it would hold."""
        target = args[0] if func is _ATEN.copy_.default else None
        source = args[1] if target is not None else args[0]
        to = target.device.type if target is not None else torch.device(kwargs.get("device", source.device)).type
        if {to, source.device.type} != {"cpu", "meta"}:
            return None
        self.moved += source.nbytes
        self.seconds += source.nbytes / self.profile.transfer
        if target is not None:
            return target
        if to == "cpu":
            return torch.empty(source.shape, dtype=source.dtype, device="cpu")
        out = torch.empty(source.shape, dtype=source.dtype, device="meta")
        self._hold(out)
        return out


class _Attention(TorchFunctionMode):
    """Attention as one operation: without memory it would be taken apart into matrices of all pairs."""

    def __init__(self, rehearsal: Rehearsal) -> None:
        super().__init__()
        self.rehearsal = rehearsal

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.scaled_dot_product_attention or args[0].device.type != "meta":
            return func(*args, **(kwargs or {}))
        q, k, v = args[:3]
        y = q.new_empty((*q.shape[:-1], v.shape[-1]))
        flops = 2 * prod(q.shape[:-1]) * k.shape[-2] * (q.shape[-1] + v.shape[-1])
        self.rehearsal.count(Kernel("attention", (q.shape[-1],)), flops, sum(t.nbytes for t in (q, k, v, y)))
        return y


def _is_view(t: Tensor, taken: list[Tensor]) -> bool:
    storage = t.untyped_storage()._cdata
    return any(storage == other.untyped_storage()._cdata for other in taken)
