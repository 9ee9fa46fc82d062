"""What the watchers compute themselves is no part of the run that they watch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

_depth = 0


@contextmanager
def hidden() -> Iterator[None]:
    """Within, no mode sees an operation, and none rewrites it."""
    global _depth
    _depth += 1
    try:
        with _disable_current_modes():
            yield
    finally:
        _depth -= 1


def copied(tensor: Tensor) -> Tensor:
    """A copy that no mode sees being made."""
    with hidden():
        return tensor.clone()


def is_hidden() -> bool:
    """Asked from within `hidden`."""
    return _depth > 0
