"""Functions of one tensor that stand in for each other, and layers made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from vaeport.layers import Layer

Function = Callable[[Tensor], Tensor]

UNARY: Mapping[str, Function] = MappingProxyType(
    {
        "identity": lambda x: x.clone(),
        "silu": F.silu,
        "relu": F.relu,
        "gelu": F.gelu,
        "gelu (tanh)": lambda x: F.gelu(x, approximate="tanh"),
        "quick gelu": lambda x: x * torch.sigmoid(1.702 * x),
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
        "elu": F.elu,
        "leaky relu (0.2)": lambda x: F.leaky_relu(x, 0.2),
        "leaky relu (0.01)": F.leaky_relu,
        "mish": F.mish,
        "softplus": F.softplus,
        "hard swish": F.hardswish,
        "selu": F.selu,
        "sine": torch.sin,
        "cosine": torch.cos,
        "exponential": torch.exp,
        "negation": torch.neg,
        "square": torch.square,
        "square root": torch.sqrt,
        "reciprocal": torch.reciprocal,
        "absolute value": torch.abs,
    }
)


class Elementwise(Layer):
    """One of `UNARY` as a layer."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return UNARY[self.name](x)


def interleaved(parts: int) -> Function:
    """Channels 0 n 2n ... 1 n+1 ... of `parts` equal groups one after the other."""
    return lambda x: x.unflatten(1, (parts, -1)).transpose(1, 2).flatten(1, 2)
