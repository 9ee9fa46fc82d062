"""A mutant applied: imported anew in a child, and the places that its change is seen at."""

from __future__ import annotations

import ast
import importlib
import importlib.abc
import importlib.util
import linecache
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

PURGED = ("vaeport", "tests", "bench.drift")
State = dict[str, Any]


class Mutated(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Finds one module, whose source is another one than its file's."""

    def __init__(self, module: str, file: Path, source: str) -> None:
        self.module, self.file, self.source = module, file, source

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> Any:
        if name != self.module:
            return None
        package = self.file.name == "__init__.py"
        return importlib.util.spec_from_file_location(
            name, self.file, loader=self, submodule_search_locations=[str(self.file.parent)] if package else None
        )

    def get_source(self, fullname: str) -> str:
        return self.source

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.source, str(self.file), "exec", dont_inherit=True)

    def is_package(self, fullname: str) -> bool:
        return self.file.name == "__init__.py"


def purge() -> None:
    """Forgets all modules that a mutation could be in, or that hold on to such a module."""
    for name in [n for n in sys.modules if any(n == p or n.startswith(p + ".") for p in PURGED)]:
        del sys.modules[name]
    importlib.invalidate_caches()


def install(module: str, file: Path, source: str) -> None:
    """From now on this module has this source."""
    purge()
    sys.meta_path.insert(0, Mutated(module, file, source))
    linecache.cache[str(file)] = (len(source), None, source.splitlines(keepends=True), str(file))


def described(vae: Any) -> dict[str, Any]:
    """Path -> what a module is made of, apart from the values of its tensors."""
    return {path: _module(module, path) for path, module in vae.named_modules()}


def _module(module: Any, path: str) -> list[Any]:
    hidden = ("_", "training", "config", "arch", "contract")
    plain = {k: repr(v) for k, v in vars(module).items() if not k.startswith(hidden) and not hasattr(v, "parameters")}
    if not path:
        plain = {
            "contract": repr(module.contract),
            "normalizer": repr(getattr(module.normalizer, "__dict__", ""))[:2000],
        }
        plain["pieces"] = repr((module.encode_pieces, module.decode_pieces))
    shapes = {name: list(p.shape) for name, p in module.named_parameters(recurse=False)}
    return [type(module).__qualname__, plain, shapes, list(module._modules)]


def differing(clean: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Paths at which two descriptions differ; of what is missing or new, the path around it."""
    paths = {path for path in clean.keys() & found.keys() if clean[path] != found[path]}
    for path in clean.keys() ^ found.keys():
        while path not in clean or path not in found:
            path = path.rpartition(".")[0]
        paths.add(path)
    inner = paths - {""}
    return sorted(inner or paths)


def values_differing(clean: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Modules whose tensors have other values."""
    keys = [k for k in clean.keys() & found.keys() if clean[k].shape != found[k].shape or not clean[k].equal(found[k])]
    return sorted({key.rpartition(".")[0] for key in keys})


def running_in(vae: Any, file: Path, scope: str, work: Callable[[], Any]) -> list[str]:
    """Paths of the modules for which a function ran while `work` did: the innermost module among its callers."""
    from torch import nn

    known = {_identity(module): path for path, module in vae.named_modules()}
    ids = {id(module): path for path, module in vae.named_modules()}
    found: set[str] = set()

    def seen(frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if event != "call" or code.co_qualname != scope or code.co_filename != str(file):
            return
        at: FrameType | None = frame
        while at is not None:
            module = at.f_locals.get("self")
            if isinstance(module, nn.Module):
                path = ids.get(id(module), known.get(_identity(module)))
                if path is not None:
                    found.add(path)
                    return
            at = at.f_back

    sys.setprofile(seen)
    try:
        work()
    except Exception:
        # it has run as far as it went, and would have run in all that have it
        name = scope.rpartition(".")[2]
        found |= {p for p, m in vae.named_modules() if _code(type(m), name) == (str(file), scope)}
    finally:
        sys.setprofile(None)
    return sorted(found)


def _code(kind: type, name: str) -> tuple[str, str] | None:
    """(file, qualified name) of a method of a class, whichever of its bases has it."""
    code = getattr(getattr(kind, name, None), "__code__", None)
    return None if code is None else (code.co_filename, code.co_qualname)


def _identity(module: Any) -> tuple[Any, ...]:
    """The same for a module and for its bound twin."""
    return (type(module).__name__, *(id(p) for p in module.parameters()))


def lines_run(files: set[str], work: Callable[[], Any]) -> dict[str, set[int]]:
    """Lines of these files that run while `work` does."""
    seen: dict[str, set[int]] = {file: set() for file in files}

    def local(frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            seen[frame.f_code.co_filename].add(frame.f_lineno)
        return local

    def traced(frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename not in seen:
            return None
        seen[frame.f_code.co_filename].add(frame.f_lineno)
        return local

    sys.settrace(traced)
    try:
        work()
    finally:
        sys.settrace(None)
    return seen


def closure(file: Path, root: Path) -> Iterator[Path]:
    """A file of `models` or `weights` and all of the two that it imports."""
    waiting, known = [file], set()
    while waiting:
        here = waiting.pop()
        if here in known:
            continue
        known.add(here)
        yield here
        for node in ast.walk(ast.parse(here.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                ("vaeport.models.", "vaeport.weights.")
            ):
                waiting.append(root.joinpath(*str(node.module).split(".")[1:]).with_suffix(".py"))
