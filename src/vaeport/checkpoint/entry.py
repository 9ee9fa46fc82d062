"""What a checkpoint says about one tensor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Entry:
    """One tensor as the header of its `file` describes it; `nbytes` is the size of its values."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    nbytes: int
    file: Path

    @property
    def parameters(self) -> int:
        """Number of scalar values."""
        return math.prod(self.shape)

    @property
    def dtype_name(self) -> str:
        """`float32` for `torch.float32`."""
        return str(self.dtype).removeprefix("torch.")
