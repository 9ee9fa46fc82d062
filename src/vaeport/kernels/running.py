"""`running`: the layer tree that a half of a VAE runs as on a device, in a type, at a level of precision."""

from __future__ import annotations

import importlib.util
import warnings
from functools import cache
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch

from vaeport.layers import Layer

Precision = Literal["exact", "high"]
"""exact: the layers as they are written. high: sums in another order, rounded no more often than theirs"""
_KNOWN: WeakKeyDictionary[Layer, dict[Any, tuple[tuple[int, ...], Layer | None]]] = WeakKeyDictionary()
_HALF = (torch.bfloat16, torch.float16)


def running(half: Layer, device: torch.device, dtype: torch.dtype, precision: Precision) -> Layer:
    """The tree, kept as long as the half's layers and parameters are the same; the half itself where nothing is gained.

    Itself, too, while something watches its layers (hooks), trains its parameters, or compiles it.
    """
    way = "plain" if precision == "exact" or torch.compiler.is_compiling() else way_of(device, dtype)
    if way == "plain":
        return half
    seen = fingerprint(half)
    if seen is None:
        return half
    known = _KNOWN.setdefault(half, {})
    if way not in known or known[way][0] != seen:
        from vaeport.kernels.rewrite import faster

        tree = faster(half, way)
        known[way] = (seen, None if tree is half else tree)
    return known[way][1] or half


Way = Literal["plain", "cpu", "hopper"]


def way_of(device: torch.device, dtype: torch.dtype) -> Way:
    """What a device can do with a type; a RuntimeWarning says what is missing on one that could do more."""
    if device.type == "cpu":
        return "cpu" if dtype is torch.float32 else "plain"
    if device.type != "cuda" or torch.version.hip or dtype not in _HALF:
        return "plain"
    if torch.cuda.get_device_capability(device) != (9, 0):
        return "plain"
    return "plain" if _lacks("triton") or _lacks("cuda.bindings.nvrtc") else "hopper"


@cache
def _lacks(module: str) -> bool:
    try:
        lacking = importlib.util.find_spec(module) is None
    except ModuleNotFoundError:
        lacking = True
    if lacking:
        name = module.split(".")[0]
        package = {"cuda": "cuda-bindings"}.get(name, name)
        warnings.warn(f"kernels are off without {package}: pip install {package}", RuntimeWarning, stacklevel=4)
    return lacking


def fingerprint(half: Layer) -> tuple[int, ...] | None:
    """Identities of all layers and parameters; None where the tree has to run as it is."""
    found: list[int] = []
    for module in half.modules():
        if module._forward_hooks or module._forward_pre_hooks:
            return None
        found.append(id(module))
        for parameter in module._parameters.values():
            if parameter is not None and parameter.requires_grad and torch.is_grad_enabled():
                return None
            found.append(id(parameter))
    return tuple(found)
