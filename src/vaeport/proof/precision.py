"""Dispatch modes around a run: float64 throughout for the truth, and what was seen on the way."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

_CLAMPS = ("clamp", "clamp_", "hardtanh", "hardtanh_")
_WATCHERS = ("proof", "drift", "edits")
_SOFTMAX = (F.softmax, torch.softmax, Tensor.softmax)


class NotFloat64Error(Exception):
    """A floating-point tensor of another type appeared in a float64 run."""


class Float64Mode(TorchDispatchMode):
    """Rewrites requests for other floating types to float64, and refuses other floating tensors of several elements.

    promoted    "file:line" of each cast that was rewritten
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.promoted: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs one operation."""
        kwargs = dict(kwargs or {})
        asked = kwargs.get("dtype")
        if asked is not None and asked.is_floating_point and asked != torch.float64:
            kwargs["dtype"] = torch.float64
            self.promoted.add(place())
        out = func(*args, **kwargs)
        for value in tree_iter(out):
            if (
                isinstance(value, Tensor)
                and value.is_floating_point()
                and value.dtype != torch.float64
                and value.numel() > 1
            ):
                raise NotFloat64Error(f"{func} gave {value.dtype} {list(value.shape)} at {place()}")
        return out


def place() -> str:
    """file:line of the innermost frame outside torch and outside what watches the run."""
    frame = sys._getframe(2)
    while frame.f_back is not None and (
        "/torch/" in frame.f_code.co_filename or Path(frame.f_code.co_filename).parent.name in _WATCHERS
    ):
        frame = frame.f_back
    return f"{shown_file(frame.f_code.co_filename)}:{frame.f_lineno}"


def shown_file(file: str) -> str:
    """A source file as a verdict names it: from the installed package, the working folder, or its last names on."""
    path = Path(file)
    if "site-packages" in path.parts:
        return "/".join(path.parts[path.parts.index("site-packages") + 1 :])
    if "vaeport" in path.parts:
        return "/".join(path.parts[len(path.parts) - 1 - path.parts[::-1].index("vaeport") :])
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return "/".join(path.parts[-3:])


class ClampTap(TorchDispatchMode):
    """Remembers what clamps of floating tensors saw, in order."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs one operation."""
        if func.overloadpacket.__name__ not in _CLAMPS or not args[0].is_floating_point():
            return func(*args, **(kwargs or {}))
        before = args[0].detach().clone()
        after = func(*args, **(kwargs or {}))
        self.seen.append((before, after.detach().clone()))
        return after

    def raw(self, out: Tensor) -> Tensor:
        """`out` before its clamp: the input of the last clamp that gave it, else `out` itself.

        An output may be joined from several clamps, sample by sample or piece by piece in time.
        """
        for before, after in reversed(self.seen):
            if after.shape == out.shape and torch.equal(after.to(out.dtype), out):
                return before
        for axis in (0, 2):
            last: list[tuple[Tensor, Tensor]] = []
            for pair in reversed(self.seen):
                if pair[1].dim() != out.dim() or out.dim() <= axis:
                    break
                last.insert(0, pair)
                total = sum(after.shape[axis] for _, after in last)
                if total == out.shape[axis]:
                    befores, afters = ([p[side] for p in last] for side in (0, 1))
                    rest = {(*t.shape[:axis], *t.shape[axis + 1 :]) for t in (*afters, out)}
                    if len(rest) == 1 and torch.equal(torch.cat(afters, axis).to(out.dtype), out):
                        return torch.cat(befores, axis)
                if total >= out.shape[axis]:
                    break
        return out


@dataclass
class Health:
    """What tells a case that can fail from one that hides faults.

    rms         module path -> rms of its outputs, lowest and highest
    entropy     of each attention, as a share of log N (lowest, highest); None without attention
    """

    rms: dict[str, tuple[float, float]] = field(default_factory=dict)
    entropy: tuple[float, float] | None = None

    def saw_entropy(self, weights: Tensor) -> None:
        """Attention weights [..., queries, keys]; one key alone says nothing."""
        if weights.shape[-1] < 2:
            return
        share = (
            -(weights * weights.clamp_min(1e-300).log()).sum(-1).mean().item()
            / torch.tensor(float(weights.shape[-1])).log().item()
        )
        low, high = self.entropy or (share, share)
        self.entropy = min(low, share), max(high, share)

    def saw_output(self, name: str, y: Tensor) -> None:
        """An output of the module called `name`."""
        if y.numel():
            value = y.detach().double().pow(2).mean().sqrt().item()
            low, high = self.rms.get(name, (value, value))
            self.rms[name] = min(low, value), max(high, value)


class _EntropyMode(TorchFunctionMode):
    def __init__(self, health: Health) -> None:
        super().__init__()
        self.health = health

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is F.scaled_dot_product_attention:
            q, k = args[0], args[1]
            self.health.saw_entropy(((q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5).softmax(-1))
        elif func in _SOFTMAX and isinstance(out, Tensor):
            self.health.saw_entropy(out)
        return out


class watched(AbstractContextManager[Health]):  # noqa: N801
    """Records the health of a run: activations of every module without children, and attention entropies."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.health = Health()
        self.stack = ExitStack()

    def __enter__(self) -> Health:
        for name, child in self.module.named_modules():
            if next(child.children(), None) is None:
                handle = child.register_forward_hook(self._hook(name))
                self.stack.callback(handle.remove)
        self.stack.enter_context(_EntropyMode(self.health))
        return self.health

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stack.close()

    def _hook(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, out: Any) -> None:
            if isinstance(out, Tensor):
                self.health.saw_output(name, out)

        return hook
