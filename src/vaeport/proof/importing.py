"""Importing official code as it stands: from an import path, or from a file of a source folder.

A file is imported without running the `__init__.py` of the packages around it, which often import a whole application.
Modules that are missing are replaced by stubs (`vaeport.proof.stubs`), one after the other as the import asks for them;
imports that the code itself guards with `try` stay failed. `stubs` may name an object that stands in:
{"pytorch_lightning.LightningModule": "torch.nn:Module"}.

What official code prints goes to stderr. An import that fails leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from vaeport.errors import ProofError
from vaeport.proof.stubs import StubFinder, StubModule

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
    except (Exception, SystemExit) as error:  # a module that imports its names when they are asked for
        raise _unimportable(place, error) from error


def _from_path(name: str, path: str) -> ModuleType:
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return importlib.import_module(name)
    except (ImportError, AttributeError) as error:
        fix = "install it, or run it in its own environment with --reference-python (--official-python of `port`)"
        raise ProofError(f"cannot import {path}", found=f"{type(error).__name__}: {error}", fix=fix) from error
    except (Exception, SystemExit) as error:
        raise _unimportable(name, error) from error


def _from_file(file: Path, stubs: Mapping[str, str]) -> ModuleType:
    if not file.is_file():
        raise ProofError("no such source file", where=file, fix="give the file that defines the VAE's class")
    file = file.resolve()
    packages: list[Path] = []
    while ((packages[-1] if packages else file).parent / "__init__.py").exists():
        packages.append((packages[-1] if packages else file).parent)
    roots = [(packages[-1] if packages else file).parent]
    name = ".".join([*(p.name for p in reversed(packages)), file.stem])
    if not packages and name in sys.modules and not _is(sys.modules[name], file):
        name = f"{name}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"  # the name is another module's
    if name in sys.modules and _is(sys.modules[name], file):
        return sys.modules[name]
    finder = StubFinder(stubs, import_object)
    modules, path, known = dict(sys.modules), list(sys.path), set(stubbed)
    sys.meta_path.append(finder)
    try:
        _make_way(packages)
        return _imported(name, file, roots, packages, finder)
    except ProofError:
        sys.meta_path.remove(finder)
        sys.path[:] = path
        stubbed.intersection_update(known)
        _forget(set(sys.modules) - set(modules), roots)
        sys.modules.update(modules)
        raise


def _imported(name: str, file: Path, roots: list[Path], packages: Sequence[Path], finder: StubFinder) -> ModuleType:
    """Attempt after attempt, each with one stub or one root more."""
    before = set(sys.modules)
    for _ in range(MOST_STUBS):
        try:
            return _attempt(name, file, roots, packages)
        except ModuleNotFoundError as error:
            missing = error.name or ""
            if not missing or missing.split(".")[0] in {p.name for p in packages} or finder.knows(missing):
                raise _unimportable(file, error, roots) from error
            above = [folder.parent for folder in file.parents if folder.name == missing.split(".")[0]]
            if above and above[0] not in roots:
                roots.append(above[0])  # a package without __init__.py, which the file itself lies in
            else:
                finder.roots.add(missing.split(".")[0])
                stubbed.add(missing)
        except (Exception, SystemExit) as error:
            raise _unimportable(file, error, roots) from error
        _forget(set(sys.modules) - before, roots)
    raise ProofError("the official code imports too many modules that are missing", where=file, found=sorted(stubbed))


def _is(module: ModuleType, file: Path) -> bool:
    return Path(getattr(module, "__file__", None) or "").resolve() == file


def _make_way(packages: Sequence[Path]) -> None:
    """Forgets packages of the same names that lie elsewhere."""
    for package in packages:
        dotted = ".".join(p.name for p in reversed(packages[packages.index(package) :]))
        held = vars(sys.modules[dotted]).get("__path__", ()) if dotted in sys.modules else (package,)
        if package not in {Path(place).resolve() for place in held}:
            for name in [n for n in sys.modules if f"{n}.".startswith(f"{dotted}.")]:
                del sys.modules[name]


def _forget(names: Iterable[str], roots: Sequence[Path]) -> None:
    """Removes modules that lie below the roots, and stubs; not what an environment inside a root has installed."""
    for name in [name for name in names if _lies_below(sys.modules[name], roots)]:
        del sys.modules[name]


def _lies_below(module: ModuleType, roots: Sequence[Path]) -> bool:
    held = getattr(module, "__dict__", {})
    places = [Path(p) for p in ([held["__file__"]] if held.get("__file__") else held.get("__path__", ()))]
    inside = [p.relative_to(root) for p in places for root in roots if p.is_relative_to(root)]
    return isinstance(module, StubModule) or any("site-packages" not in p.parts for p in inside)


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


def _unimportable(where: str | Path, error: BaseException, roots: Sequence[Path] = ()) -> ProofError:
    """What an import raised, with the innermost line of the source that it comes from."""
    trace = error.__traceback__
    place = str(where)
    while trace is not None:
        code = trace.tb_frame.f_code.co_filename
        own = any(Path(code).is_relative_to(root) for root in roots) if roots else not _machinery(code)
        if own:
            place = f"{code}:{trace.tb_lineno}"
        trace = trace.tb_next
    if isinstance(error, SyntaxError) and error.filename:
        place = f"{error.filename}:{error.lineno}"
    if isinstance(error, ProofError):  # a stub that was called
        return ProofError(error.what, where=place, found=error.where, fix=error.fix)
    cuda = "cuda" in str(error).lower() or "nvidia" in str(error).lower()
    fix = (
        "it needs CUDA to be imported: run it on a machine that has a GPU"
        if cuda
        else "run it in its own environment with --official-python, or give what it asks for: --stub NAME=module:object"
    )
    kind = "exits" if isinstance(error, SystemExit) else f"{type(error).__name__}: {error}"
    return ProofError("the official code does not import", where=place, found=kind, fix=fix)


def _machinery(code: str) -> bool:
    return code == __file__ or code.startswith("<frozen") or not {"importlib", "torch"}.isdisjoint(Path(code).parts)
