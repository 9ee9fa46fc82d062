"""How large a tensor a plan may make on CUDA: no larger than a 32-bit index counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vaeport.runtime.plan import Cost

INDEXABLE = 2**31 - 1
"""elements; over as many, or twice as many, some kernels of PyTorch refuse, and others are wrong in silence"""
NO_BUDGET = 2**62
"""a peak that fits into no budget"""
_MOVES = {f"aten::{name}" for name in ("copy_", "empty", "empty_like", "empty_strided", "new_empty")}


class Largest(TorchDispatchMode):
    """`elements` of the largest tensor that an operation computes within; moving and looking at tensors are none."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not (func.is_view or func._schema.name in _MOVES):
            self.elements = max(self.elements, *(t.numel() for t in tree_leaves(out) if isinstance(t, Tensor)), 0)
        return out


def indexable(foretell: Callable[[], Cost], device: torch.device) -> Cost:
    """What a run without memory foretells; no budget is enough where CUDA's kernels could not count a tensor."""
    with Largest() as largest:
        cost = foretell()
    over = device.type == "cuda" and largest.elements > INDEXABLE
    return replace(cost, peak=NO_BUDGET) if over else cost
