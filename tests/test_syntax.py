"""Reading Python files without running them."""

from __future__ import annotations

import ast

import pytest

from vaeport.syntax import assignments, imports


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import a.b as c, d", [("a.b", 1), ("d", 1)]),
        ("from a.b import c as d, e", [("a.b.c", 1), ("a.b.e", 1)]),
        ("from . import c\nfrom ..a import b", [("one.two.c", 1), ("one.a.b", 2)]),
        ("from ...a import b", [("...a.b", 1)]),
        ("def f():\n    import a", [("a", 2)]),
        ("if TYPE_CHECKING:\n    import a", [("a", 2)]),
        ("importlib.import_module('a.b')\n__import__('c')", [("a.b", 1), ("c", 2)]),
        ("importlib.import_module(package='p', name='a')", [("a", 1)]),
        ("pkgutil.resolve_name('a.b:c')\nimportlib.util.find_spec('d')", [("a.b", 1), ("d", 2)]),
        ("from importlib import import_module as get\nget('a')", [("importlib.import_module", 1), ("a", 2)]),
        ("import_module(name)\nimport_module()\nimport_module(1)", [("?", 1), ("?", 2), ("?", 3)]),
        ("get('a')\n'import a'", []),
    ],
)
def test_imports(source: str, found: list[tuple[str, int]]) -> None:
    assert list(imports(ast.parse(source), "one.two")) == found


def test_assignments() -> None:
    source = "a = b = 1\nC.d: int = 2\ne: int\nclass F:\n    g = 3\n(h, i) = 4\n"
    told = [(name, ast.unparse(value), node.lineno) for name, value, node in assignments(ast.parse(source))]
    assert told == [("a", "1", 1), ("b", "1", 1), ("C.d", "2", 2), ("g", "3", 5)]
