"""What is made of a weight once and kept, and when arithmetic that writes in place may stand in for a layer's own."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

Kind = TypeVar("Kind", bound=nn.Module)

LEAST = 2**15
"""elements of an input from which on it is worth while; oneDNN, quick and accurate, serves none below 20480"""


class Kept:
    """`of(*weights)` is `make(*weights)`, made anew after a load, a move, a change of type, or a change in place.

    make    weights -> tensors that a kernel multiplies with instead

    It remembers which memory it has read, and keeps that from being used again for other weights in the meantime.
    """

    def __init__(self, make: Callable[..., tuple[Tensor, ...]]) -> None:
        self.make = make
        self._read: tuple[Tensor, ...] = ()
        self._versions: tuple[int, ...] = ()
        self._made: tuple[Tensor, ...] = ()

    def of(self, *weights: Tensor) -> tuple[Tensor, ...]:
        """What `make` gives, without gradients; of weights made in inference mode, which tell no changes, each time."""
        if any(weight.is_inference() for weight in weights):
            return self.make(*weights)
        versions = tuple(weight._version for weight in weights)
        if versions != self._versions or not all(map(_same, self._read, weights)):
            with torch.no_grad():
                self._made = self.make(*weights)
            self._read, self._versions = tuple(weight.detach() for weight in weights), versions
        return self._made


def _same(read: Tensor, weight: Tensor) -> bool:
    return read.data_ptr() == weight.data_ptr() and (read.dtype, read.device) == (weight.dtype, weight.device)


def in_place_of(kind: type[Kind], layer: nn.Module) -> Kind:
    """A layer of another kind that has all that `layer` has, its very parameters among it."""
    twin = kind.__new__(kind)
    twin.__dict__.update(copy(layer).__dict__)
    return twin


def worthwhile(elements: int) -> bool:
    """Whether a convolution of so many numbers is large enough to be taken apart."""
    return elements >= LEAST


def served(x: Tensor, *weights: Tensor | None) -> bool:
    """Whether sums may be taken in another order and in place: float32 or float64, and nobody asks for gradients.

    In 16-bit types sums and differences of inputs or weights would be rounded, which the layer's own formula does not.
    """
    if x.dtype not in (torch.float32, torch.float64):
        return False
    return not (torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, *weights)))
