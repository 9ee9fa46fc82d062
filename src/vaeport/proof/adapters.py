"""How a reference is built, fed and read. An adapter file may replace any of these functions under the same name."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from vaeport.errors import ProofError

Outputs = dict[str, Tensor]


def import_object(path: str) -> Any:
    """`package.module:name` -> the object; ProofError says what is missing."""
    module, _, name = path.partition(":")
    if not name:
        raise ProofError("not an import path", expected="package.module:Class", found=path)
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        fix = "install it, or run it in its own environment with --reference-python"
        raise ProofError(f"cannot import {path}", found=f"{type(error).__name__}: {error}", fix=fix) from error


def build(cls: Any, arguments: Mapping[str, Any]) -> nn.Module:
    """The reference module: `cls.from_config(arguments)` where there is such a method, else `cls(**arguments)`."""
    from_config = getattr(cls, "from_config", None)
    try:
        module = from_config(dict(arguments)) if from_config is not None else cls(**arguments)
    except Exception as error:
        found, fix = (
            f"{type(error).__name__}: {error}",
            "give its arguments with --reference-args, or build it in an --adapter",
        )
        raise ProofError("the reference cannot be built", where=cls, found=found, fix=fix) from error
    if not isinstance(module, nn.Module):
        raise ProofError("the reference is not a torch module", found=type(module))
    return module


def encode(module: Any, x: Tensor) -> Outputs:
    """Moments, mean and standard deviation of `module.encode(x)`, as far as its result has them."""
    result = module.encode(x)
    posterior: Any = getattr(result, "latent_dist", result[0] if isinstance(result, tuple) else result)
    if isinstance(posterior, Tensor):
        return {"mean": posterior}
    out = {"mean": posterior.mode(), "std": posterior.std}
    if isinstance(getattr(posterior, "parameters", None), Tensor):
        out["moments"] = posterior.parameters
    return out


def decode(module: Any, z: Tensor) -> Tensor:
    """The decoded media."""
    result = module.decode(z)
    sample = getattr(result, "sample", result[0] if isinstance(result, tuple) else result)
    assert isinstance(sample, Tensor)
    return sample


def normalize(module: Any, z: Tensor) -> Tensor | None:
    """Latents as the pipelines of the reference hand them to their model, from its own `config`; None if it has none.

    With statistics per channel: (z - mean) * scale / std; else (z - shift) * scale.
    """
    config = getattr(module, "config", None)
    if config is None:
        return None

    mean, std, shift, scale = (
        getattr(config, name, None) for name in ("latents_mean", "latents_std", "shift_factor", "scaling_factor")
    )
    factor = 1.0 if scale is None else float(scale)
    if mean is None or std is None:
        return (z - float(shift or 0.0)) * factor
    view = (-1, *(1,) * (z.dim() - 2))
    centre = torch.tensor(mean, dtype=z.dtype, device=z.device).view(view)
    return (z - centre) * (factor / torch.tensor(std, dtype=z.dtype, device=z.device).view(view))


def adapter(file: str | Path | None) -> ModuleType:
    """This module, with the functions of an adapter file in place of its own."""
    if file is None:
        return sys.modules[__name__]
    spec = importlib.util.spec_from_file_location("vaeport_adapter", file)
    if spec is None or spec.loader is None or not Path(file).exists():
        raise ProofError("no such adapter file", where=file)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
        raise ProofError("the adapter file does not run", where=file, found=found, fix="mend it") from error
    for name in ("build", "encode", "decode", "normalize"):
        if not hasattr(module, name):
            setattr(module, name, globals()[name])
    return module
