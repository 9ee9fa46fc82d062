"""Stubs: what stands in for modules that are missing.

A stub may be imported, subclassed, subscripted and used as a decorator; calling one raises, and so does building an
official class that a stub is a base of.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
from collections.abc import Callable, Mapping
from types import FunctionType, ModuleType
from typing import Any

from vaeport.errors import ProofError


class _Stub(type):
    """A name of a module that is missing."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Stub(name, (), {"__module__": f"{cls.__module__}.{cls.__name__}"})

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and not kwargs and isinstance(args[0], FunctionType | type):
            return args[0]
        # the official class itself, if it is one that a stub is a base of
        stub = next(base for base in cls.__mro__ if isinstance(base, _Stub) and base.__bases__ == (object,))
        full = f"{stub.__module__}.{stub.__qualname__}"
        raise ProofError(
            "the official code uses a module that is missing",
            where=full,
            fix=f"install it, or --stub {full}=module:object",
        )

    def __getitem__(cls, key: Any) -> Any:
        return cls


class StubModule(ModuleType):
    """A module that is missing: makes up its names, but for those that an object stands in for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        finder: Any = self.__spec__ and self.__spec__.loader
        target = finder.stubs.get(f"{self.__name__}.{name}")
        return finder.find(target) if target else _Stub(name, (), {"__module__": self.__name__})


class StubFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds every module below the names that are stubbed; the last finder that is asked.

    stubs   "module.name" -> path of the object that stands in for it, which `find` imports
    """

    def __init__(self, stubs: Mapping[str, str], find: Callable[[str], Any]) -> None:
        self.stubs, self.find = stubs, find
        self.roots: set[str] = set()

    def knows(self, name: str) -> bool:
        """Whether a module is stubbed."""
        return name.split(".")[0] in self.roots

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        """A spec for a stub."""
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if self.knows(name) else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """An empty module that makes up its names."""
        return StubModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run."""
