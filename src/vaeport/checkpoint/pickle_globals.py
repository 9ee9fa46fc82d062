"""Names the functions and classes that a pickle asks for, by reading its opcodes without running any."""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import torch

from vaeport.checkpoint.torch_zip import is_zip

_PICKLES_IN_A_LEGACY_FILE = 5  # magic number, protocol, system, object, storage keys
_STORES = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_LOADS = {"GET", "BINGET", "LONG_BINGET"}


def unsafe_globals(path: Path) -> list[str]:
    """Sorted dotted names that torch's restricted unpickler refuses; empty when there are none or none can be read."""
    if is_zip(path):
        try:
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
        except Exception:  # it knows the opcodes of torch.save alone; pickletools knows all
            return _harmful(_zipped_globals(path))
    try:
        with path.open("rb") as file:
            return _harmful([name for _ in range(_PICKLES_IN_A_LEGACY_FILE) for name in _globals(file)])
    except OSError:
        return []


def _zipped_globals(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            record = next((name for name in archive.namelist() if name.endswith("data.pkl")), None)
            if record is None:
                return []
            with archive.open(record) as file:
                return list(_globals(file))
    except Exception:  # a broken archive names nothing; the caller then reports it as broken
        return []


def _globals(file: IO[bytes]) -> Iterator[str]:
    """Names in one pickle, up to its end or to the first byte that is no pickle."""
    strings: list[str] = []
    memo: dict[int, str | None] = {}
    latest: str | None = None  # the string that the last opcode left on the stack
    try:
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name in ("GLOBAL", "INST"):
                yield str(argument).replace(" ", ".", 1)
            elif opcode.name == "STACK_GLOBAL" and len(strings) >= 2:
                yield f"{strings[-2]}.{strings[-1]}"
            if opcode.name in _STORES:
                memo[len(memo) if argument is None else int(argument)] = latest
                continue
            latest = argument if isinstance(argument, str) else None
            if opcode.name in _LOADS and isinstance(argument, int):
                latest = memo.get(argument)
            if latest is not None:
                strings.append(latest)
    except Exception:  # pickletools raises many kinds on malformed input
        return


def _harmful(names: list[str]) -> list[str]:
    """Leave out what torch.save itself writes for tensors."""
    return sorted({n for n in names if not n.startswith("torch.") and n != "collections.OrderedDict"})
