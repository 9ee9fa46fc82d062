"""Which numbers in a model file are constants of the architecture, and stand outside its arch config.

A number is taken for such a constant if it is

- a whole number of 16 or more: widths, groups, sample rates;
- a fraction other than 0, 0.5, 1 and 2: scales, epsilons, statistics of latents;
- one of three or more numbers or switches in a row: strides, multipliers, statistics; but three whole numbers below 16
  are the kernel, stride or padding of three axes;
- given to a name that says so (`latent_channels=4`, `groups = 8`, `dim_mult=(1, 2)`), and neither 0 nor 1.

Free are the arch config and its published variants, constants of the file that only they read, bounds of `range` and of
clamps, and small numbers that are the geometry of an operation (`pad=(1, 1, 1, 1)`, `permute(0, 2, 3, 1)`).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator

from vaeport.syntax import last_name

LARGE = 16
PLAIN = {0.0, 0.5, 1.0, 2.0}
ARCHITECTURE = re.compile(
    r"(^|_)(channels|widths?|mults?|multiples?|multipliers?|ratios?|strides|groups|blocks|layers|levels|heads|depths?"
    r"|scale|shift|means?|stds?|eps|sample_rate|sampling_rate)$|_factors?$|(?<!start)(?<!end)_dims?$"
)
GEOMETRY = re.compile(r"(^|_)(pad|padding|kernel|kernel_size|stride|dilation|crop|permute|dims|scale_factor)$")
BOUNDS = re.compile(r"(^|_)(range|clamp|clamp_|clip|clip_|clamp_min|clamp_max)$")


def constants_outside(tree: ast.Module, archs: set[str]) -> Iterator[ast.expr]:
    """Literals that are constants of the architecture, outside the classes named in `archs` and their variants."""
    inside = list(_arch_nodes(tree, archs))
    free = {id(node) for node in inside}
    inner = _names_read(part for node in inside for part in ast.walk(node))
    outer = _names_read(_walk(tree, free))
    for statement in tree.body:
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            names = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and _is_stored(node)}
            if names and names <= inner - outer:
                free.add(id(statement))
    yield from _constants(tree, free)


def _arch_nodes(tree: ast.Module, archs: set[str]) -> Iterator[ast.AST]:
    """The arch configs, the expressions outside functions that make one or change its copy, and `variants`."""
    made: set[str] = set()

    def is_arch(node: ast.AST) -> bool:
        match node:
            case ast.Call(ast.Name(name)):
                return name in archs
            case ast.Call(ast.Attribute(ast.Name(name), "replace")):
                return name in made
            case ast.Call(ast.Attribute(inner, "replace")):
                return is_arch(inner)
        return False

    for statement in tree.body:
        if isinstance(statement, ast.ClassDef):
            if statement.name in archs:
                yield statement
            parts = [part for part in statement.body if isinstance(part, ast.Assign | ast.AnnAssign)]
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            parts = [statement]
        else:
            continue
        for part in parts:
            targets = part.targets if isinstance(part, ast.Assign) else [part.target]
            names = set(map(last_name, targets))
            if "variants" in names or (part.value is not None and is_arch(part.value)):
                made |= names
                yield part


def _constants(tree: ast.Module, free: set[int]) -> Iterator[ast.expr]:
    """Goes through the tree from above; `name` is what a value is given to, or what is called with it."""
    todo: list[tuple[ast.AST, str, bool]] = [(tree, "", False)]
    while todo:
        node, name, named = todo.pop()
        if id(node) in free or (name and BOUNDS.search(name)):
            continue
        if isinstance(node, ast.expr):
            numbers = _numbers(node)
            if numbers is not None:
                if _is_constant(numbers, name, named, isinstance(node, ast.Tuple | ast.List | ast.Set)):
                    yield node
                continue
        todo += reversed(list(_children(node, name, named)))


def _children(node: ast.AST, name: str, named: bool) -> Iterator[tuple[ast.AST, str, bool]]:
    """Every child with the name that it belongs to, and whether it is given to that name as a value."""
    match node:
        case ast.Call(func, args, keywords):
            yield func, "", False
            called = last_name(func)
            yield from ((arg, called, False) for arg in args)
            yield from ((keyword.value, keyword.arg or called, True) for keyword in keywords)
        case ast.Assign(targets, value):
            for target in targets:
                yield from _paired(target, value)
        case ast.AnnAssign(target, _, ast.expr() as value):
            yield from _paired(target, value)
        case ast.arguments():
            plain = [*node.posonlyargs, *node.args]
            pairs = [*zip(plain[len(plain) - len(node.defaults) :], node.defaults, strict=True)]
            pairs += [(arg, value) for arg, value in zip(node.kwonlyargs, node.kw_defaults, strict=True) if value]
            yield from ((value, arg.arg, True) for arg, value in pairs)
        case ast.Dict(keys, values):
            for key, value in zip(keys, values, strict=True):
                yield value, str(key.value) if isinstance(key, ast.Constant) else "", True
        case ast.Tuple() | ast.List() | ast.Set() | ast.Starred():
            yield from ((child, name, named) for child in ast.iter_child_nodes(node))
        case _:
            yield from ((child, "", False) for child in ast.iter_child_nodes(node))


def _paired(target: ast.expr, value: ast.expr) -> Iterator[tuple[ast.AST, str, bool]]:
    """A value with its name; `a, b = 1, 2` are two."""
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
        for one, part in zip(target.elts, value.elts, strict=True):
            yield from _paired(one, part)
    else:
        yield value, last_name(target), True


def _is_constant(numbers: list[complex], name: str, named: bool, in_a_row: bool) -> bool:
    if any(abs(n) >= LARGE if isinstance(n, int) else abs(n) not in PLAIN for n in numbers):
        return True
    if GEOMETRY.search(name):
        return False
    if named and ARCHITECTURE.search(name) and any(number not in (0, 1) for number in numbers):
        return True
    three_axes = len(numbers) == 3 and all(type(number) is int for number in numbers)
    return in_a_row and len(numbers) >= 3 and not three_axes


def _numbers(node: ast.expr) -> list[complex] | None:
    """The numbers of a literal, alone (no switch then) or in a row; None for all else."""
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        parts = [_number(part) for part in node.elts]
        return [part for part in parts if part is not None] if parts and None not in parts else None
    number = _number(node)
    return None if number is None or isinstance(number, bool) else [number]


def _number(node: ast.expr) -> complex | None:
    match node:
        case ast.UnaryOp(ast.USub(), operand):
            number = _number(operand)
            return None if number is None else -number
        case ast.Constant(bool() | int() | float() | complex() as number):
            return number
    return None


def _walk(tree: ast.AST, free: set[int]) -> Iterator[ast.AST]:
    todo = [tree]
    while todo:
        node = todo.pop()
        if id(node) not in free:
            yield node
            todo += ast.iter_child_nodes(node)


def _names_read(nodes: Iterable[ast.AST]) -> set[str]:
    return {node.id for node in nodes if isinstance(node, ast.Name) and not _is_stored(node)}


def _is_stored(node: ast.Name) -> bool:
    return isinstance(node.ctx, ast.Store)
