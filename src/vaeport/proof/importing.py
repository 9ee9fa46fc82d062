"""Importing official code as it stands: from an import path, or from a file of a source folder.

A file is imported without running the `__init__.py` of the packages around it, which often import a whole application.
Modules that are missing are replaced by stubs, one after the other as the import asks for them; imports that the code
itself guards with `try` stay failed. A stub may be imported, subclassed and used as a decorator; calling one raises.
`stubs` may name an object that stands in: {"pytorch_lightning.LightningModule": "torch.nn:Module"}.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from vaeport.errors import ProofError

MOST_STUBS = 64
stubbed: set[str] = set()
"""Modules that were replaced by stubs in this process."""


def import_object(path: str, stubs: Mapping[str, str] | None = None) -> Any:
    """`package.module:name` or `folder/file.py:name` -> the object; ProofError says why it cannot be had."""
    place, _, name = path.rpartition(":")
    if not place or not name:
        raise ProofError(
            "not an import path", expected="package.module:Class or folder/file.py:Class", found=path or "nothing"
        )
    module = _from_file(Path(place), stubs or {}) if place.endswith(".py") else _from_path(place, path)
    try:
        return getattr(module, name)
    except AttributeError:
        known = [
            n for n, value in vars(module).items() if isinstance(value, type) and value.__module__ == module.__name__
        ]
        raise ProofError(
            f"cannot import {path}",
            found=f"{place} has no `{name}`; its own classes: {', '.join(known) or 'none'}",
            fix="name one that it has",
        ) from None


def _from_path(name: str, path: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (ImportError, AttributeError) as error:
        fix = "install it, or run it in its own environment with --reference-python (--official-python of `port`)"
        raise ProofError(f"cannot import {path}", found=f"{type(error).__name__}: {error}", fix=fix) from error


def _from_file(file: Path, stubs: Mapping[str, str]) -> ModuleType:
    if not file.is_file():
        raise ProofError("no such source file", where=file, fix="give the file that defines the VAE's class")
    file = file.resolve()
    packages: list[Path] = []
    while ((packages[-1] if packages else file).parent / "__init__.py").exists():
        packages.append((packages[-1] if packages else file).parent)
    root = (packages[-1] if packages else file).parent
    name = ".".join([*(p.name for p in reversed(packages)), file.stem])
    if name in sys.modules and getattr(sys.modules[name], "__file__", None) == str(file):
        return sys.modules[name]
    finder = _StubFinder(stubs)
    sys.meta_path.append(finder)
    before, roots = set(sys.modules), [root]
    for _ in range(MOST_STUBS):
        try:
            return _attempt(name, file, roots, packages)
        except ModuleNotFoundError as error:
            missing = error.name or ""
            if not missing or missing.split(".")[0] in {p.name for p in packages} or finder.knows(missing):
                raise _unimportable(file, error) from error
            above = [folder.parent for folder in file.parents if folder.name == missing.split(".")[0]]
            if above and above[0] not in roots:
                roots.append(above[0])  # a package without __init__.py, which the file itself lies in
            else:
                finder.roots.add(missing.split(".")[0])
                stubbed.add(missing)
        except (Exception, SystemExit) as error:
            raise _unimportable(file, error) from error
        for module in set(sys.modules) - before:
            if (sys.modules[module].__dict__.get("__file__") or str(root)).startswith(str(roots[-1])):
                del sys.modules[module]
    raise ProofError("the official code imports too many modules that are missing", where=file, found=sorted(stubbed))


def _attempt(name: str, file: Path, roots: Sequence[Path], packages: Sequence[Path]) -> ModuleType:
    """Imports with bare packages around the file, so that their `__init__.py` do not run."""
    # they stay on the path: official code imports more when it is built
    sys.path[:0] = [str(root) for root in roots if str(root) not in sys.path]
    bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        for package in reversed(packages):
            dotted = ".".join(package.relative_to(roots[0]).parts)
            if dotted not in sys.modules:
                bare = ModuleType(dotted)
                bare.__path__ = [str(package)]
                sys.modules[dotted] = bare
        with contextlib.redirect_stdout(sys.stderr):
            if packages:
                return importlib.import_module(name)
            spec = importlib.util.spec_from_file_location(name, file)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module
            spec.loader.exec_module(module)
            return module
    finally:
        sys.dont_write_bytecode = bytecode


def _unimportable(file: Path, error: BaseException) -> ProofError:
    trace = error.__traceback__
    place = str(file)
    while trace is not None:
        code = trace.tb_frame.f_code.co_filename
        if Path(code).is_relative_to(file.parent):
            place = f"{code}:{trace.tb_lineno}"
        trace = trace.tb_next
    cuda = "cuda" in str(error).lower() or "nvidia" in str(error).lower()
    fix = (
        "it needs CUDA to be imported: run it on such a machine, or stub the module that asks (--stub NAME)"
        if cuda
        else "run it in its own environment with --official-python, or give what it asks for: --stub NAME=module:object"
    )
    kind = "exits" if isinstance(error, SystemExit) else f"{type(error).__name__}: {error}"
    return ProofError("the official code does not import", where=place, found=kind, fix=fix)


class _Stub(type):
    """A name of a module that is missing: may be imported, subclassed and used as a decorator, not called."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Stub(name, (), {"__module__": f"{cls.__module__}.{cls.__name__}"})

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and not kwargs and isinstance(args[0], FunctionType | type):
            return args[0]
        full = f"{cls.__module__}.{cls.__qualname__}"
        raise ProofError(
            "the official code uses a module that is missing",
            where=full,
            fix=f"install it, or --stub {full}=module:object",
        )


class _StubModule(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        target = self.__spec__.loader.stubs.get(f"{self.__name__}.{name}")  # type: ignore[union-attr]
        return import_object(target) if target else _Stub(name, (), {"__module__": self.__name__})


class _StubFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds every module below the names that are stubbed; the last finder that is asked."""

    def __init__(self, stubs: Mapping[str, str]) -> None:
        self.stubs = stubs
        self.roots: set[str] = set()

    def knows(self, name: str) -> bool:
        """Whether a module is stubbed."""
        return name.split(".")[0] in self.roots

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        """A spec for a stub."""
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if self.knows(name) else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """An empty module that makes up its names."""
        return _StubModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run."""
