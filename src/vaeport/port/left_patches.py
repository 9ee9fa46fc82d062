"""Functions that run another code than their source file has: monkeypatches.

What a file says (its functions, classes and imports) is held against what its module holds now. A decorator that the
file itself names may replace a function; a name that is said in several places is right if it is what one of them says.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from vaeport.port.left_hooks import code_file, described, unbound
from vaeport.port.leftover import Leftover, unchecked
from vaeport.proof.stubs import StubModule

_STDLIB = sysconfig.get_path("stdlib")


def patches(modules: Iterable[ModuleType], own: Sequence[Path] = ()) -> Iterator[Leftover]:
    """Replaced functions, methods, classes and imported names of Python modules.

    own     folders whose code belongs to the implementation, so that it may replace what it likes
    """
    for module in modules:
        try:
            file = Path(module.__file__ or "")
            tree = _parsed(file, file.stat().st_mtime_ns)
        except (AttributeError, OSError, SyntaxError, ValueError):
            yield unchecked(module.__name__, "it has no source file")
            continue
        for name, value, place in _Source(module, str(file)).wrong(tree.body, vars(module), module.__name__):
            code = _file(value)
            if code is None or not any(Path(code).is_relative_to(folder) for folder in own):
                yield Leftover("patch", f"{place}.{name}", _told(value), f"restore what {file.name} says")


@cache
def _parsed(file: Path, changed: int) -> ast.Module:
    return ast.parse(file.read_bytes())


@dataclass(frozen=True)
class _Source:
    module: ModuleType
    file: str

    def wrong(
        self, body: Sequence[ast.stmt], held: Mapping[str, Any], where: str, owner: ast.ClassDef | None = None
    ) -> Iterator[tuple[str, Any, str]]:
        """Name, present value and place of everything that is not what the statements say."""
        said: dict[str, list[ast.stmt]] = {}
        for node in _statements(body):
            for name in _names(node):
                said.setdefault(name, []).append(node)
        for name in said.keys() & held.keys():
            value = held[name]
            if not any(self._is_said(node, name, value, held) for node in said[name]):
                yield name, value, where
            elif isinstance(value, type) and self._is_ours(value, name):
                for node in said[name]:
                    if isinstance(node, ast.ClassDef):
                        yield from self.wrong(node.body, vars(value), f"{where}.{name}", node)
        if owner is not None:
            more = held.keys() - said.keys()
            yield from ((name, held[name], where) for name in more if self._is_added(name, held[name], owner))

    def _is_ours(self, value: type, name: str) -> bool:
        return value.__module__ == self.module.__name__ and value.__name__ == name

    def _is_said(self, node: ast.stmt, name: str, value: Any, held: Mapping[str, Any]) -> bool:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            return self._is_defined(node, value)
        if isinstance(node, ast.ClassDef):
            return bool(node.decorator_list) or (isinstance(value, type) and self._is_ours(value, name))
        if isinstance(node, ast.ImportFrom):
            return self._is_imported(node, name, value)
        if isinstance(node, ast.Import):
            return isinstance(value, ModuleType) or name not in sys.modules
        given = self._found(node.value, held) if isinstance(node, ast.Assign | ast.AnnAssign) else None
        both = isinstance(value, FunctionType) and isinstance(given, FunctionType)
        return not both or value is given or code_file(value) == self.file

    def _is_defined(self, node: ast.FunctionDef | ast.AsyncFunctionDef, value: Any) -> bool:
        function = unbound(value)
        if not isinstance(function, FunctionType):  # a cache or an operator, where a decorator makes one
            return bool(node.decorator_list)
        code = function.__code__.co_filename
        if code == self.file:
            return True
        inner = code_file(inspect.unwrap(function))
        return self._is_made(code, node) and inner in (self.file, code)

    def _is_made(self, code: str, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
        """Whether code may be the work of a decorator that stands there; one that cannot be found may do anything."""
        makers = [_file(self._found(one.func if isinstance(one, ast.Call) else one)) for one in node.decorator_list]
        return None in makers or package_of(code) in {package_of(one) for one in makers if one}

    def _is_imported(self, node: ast.ImportFrom, name: str, value: Any) -> bool:
        asked = next((one.name for one in node.names if (one.asname or one.name) == name), "*")
        try:
            relative = "." * node.level + (node.module or "")
            origin = sys.modules[importlib.util.resolve_name(relative, self.module.__package__)]
            return asked == "*" or isinstance(origin, StubModule) or getattr(origin, asked) is value
        except (ImportError, AttributeError, KeyError):
            return True  # gone from where it was: nothing to hold it against

    def _is_added(self, name: str, value: Any, owner: ast.ClassDef) -> bool:
        """Whether a method that the class's text does not have is neither generated nor of the same package."""
        code = code_file(value) if isinstance(unbound(value), FunctionType) else None
        if code is None or package_of(code) == package_of(self.file) or self._is_made(code, owner):
            return False
        return not (name.startswith("_") and code.startswith(("<", _STDLIB)))

    def _found(self, node: ast.expr | None, held: Mapping[str, Any] | None = None) -> Any:
        """The object behind a dotted name; None if it is none or not there."""
        if isinstance(node, ast.Attribute):
            above = self._found(node.value, held)
            return None if above is None else inspect.getattr_static(above, node.attr, None)
        if not isinstance(node, ast.Name):
            return None
        builtin = vars(sys.modules["builtins"]).get(node.id)
        return (held or {}).get(node.id, vars(self.module).get(node.id, builtin))


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements of a scope, those under `if`, `try`, `with` and loops included."""
    for node in body:
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            parts = [*(getattr(node, name, []) for name in ("body", "orelse", "finalbody"))]
            parts += [handler.body for handler in getattr(node, "handlers", [])]
            for part in parts:
                yield from _statements(part)


def _names(node: ast.stmt) -> list[str]:
    """Names that a statement gives a value to."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [one.asname or one.name.split(".")[0] for one in node.names]
    if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign | ast.For):
        return [one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)]
    return []


def _file(value: Any) -> str | None:
    """The file that an object is written in; "builtins" for what has none, None for no object."""
    if value is None:
        return None
    plain = unbound(value)
    kind = plain if isinstance(plain, type) else type(plain)
    code = plain.__code__.co_filename if isinstance(plain, FunctionType) else None
    return code or getattr(sys.modules.get(kind.__module__), "__file__", None) or "builtins"


def package_of(file: str) -> Path:
    """The outermost package that a file belongs to, or the file itself."""
    place = Path(file)
    while (place.parent / "__init__.py").exists():
        place = place.parent
    return place


def _told(value: Any) -> str:
    plain = unbound(value)
    return f"it is {described(value) if callable(plain) else type(plain).__qualname__}"
