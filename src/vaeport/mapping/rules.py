"""The vocabulary of weight maps.

A rule has two columns: a pattern of native keys, and the foreign key or keys that it stands for. `{name}` in the native
column matches a number, `{name*}` any rest of dotted names; in the foreign column the same names may stand in integer
expressions. The native side is always known, so every rule runs in both directions.

    Rule("encoder.levels.{i}.blocks.{j}.{rest*}", "encoder.downsamples.{3*i+j}.{rest}")
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from vaeport.errors import ConfigError

_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}
_FIELD = re.compile(r"\{([^}]+)\}")


@dataclass(frozen=True)
class Units:
    """The foreign tensor has axes of length one that the native one lacks: `lead` in front, `trail` behind.

    Negative numbers are axes that the native one has and the foreign one lacks. A `transposed` foreign matrix has the
    input channels first.
    """

    lead: int = 0
    trail: int = 0
    transposed: bool = False

    def foreign_shape(self, native: tuple[int, ...]) -> tuple[int, ...]:
        """Shape on the foreign side."""
        kept = native[max(0, -self.lead) : len(native) - max(0, -self.trail)]
        shape = (1,) * self.lead + kept + (1,) * self.trail
        return shape[::-1] if self.transposed else shape


@dataclass(frozen=True)
class Block:
    """The rows of a foreign tensor that lie in block `index` of `count` equal ones; written `key#index/count`."""

    key: str
    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Block:
        """`key`, or `key#index/count`."""
        key, _, numbers = text.partition("#")
        index, _, count = numbers.partition("/")
        return cls(key, int(index), int(count)) if numbers else cls(key)


@dataclass(frozen=True)
class Fuse:
    """The native tensor is the foreign ones, or blocks of them, one behind the other along axis 0.

    parts   what `{part}` in the foreign column stands for, in native order
    units   of each part, where they are not stored alike; else empty, and the rule's own hold for all
    """

    parts: tuple[str, ...]
    units: tuple[Units, ...] = ()


@dataclass(frozen=True)
class Rule:
    """Native key pattern <-> foreign key pattern, with what happens to shapes on the way.

    The foreign one may end in `#index/count`: one of `count` equal blocks of rows.
    """

    native: str
    foreign: str
    units: Units = Units()
    fuse: Fuse | None = None

    def units_of(self, part: int) -> Units:
        """Of the foreign tensor that is this part of the native one."""
        return self.fuse.units[part] if self.fuse and self.fuse.units else self.units

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        out, end = "", 0
        for match in _FIELD.finditer(self.native):
            name = match.group(1)
            out += re.escape(self.native[end : match.start()])
            out += f"(?P<{name[:-1]}>.+)" if name.endswith("*") else rf"(?P<{name}>\d+)"
            end = match.end()
        return re.compile(out + re.escape(self.native[end:]))

    def foreign_keys(self, native: str) -> tuple[str, ...] | None:
        """The foreign keys that make up a native key, or None if the rule is about others."""
        match = self._pattern.fullmatch(native)
        if match is None:
            return None
        values: dict[str, int | str] = {k: int(v) if v.isdigit() else v for k, v in match.groupdict().items()}
        return tuple(self._foreign({**values, "part": part}) for part in (self.fuse.parts if self.fuse else ("",)))

    def _foreign(self, values: Mapping[str, int | str]) -> str:
        return _FIELD.sub(lambda match: str(_evaluate(match.group(1), values)), self.foreign)


def _evaluate(expression: str, values: Mapping[str, int | str]) -> int | str:
    what = f"`{{{expression}}}` in a weight map is not a number, a name of its native column, or +, -, * of them"
    fault = ConfigError(what)

    def value(node: ast.expr) -> int | str:
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            return node.value
        if isinstance(node, ast.Name) and node.id in values:
            return values[node.id]
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            left, right = value(node.left), value(node.right)
            if isinstance(left, int) and isinstance(right, int):
                return int(_OPERATORS[type(node.op)](left, right))
        raise fault

    try:
        return value(ast.parse(expression, mode="eval").body)
    except SyntaxError:
        raise fault from None


@dataclass(frozen=True)
class Drop:
    """Foreign keys (a regular expression over the whole key) that no native weight is made of, and why."""

    foreign: str
    reason: str


@dataclass(frozen=True)
class DtypeNote:
    """Rows of gate D (regular expression over the native row, e.g. `free upsample`) that differ on purpose, and why."""

    native: str
    reason: str


@dataclass(frozen=True)
class Layout:
    """One published way to store an architecture's weights.

    rules       in order; the first that matches a native key counts
    prefixes    what may stand before every foreign key; a file has one of them, the first is written
    spellings   older names (regular expression, replacement) that are read as the ones in the rules
    drops       foreign keys that are known and not needed
    dtype_notes differences of types from the reference that are meant
    variants    variant -> regular expression of keys of the whole file that tell it from others of the same shapes
    """

    name: str
    rules: tuple[Rule, ...]
    prefixes: tuple[str, ...] = ("",)
    spellings: tuple[tuple[str, str], ...] = ()
    drops: tuple[Drop, ...] = ()
    variants: Mapping[str, str] = field(default_factory=dict)
    dtype_notes: tuple[DtypeNote, ...] = ()

    def canonical(self, foreign: str) -> str:
        """A foreign key without prefix in the spelling of the rules."""
        for old, new in self.spellings:
            foreign = re.sub(old, new, foreign)
        return foreign

    def rule_of(self, native: str) -> tuple[Rule, tuple[str, ...]] | None:
        """The rule of a native key, with the foreign keys it is made of."""
        for rule in self.rules:
            keys = rule.foreign_keys(native)
            if keys is not None:
                return rule, keys
        return None
