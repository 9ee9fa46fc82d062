"""Tensors of more elements than some of CUDA's kernels count.

Of PyTorch 2.11's, the one that mirrors edges refuses tensors that reach over 2^31 elements; layer norm and nearest
upsampling over three axes give wrong values over 2^32, in silence. The others of these layers were right.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

INDEXABLE = 2**31 - 1
"""the last number of 32 bits"""


def in_parts(function: Callable[[Tensor], Tensor], x: Tensor, elements: int) -> Tensor:
    """function(x), which has that many elements; piece by piece along the longest axis if they are too many.

    x [B, C, *axes]. A piece of x must give the same piece of the whole.
    """
    if elements <= INDEXABLE:
        return function(x)
    axis = max(range(2, x.dim()), key=lambda i: x.shape[i])
    size = max(1, x.shape[axis] * INDEXABLE // elements)
    return torch.cat([function(part) for part in x.split(size, axis)], axis)


def reach(x: Tensor) -> int:
    """Elements from the first to the last of a tensor, which may have gaps."""
    return 1 + sum((n - 1) * step for n, step in zip(x.shape, x.stride(), strict=True))
