"""Adapter files: Python functions that stand in for the way in which a reference is built, called or read.

A file may define `build(cls, arguments)`, `encode(module, x) -> {"mean": ...}`, `decode(module, z)` and
`normalize(module, z)`; what it leaves out is done as `vaeport.proof.calling` does it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from vaeport.errors import ProofError
from vaeport.proof.calling import Caller, Convention, Outputs

NAMES = ("build", "encode", "decode", "normalize")


def adapter(file: str | Path | None) -> dict[str, Callable[..., Any]]:
    """The functions of an adapter file; none without a file."""
    if file is None:
        return {}
    spec = importlib.util.spec_from_file_location("vaeport_adapter", file)
    if spec is None or spec.loader is None or not Path(file).exists():
        raise ProofError("no such adapter file", where=file)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
        raise ProofError("the adapter file does not run", where=file, found=found, fix="mend it") from error
    return {name: getattr(module, name) for name in NAMES if hasattr(module, name)}


def encode(module: Any, x: Tensor) -> Outputs:
    """What an adapter's own `encode` may start from."""
    return Caller(module, Convention(), {}).encode(x)


def decode(module: Any, z: Tensor) -> Tensor:
    """What an adapter's own `decode` may start from."""
    return Caller(module, Convention(), {}).decode(z)
