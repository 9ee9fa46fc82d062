"""Gate D's evidence: in which types a model reads, uses its parameters, accumulates and writes, module by module."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

Signature = dict[str, list[str]]
"""Row name -> sorted type names; rows: "module: input|accumulation|output", "parameter: stored|used", "free kind"."""

_ACCUMULATING = {
    "matmul": ("addbmm", "addmm", "baddbmm", "bmm", "linear", "mm"),
    "convolution": ("convolution", "convolution_overrideable", "mkldnn_convolution"),
    "reduction": ("linalg_vector_norm", "mean", "norm", "std", "sum", "var", "var_mean"),
    "normalisation": ("native_group_norm", "native_layer_norm"),
    "attention": (
        "_safe_softmax",
        "_softmax",
        "_scaled_dot_product_attention_math",
        "_scaled_dot_product_cudnn_attention",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_flash_attention_for_cpu",
    ),
    "upsample": tuple(
        f"{name}{rank}d" for name in ("upsample_nearest", "_upsample_nearest_exact") for rank in (1, 2, 3)
    ),
}
_KINDS = {operation: kind for kind, operations in _ACCUMULATING.items() for operation in operations}
_FREE = {"attention", "upsample"}


class DtypeRecorder(TorchDispatchMode):
    """Watches one run of `module`; rows are named by the module paths and parameter names in `paths`."""

    def __init__(self, module: nn.Module, paths: Iterable[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rows: dict[str, set[str]] = defaultdict(set)
        self._stack: list[str] = []
        self._derived: dict[int, tuple[Tensor, frozenset[str]]] = {}
        self._handles: list[Any] = []
        modules = dict(module.named_modules())
        for name, parameter in module.named_parameters():
            self._derived[id(parameter)] = parameter, frozenset((name,))
            self.rows[f"{name}: stored"].add(_name(parameter))
        for path in paths:
            self._handles.append(modules[path].register_forward_pre_hook(self._enter(path)))
            self._handles.append(modules[path].register_forward_hook(self._leave(path), always_call=True))

    def signature(self) -> Signature:
        """What was seen; removes the hooks."""
        for handle in self._handles:
            handle.remove()
        self._derived.clear()
        return {row: sorted(types) for row, types in sorted(self.rows.items())}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs one operation and attributes its types."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        inputs = [a for a in tree_iter((args, kwargs)) if isinstance(a, Tensor) and a.is_floating_point()]
        sources = [self._derived.get(id(a)) for a in inputs]
        if inputs and all(s is not None for s in sources):
            names = frozenset(n for s in sources if s for n in s[1])
            for value in tree_iter(out):
                if isinstance(value, Tensor):
                    self._derived[id(value)] = value, names
            return out
        result = next((v for v in tree_iter(out) if isinstance(v, Tensor) and v.is_floating_point()), None)
        for source in sources:
            if source is not None and result is not None:
                for name in source[1]:
                    self.rows[f"{name}: used"].add(_name(result))
        kind = _KINDS.get(func.overloadpacket.__name__)
        if kind and inputs:
            types_seen = {_name(a) for a in inputs}
            if self._stack:
                self.rows[f"{self._stack[-1]}: accumulation"] |= types_seen
            elif kind in _FREE:
                self.rows[f"free {kind}"] |= types_seen
        return out

    def _enter(self, path: str) -> Any:
        def hook(module: nn.Module, args: Any) -> None:
            self.rows[f"{path}: input"] |= {_name(a) for a in args if isinstance(a, Tensor)}
            self._stack.append(path)

        return hook

    def _leave(self, path: str) -> Any:
        def hook(module: nn.Module, args: Any, out: Any) -> None:
            if isinstance(out, Tensor):
                self.rows[f"{path}: output"].add(_name(out))
            self._stack.pop()

        return hook


def _name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


@torch.no_grad()
def record(module: nn.Module, paths: Iterable[str], run: Any) -> Signature:
    """The signature of `run()`."""
    recorder = DtypeRecorder(module, paths)
    try:
        with recorder:
            run()
    finally:
        signature = recorder.signature()
    return signature
