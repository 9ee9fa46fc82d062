"""Which layout a file may be in, and behind which prefix, from its names alone and for all layouts at once.

Numbers in names and in rules are taken for equal, and what stands for a rest of names fits any rest. So no map is left
out that could read the file; what is counted here is checked exactly by a plan.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from vaeport.mapping.rules import Block, Layout, Rule, Units

Shapes = Mapping[str, tuple[int, ...]]
_NUMBER = re.compile(r"\d+")
_FIELD = re.compile(r"\{[^}]+\}")
_DEEPEST = 24
"""Components of a name that are looked at: a hostile one may have a million."""


@dataclass(frozen=True)
class Outline:
    """A layout and a prefix in front of its keys.

    keys    names of the file that some rule may be about
    of      names of the file with the prefix
    kinds   per half, the rules that some name may be about
    share   of the rules of the half that is there most, those that some name may be about
    """

    layout: Layout
    prefix: str
    keys: int = 0
    of: int = 0
    kinds: Mapping[str, int] = field(default_factory=dict)
    share: float = 0.0

    @property
    def rank(self) -> float:
        """Names accounted for, weighed by how much of at least one half they make up."""
        return self.keys * self.share

    @property
    def halves(self) -> tuple[str, ...]:
        """Halves that are there: a few keys left over from one are not."""
        return tuple(half for half, kinds in self.kinds.items() if 4 * kinds > max(self.kinds.values()))


def outlines(layouts: Sequence[Layout], names: Collection[str], most: int = 1) -> list[Outline]:
    """The pairs of layout and prefix under which most names are spoken of, best first."""
    heads: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for at, layout in enumerate(layouts):
        for number, rule in enumerate(layout.rules):
            for head in _heads(rule):
                heads[head].append((at, number))
    spelt = [at for at, layout in enumerate(layouts) if layout.spellings]
    keys: Counter[tuple[int, str]] = Counter()
    rules: defaultdict[tuple[int, str], set[int]] = defaultdict(set)
    for template, alike in _templates(names).items():
        respelt = {at: text for at in spelt if (text := layouts[at].canonical(template)) != template}
        hits = [hit for hit in _hits(template, heads) if hit[0] not in respelt]
        hits += [hit for at, text in respelt.items() for hit in _hits(text, heads) if hit[0] == at]
        for at, depth in {(at, depth) for at, depth, _ in hits}:
            for name in alike:
                keys[at, _prefix(name, depth)] += 1
        for at, depth, number in hits:
            for prefix in {_prefix(name, depth) for name in alike}:
                rules[at, prefix].add(number)
    found = [_outline(layouts[at], prefix, n, rules[at, prefix]) for (at, prefix), n in keys.items()]
    best = sorted(found, key=lambda outline: -outline.rank)[:most]
    return [replace(one, of=sum(name.startswith(one.prefix) for name in names)) for one in best]


def _templates(names: Iterable[str]) -> dict[str, list[str]]:
    """Names by what they are when all numbers are 0."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        found[_NUMBER.sub("0", name)].append(name)
    return found


def _heads(rule: Rule) -> Iterator[str]:
    """What a foreign key starts with, up to a rest of names; without one, the key and a space, which ends it."""
    rest = {f"{{{name}}}" for name in re.findall(r"\{(\w+)\*\}", rule.native)}
    for part in rule.fuse.parts if rule.fuse else ("",):
        text = Block.parse(rule.foreign.replace("{part}", part)).key
        cut = min((at for name in rest if (at := text.find(name)) >= 0), default=None)
        head = text if cut is None else text[:cut].rstrip(".")
        yield _NUMBER.sub("0", _FIELD.sub("0", head)) + ("" if cut is not None else " ")


def _hits(template: str, heads: Mapping[str, list[tuple[int, int]]]) -> Iterator[tuple[int, int, int]]:
    """Layout, number of components of the prefix, and rule, for each way to read a name."""
    parts = template.split(".", _DEEPEST)
    for depth in range(len(parts)):
        text = ""
        for end in range(depth, len(parts)):
            text = f"{text}.{parts[end]}" if text else parts[end]
            closing = text + " " if end == len(parts) - 1 else text
            for at, number in heads.get(closing, ()):
                yield at, depth, number


def _prefix(name: str, depth: int) -> str:
    parts = name.split(".", depth)[:depth]
    return "".join(f"{part}." for part in parts)


def _outline(layout: Layout, prefix: str, keys: int, hit: Collection[int]) -> Outline:
    totals = Counter(rule.native.partition(".")[0] for rule in layout.rules)
    kinds = Counter(layout.rules[number].native.partition(".")[0] for number in hit)
    halves = {half: kinds[half] for half in ("encoder", "decoder")}
    return Outline(layout, prefix, keys, 0, halves, max(n / (totals[half] or 1) for half, n in halves.items()))


@dataclass(frozen=True)
class ForeignShapes:
    """Native shapes of the weights of a file in one layout behind one prefix, without knowing the architecture."""

    layout: Layout
    prefix: str
    stored: Mapping[str, tuple[str, tuple[int, ...]]]
    """Key in the layout's spelling -> stored key and shape."""

    @classmethod
    def of(cls, layout: Layout, prefix: str, shapes: Shapes) -> ForeignShapes:
        """From all shapes of the file."""
        inside = (name for name in shapes if name.startswith(prefix))
        return cls(layout, prefix, {layout.canonical(k[len(prefix) :]): (k, tuple(shapes[k])) for k in inside})

    def find(self, native: str) -> tuple[str, tuple[int, ...] | None]:
        """The first stored key of a native weight, and the native shape; None where a stored key is missing."""
        found = self.layout.rule_of(native)
        if found is None:
            return native, None
        rule, foreign = found
        blocks = [Block.parse(text) for text in foreign]
        if any(block.key not in self.stored for block in blocks):
            return self.prefix + blocks[0].key, None
        shapes = [_native(self.stored[b.key][1], rule.units_of(i), b.count) for i, b in enumerate(blocks)]
        rows = sum(shape[0] for shape in shapes if shape)
        return self.stored[blocks[0].key][0], (rows, *shapes[0][1:]) if shapes[0] else ()


def _native(foreign: tuple[int, ...], units: Units, count: int) -> tuple[int, ...]:
    """The shape of one block of `count`; axes that the foreign tensor lacks have the length 1."""
    shape = foreign[::-1] if units.transposed else foreign
    shape = shape[max(0, units.lead) : len(shape) - max(0, units.trail)]
    shape = (1,) * max(0, -units.lead) + shape + (1,) * max(0, -units.trail)
    return (shape[0] // count, *shape[1:]) if shape and count > 1 else shape
