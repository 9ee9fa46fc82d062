"""From pairs of weights to a readable map: keys that differ in numbers only become one rule."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product

from vaeport.mapping.derive import Match, Node
from vaeport.mapping.rules import Block, Drop, Fuse, Layout, Rule, Units

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)|^\d+(?=\.)")
_NAMES = "ijklmn"


@dataclass(frozen=True)
class Pair:
    """One native key, the foreign keys (or blocks `key#i/n`) that it is made of, and the change of shape of each."""

    native: str
    foreign: tuple[str, ...]
    units: tuple[Units, ...]


def pairs_of(match: Match, native: Mapping[str, tuple[int, ...]], foreign: Mapping[str, tuple[int, ...]]) -> list[Pair]:
    """The pairs of a settled match by native key.

    Raises ValueError naming a key whose blocks or shapes no rule can express.
    """
    by_key: dict[str, list[tuple[Node, Node]]] = defaultdict(list)
    for mine, theirs in match.pairs.items():
        by_key[mine[0].partition("#")[0]].append((mine, theirs))
    pairs = []
    for key in native:
        nodes = sorted(by_key.get(key, []), key=lambda pair: pair[0][1] or (0, 0))
        if not nodes:
            continue
        blocks = [_block(theirs, foreign) for _, theirs in nodes]
        same = {block.key for block in blocks}
        if len(blocks) > 1 and len(same) == 1 and [b.index for b in blocks] == list(range(blocks[0].count)):
            blocks = [Block(blocks[0].key)]
        shape = native[key]
        part = (shape[0] // len(blocks), *shape[1:]) if len(blocks) > 1 else shape
        units = []
        for block, (mine, theirs) in zip(blocks, nodes, strict=False):
            turned = match.graphs[0].operands[mine].transposed != match.graphs[1].operands[theirs].transposed
            found = _units(part, foreign[block.key], block.count, turned)
            if found is None:
                raise ValueError(f"{key} {list(shape)} is no view of {block.key} {list(foreign[block.key])}")
            units.append(found)
        texts = (f"{b.key}#{b.index}/{b.count}" if b.count > 1 else b.key for b in blocks)
        pairs.append(Pair(key, tuple(texts), tuple(units)))
    return pairs


def _block(node: Node, shapes: Mapping[str, tuple[int, ...]]) -> Block:
    stored = Block.parse(node[0])
    if node[1] is None:
        return stored
    start, stop = node[1]
    rows = stop - start
    return Block(stored.key, start // rows, max(n for n in shapes[stored.key] if n % rows == 0) // rows)


def _units(native: tuple[int, ...], foreign: tuple[int, ...], count: int, turned: bool) -> Units | None:
    fewest = sorted(product(range(-len(native), 5), repeat=2), key=lambda axes: abs(axes[0]) + abs(axes[1]))
    for lead, trail in fewest:
        units = Units(lead, trail, turned)
        wide = (native[0] * count, *native[1:]) if native and count > 1 else native
        if units.foreign_shape(wide) == foreign and _is_view(native, lead, trail):
            return units
    return None


def _is_view(native: tuple[int, ...], lead: int, trail: int) -> bool:
    """What is left out has length one."""
    return set(native[: max(0, -lead)]) <= {1} and set(native[len(native) - max(0, -trail) :]) <= {1}


def induce(name: str, pairs: Sequence[Pair], drops: Sequence[Drop] = (), *, prefix: str = "") -> Layout:
    """The layout with the fewest rules that gives exactly these pairs."""
    groups: dict[tuple[str, tuple[str, ...], tuple[Units, ...]], list[Pair]] = defaultdict(list)
    for pair in _by_module(pairs):
        templates = tuple(_NUMBER.sub("{}", text) for text in pair.foreign)
        groups[_NUMBER.sub("{}", pair.native), templates, pair.units].append(pair)
    rules = [rule for group in groups.values() for rule in _rules(group)]
    found = Layout(name, tuple(rules), prefixes=(prefix,), drops=tuple(drops))
    if all(_gives(found, pair) for pair in pairs):
        return found
    return Layout(name, tuple(_literal(pair) for pair in pairs), prefixes=(prefix,), drops=tuple(drops))


def _by_module(pairs: Sequence[Pair]) -> list[Pair]:
    """Weights of one module that keep their names go together, as `module.{rest*}`."""
    kept: dict[tuple[str, str], list[Pair]] = defaultdict(list)
    others: list[Pair] = []
    for pair in pairs:
        mine, theirs = pair.native.rpartition("."), pair.foreign[0].rpartition(".")
        plain = pair.units == (Units(),) and "#" not in pair.foreign[0]
        if plain and mine[2] == theirs[2] and mine[0] and theirs[0]:
            kept[mine[0], theirs[0]].append(pair)
        else:
            others.append(pair)
    modules = [Pair(f"{mine}.{{rest*}}", (f"{theirs}.{{rest}}",), (Units(),)) for mine, theirs in kept]
    return others + modules


def _rules(group: Sequence[Pair]) -> list[Rule]:
    numbers = [[int(n) for n in _NUMBER.findall(pair.native)] for pair in group]
    columns = []
    for place in range(len(group[0].foreign)):
        theirs = [[int(n) for n in _NUMBER.findall(pair.foreign[place])] for pair in group]
        fits = [_expression(numbers, [row[i] for row in theirs]) for i in range(len(theirs[0]))]
        if any(fit is None for fit in fits):
            return [_literal(pair) for pair in group]
        columns.append(_filled(group[0].foreign[place], [str(fit) for fit in fits]))
    native = _filled(group[0].native, [f"{{{name}}}" for name in _NAMES[: len(numbers[0])]])
    return [_rule(native, tuple(columns), group[0].units)]


def _literal(pair: Pair) -> Rule:
    return _rule(pair.native, pair.foreign, pair.units)


def _rule(native: str, foreign: tuple[str, ...], units: tuple[Units, ...]) -> Rule:
    if len(foreign) == 1:
        return Rule(native, foreign[0], units[0])
    alike = len(set(units)) == 1
    start = 0
    while all(len(t) > start and t[start] == foreign[0][start] for t in foreign):
        start += 1
    start = foreign[0].rfind(".", 0, start + 1) + 1 if "#" not in foreign[0][:start] else start
    end = 0
    while all(len(t) - end > start and t[-1 - end] == foreign[0][-1 - end] for t in foreign):
        end += 1
    end = (
        len(foreign[0]) - foreign[0].find(".", len(foreign[0]) - end)
        if "." in foreign[0][len(foreign[0]) - end :]
        else 0
    )
    parts = tuple(t[start : len(t) - end] for t in foreign)
    if any("{" in part for part in parts):
        start, end, parts = 0, 0, foreign
    whole = foreign[0][:start] + "{part}" + foreign[0][len(foreign[0]) - end :]
    return Rule(native, whole, units[0] if alike else Units(), Fuse(parts, () if alike else units))


def _filled(text: str, values: Sequence[str]) -> str:
    found = iter(values)
    return _NUMBER.sub(lambda match: next(found), text)


def _expression(native: Sequence[Sequence[int]], foreign: Sequence[int]) -> str | None:
    """An integer expression a*i + b*j + ... + c that gives every foreign number, or None."""
    if len(set(foreign)) == 1:
        return str(foreign[0])
    width = len(native[0])
    varying = [i for i in range(width) if len({row[i] for row in native}) > 1]
    solved = _solve(
        [[Fraction(row[i]) for i in varying] + [Fraction(1)] for row in native], [Fraction(n) for n in foreign]
    )
    if solved is None or any(value.denominator != 1 for value in solved):
        return None
    terms = [(int(value), _NAMES[i]) for value, i in zip(solved, varying, strict=False) if value]
    text = "+".join(name if factor == 1 else f"{factor}*{name}" for factor, name in terms if factor > 0)
    constant = int(solved[-1])
    if text:
        text += f"+{constant}" if constant > 0 else ""
    else:
        text = str(constant)
    text += "".join(f"-{name}" if factor == -1 else f"-{-factor}*{name}" for factor, name in terms if factor < 0)
    text += str(constant) if constant < 0 else ""
    return f"{{{text}}}"


def _solve(rows: list[list[Fraction]], values: list[Fraction]) -> list[Fraction] | None:
    """The solution of a linear system, free unknowns zero; None if there is none."""
    width = len(rows[0])
    table = [[*row, value] for row, value in zip(rows, values, strict=True)]
    pivots: list[int] = []
    for column in range(width):
        at = next((r for r in range(len(pivots), len(table)) if table[r][column]), None)
        if at is None:
            continue
        top = len(pivots)
        table[top], table[at] = table[at], table[top]
        table[top] = [value / table[top][column] for value in table[top]]
        for r, row in enumerate(table):
            if r != top and row[column]:
                table[r] = [a - row[column] * b for a, b in zip(row, table[top], strict=True)]
        pivots.append(column)
    if any(row[-1] for row in table[len(pivots) :]):
        return None
    solution = [Fraction(0)] * width
    for row, column in zip(table, pivots, strict=False):
        solution[column] = row[-1]
    return solution


def _gives(layout: Layout, pair: Pair) -> bool:
    found = layout.rule_of(pair.native)
    return (
        found is not None
        and found[1] == pair.foreign
        and tuple(found[0].units_of(part) for part in range(len(pair.units))) == pair.units
    )


def source_of(layout: Layout, about: str) -> str:
    """The layout as a Python file of `vaeport.weights`."""
    rows = []
    for rule in layout.rules:
        more = [] if rule.units == Units() else [_units_source(rule.units)]
        more += [] if rule.fuse is None else [f"fuse={_fuse_source(rule.fuse)}"]
        inside = ", ".join([f'"{rule.native}"', f'"{rule.foreign}"', *more])
        line = f"        Rule({inside}),"
        rows.append(line if len(line) <= 120 else f"        Rule(\n            {inside}\n        ),")
    drops = [f"        Drop({drop.foreign!r}, {drop.reason!r})," for drop in layout.drops]
    used = sorted(
        {"Layout", "Rule"} | {n for n in ("Drop", "Fuse", "Units") if any(f"{n}(" in r for r in rows + drops)}
    )
    prefixes = "" if layout.prefixes == ("",) else f"    prefixes={layout.prefixes!r},\n"
    tail = "    drops=(\n" + "\n".join(drops) + "\n    ),\n" if drops else ""
    constant = re.sub(r"\W", "_", layout.name).upper()
    head = f'{constant} = Layout(\n    name="{layout.name}",\n{prefixes}    rules=(\n'
    body = head + "\n".join(rows) + f"\n    ),\n{tail})"
    return (
        f'"""{about}"""\n\nfrom vaeport.mapping.rules import {", ".join(used)}\n\n{body}\n\nLAYOUTS = ({constant},)\n'
    )


def _units_source(units: Units) -> str:
    given = {name: value for name, value in vars(units).items() if value}
    return f"Units({', '.join(f'{name}={value}' for name, value in given.items())})"


def _fuse_source(fuse: Fuse) -> str:
    units = ", ".join(_units_source(one) for one in fuse.units)
    return f"Fuse({fuse.parts!r}, ({units},))" if units else f"Fuse({fuse.parts!r})"
