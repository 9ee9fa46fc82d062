"""Imports of made-up sources, undone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vaeport.proof.importing import stubbed
from vaeport.proof.stubs import StubModule


@contextmanager
def untouched(folder: Path) -> Iterator[None]:
    """Leaves no stub behind and no module of this folder, and gives the names that they took back."""
    modules, path, finders, stubs = dict(sys.modules), list(sys.path), list(sys.meta_path), set(stubbed)
    try:
        yield
    finally:
        new = [(name, module) for name, module in sys.modules.items() if modules.get(name) is not module]
        for name in [n for n, module in new if isinstance(module, StubModule) or _lies_in(module, folder)]:
            del sys.modules[name]
            sys.modules.update({name: modules[name]} if name in modules else {})
        sys.path[:], sys.meta_path[:] = path, finders
        stubbed.clear()
        stubbed.update(stubs)


def _lies_in(module: Any, folder: Path) -> bool:
    held = getattr(module, "__dict__", {})
    places = [held.get("__file__"), *held.get("__path__", ())]
    return any(Path(place).is_relative_to(folder) for place in places if place)
