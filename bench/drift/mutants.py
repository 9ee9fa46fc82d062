"""Population (b): small changes of source code, made through its syntax tree; what they mean is not looked at."""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDERS = ("layers", "models", "weights")
AXES = frozenset({"dim", "axis", "dims"})
BINARY: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
}
COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_SKIPPED = (ast.Raise, ast.Assert, ast.Import, ast.ImportFrom, ast.JoinedStr, ast.Global, ast.Nonlocal)


@dataclass(frozen=True)
class Mutant:
    """One change: `line` and `scope` (the qualified name of the function or class) in `file`, the whole new source."""

    file: Path
    line: int
    scope: str
    what: str
    sort: str
    source: str

    @property
    def module(self) -> str:
        """Name of the module that the file is, counted from the package's folder."""
        parts = self.file.with_suffix("").parts
        return ".".join(parts[parts.index("vaeport") :]).removesuffix(".__init__")


def mutants(root: Path) -> list[Mutant]:
    """All mutants of the sources in `layers`, `models` and `weights` under the package's folder."""
    return [m for folder in FOLDERS for file in sorted((root / folder).glob("*.py")) for m in of_source(file)]


def sampled(found: list[Mutant], count: int, seed: int) -> list[Mutant]:
    """As many, drawn by sort of change first, so that literals do not crowd out the others."""
    choice = random.Random(seed)
    by_sort: dict[str, list[Mutant]] = {}
    for mutant in found:
        by_sort.setdefault(mutant.sort, []).append(mutant)
    for group in by_sort.values():
        choice.shuffle(group)
    order = sorted(by_sort)
    taken: list[Mutant] = []
    while len(taken) < count and any(by_sort.values()):
        sort = choice.choice(order)
        if by_sort[sort]:
            taken.append(by_sort[sort].pop())
    return taken


def of_source(file: Path, text: str | None = None) -> Iterator[Mutant]:
    """The mutants of one file that still parse."""
    text = file.read_text("utf-8") if text is None else text
    tree = ast.parse(text)
    strings = sorted({n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)})
    words = [s for s in strings if len(s) < 40 and " " not in s]
    seen = {text}
    for node, scope, axis in _visited(tree, "<module>", False):
        for sort, what, new in _changes(node, words, axis):
            source = _replaced(text, node, new)
            if source in seen:
                continue
            seen.add(source)
            try:
                ast.parse(source)
            except SyntaxError:
                continue
            yield Mutant(file, node.lineno, scope, f"{ast.unparse(node)[:60]} -> {new[:60]}: {what}", sort, source)


def _visited(node: ast.AST, scope: str, axis: bool) -> Iterator[tuple[Any, str, str | bool]]:
    """Nodes that may change, with their scope and whether they say an axis or bound a slice."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "bases", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or isinstance(child, _SKIPPED) or _is_docstring(child):
                continue
            inside, mark = scope, axis
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                outer = "" if scope == "<module>" else scope + ("." if isinstance(node, ast.ClassDef) else ".<locals>.")
                inside = outer + child.name
            elif isinstance(child, ast.keyword):
                mark = child.arg in AXES
            elif isinstance(child, ast.Slice):
                mark = "slice"  # type: ignore[assignment]
            if hasattr(child, "lineno"):
                yield child, scope, mark
            # a minus and its number are one literal
            if not (isinstance(child, ast.UnaryOp) and isinstance(child.operand, ast.Constant)):
                yield from _visited(child, inside, mark)


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _changes(node: Any, words: list[str], axis: str | bool) -> Iterator[tuple[str, str, str]]:
    """(sort, what, new text) of a node."""
    if isinstance(node, ast.Constant) or (isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.Constant)):
        yield from _literals(node, words, axis)
    elif isinstance(node, ast.BinOp) and type(node.op) in BINARY:
        one, other = ast.unparse(node.left), ast.unparse(node.right)
        yield "operator", "operator", f"({ast.unparse(ast.BinOp(node.left, BINARY[type(node.op)](), node.right))})"
        yield "term", "right term dropped", f"({one})"
        yield "term", "left term dropped", f"({other})"
    elif isinstance(node, ast.Compare) and len(node.ops) == 1:
        turned = ast.Compare(node.left, [COMPARED[type(node.ops[0])]()], node.comparators)
        yield "operator", "comparison", f"({ast.unparse(turned)})"
    elif isinstance(node, ast.BoolOp):
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield "operator", "and/or", f"({ast.unparse(ast.BoolOp(other, node.values))})"
    elif isinstance(node, ast.IfExp):
        yield "operator", "branches swapped", f"({ast.unparse(ast.IfExp(node.test, node.orelse, node.body))})"
    elif isinstance(node, ast.Call):
        yield from _arguments(node)
    elif isinstance(node, ast.Slice):
        bounds = (("lower", node.lower), ("upper", node.upper), ("step", node.step))
        for name, bound in bounds:
            if bound is not None:
                fewer = {key: None if key == name else value for key, value in bounds}
                yield "slice", f"{name} bound dropped", ast.unparse(ast.Slice(**fewer))
    elif isinstance(node, ast.Expr | ast.AugAssign) or (isinstance(node, ast.Assign) and not _plain_name(node)):
        yield "statement", "statement dropped", "pass"
    elif isinstance(node, ast.Return) and isinstance(node.value, ast.Call) and node.value.args:
        first = node.value.args[0]
        if not isinstance(first, ast.Starred):
            yield "term", "call dropped", f"return {ast.unparse(first)}"


def _plain_name(node: ast.Assign) -> bool:
    """An assignment that makes a name, without which nothing runs, unless it is made of itself."""
    names = {n.id for target in node.targets for n in ast.walk(target) if isinstance(n, ast.Name)}
    used = {n.id for n in ast.walk(node.value) if isinstance(n, ast.Name)}
    return all(isinstance(target, ast.Name) for target in node.targets) and not names & used


def _literals(node: Any, words: list[str], axis: str | bool) -> Iterator[tuple[str, str, str]]:
    value = ast.literal_eval(node)
    sort = "slice" if axis == "slice" else "axis" if axis else "literal"
    if isinstance(value, bool):
        yield sort, "flipped", repr(not value)
    elif isinstance(value, int | float):
        for what, new in (("one more", value + 1), ("twice", value * 2), ("negated", -value)):
            if new != value:
                yield sort, what, f"({new!r})" if new < 0 else repr(new)
    elif isinstance(value, str) and value in words and len(words) > 1:
        yield "literal", "another string", repr(words[(words.index(value) + 1) % len(words)])


def _arguments(node: ast.Call) -> Iterator[tuple[str, str, str]]:
    for i, keyword in enumerate(node.keywords):
        fewer = ast.Call(node.func, node.args, node.keywords[:i] + node.keywords[i + 1 :])
        yield "argument", f"{keyword.arg or '**'} dropped", ast.unparse(fewer)
    for i in range(len(node.args) - 1):
        if ast.dump(node.args[i]) != ast.dump(node.args[i + 1]):
            order = [*node.args[:i], node.args[i + 1], node.args[i], *node.args[i + 2 :]]
            yield "argument", f"{i} and {i + 1} swapped", ast.unparse(ast.Call(node.func, order, node.keywords))
    if node.args and not isinstance(node.args[-1], ast.Starred):
        yield "argument", "last dropped", ast.unparse(ast.Call(node.func, node.args[:-1], node.keywords))


def _replaced(text: str, node: Any, new: str) -> str:
    """The source with a node written anew; the lines after it keep their numbers."""
    lines = text.encode().splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    data = text.encode()
    begin, end = starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset
    kept = data[begin:end].count(b"\n") - new.count("\n")
    # lines that a node loses come back behind a backslash, or as they are within brackets
    return (data[:begin] + new.encode() + data[end:]).decode() if kept <= 0 else _padded(data, begin, end, new, kept)


def _padded(data: bytes, begin: int, end: int, new: str, lines: int) -> str:
    filler = "\\\n" * lines
    tail = data[end:]
    return (data[:begin] + (new + " " + filler).encode() + tail).decode()
