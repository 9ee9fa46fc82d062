"""Python files read as syntax trees: what they import and what they are named, without running them."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from vaeport.errors import ConfigError

IMPORTERS = ("import_module", "__import__", "find_spec", "resolve_name")


def parse_file(path: Path) -> ast.Module:
    """The syntax tree of a file; ConfigError with the line if it is not Python."""
    try:
        return ast.parse(path.read_bytes(), str(path))
    except SyntaxError as error:
        where = f"{path}:{error.lineno}" if error.lineno else path
        raise ConfigError("a model file is not Python", where=where, found=error.msg) from error
    except (ValueError, RecursionError, MemoryError) as error:  # thousands of nested brackets or signs
        found = str(error) or type(error).__name__
        raise ConfigError("a model file is not Python", where=path, found=found) from error


def assignments(tree: ast.AST) -> Iterator[tuple[str, ast.expr, ast.Assign | ast.AnnAssign]]:
    """Assigned name or dotted name, value, statement; at any depth."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            for target in node.targets if isinstance(node, ast.Assign) else (node.target,):
                if isinstance(target, ast.Name | ast.Attribute):
                    yield ast.unparse(target), node.value, node


def model_names(tree: ast.Module, path: Path) -> tuple[str | None, tuple[str, ...]]:
    """The class named by `EntryClass`, if any, and all of `class_names` and `aliases`; ConfigError if unreadable."""
    entry: str | None = None
    names: list[str] = []
    for target, value, node in assignments(tree):
        match target, value:
            case "EntryClass", ast.Name(name):
                entry = name
            case "class_names" | "aliases", ast.Tuple(elements) if all(map(_is_text, elements)):
                names += ast.literal_eval(value)
            case "EntryClass" | "class_names" | "aliases" as what, _:
                raise ConfigError(
                    f"`{what}` cannot be read without running the file",
                    where=f"{path}:{node.lineno}",
                    expected="the name of a class" if what == "EntryClass" else "a tuple of literal strings",
                    found=ast.unparse(value),
                )
    return entry, tuple(dict.fromkeys(names))


def imports(tree: ast.AST, package: str = "") -> Iterator[tuple[str, int]]:
    """Dotted names of all that a module of `package` imports, at any depth of its code, and their lines.

    A relative name that leads out of the package keeps its dots; a call that computes the name gives `?`.
    """
    importers = {*IMPORTERS}
    nodes = list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            importers |= {alias.asname for alias in node.names if alias.asname and alias.name in IMPORTERS}
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = _absolute("." * node.level + (node.module or ""), package)
            yield from ((f"{origin}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and last_name(node.func) in importers:
            name = next((k.value for k in node.keywords if k.arg == "name"), node.args[0] if node.args else None)
            match name:
                case ast.Constant(str(text)):
                    yield text.partition(":")[0], node.lineno
                case _:
                    yield "?", node.lineno


def last_name(node: ast.expr) -> str:
    """`Conv` of `Conv` and of `layers.Conv`; nothing of all else."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _absolute(name: str, package: str) -> str:
    try:
        return importlib.util.resolve_name(name, package)
    except ImportError:
        return name


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)
