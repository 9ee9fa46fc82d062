"""`derive`: which weights of two models do the same, told from their flows alone.

Both flows become graphs of weights whose nodes are coloured by what an operation does with them and by their shape, and
then again and again by the colours around them. Nodes of a colour that is unique on both sides belong together. What
stays alike (queries and keys, parallel branches) is an open choice, which only values can settle.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from vaeport.mapping.flow import Flow, Operand, Part, Source, Use

Node = tuple[str, Part]
"""A weight, or the block of it that gives the output channels [start, stop)."""


@dataclass
class Graph:
    """Weights as nodes, data between them as edges, and one node for every input and output of the model."""

    labels: dict[Node, tuple[object, ...]] = field(default_factory=dict)
    before: dict[Node, set[tuple[Node, bool]]] = field(default_factory=lambda: defaultdict(set))
    after: dict[Node, set[tuple[Node, bool]]] = field(default_factory=lambda: defaultdict(set))
    operands: dict[Node, Operand] = field(default_factory=dict)
    uses: dict[Node, int] = field(default_factory=dict)
    """Number of the use that reads a weight first."""

    @classmethod
    def of(cls, flow: Flow) -> Graph:
        """The graph of a flow; a matrix whose output is taken in blocks becomes a node per block."""
        graph = cls()
        blocks = _blocks(flow)
        for name, sources in flow.outputs.items():
            graph.labels[(name, None)] = ("output", name)
            for source in sources:
                graph._join(flow, blocks, source, [(name, None)])
        for number, use in enumerate(flow.uses):
            graph._add(flow, blocks, number, use)
        return graph

    def _add(self, flow: Flow, blocks: Mapping[int | str, list[Part]], number: int, use: Use) -> None:
        stages = [[[(key, part) for key in o.keys] for part in blocks[number]] for o in use.operands]
        for operand, stage in zip(use.operands, stages, strict=True):
            for block, nodes in zip(blocks[number], stage, strict=True):
                for node in nodes:
                    self.labels[node] = (operand.kind, _shape(operand, flow.shapes, node[0], block))
                    self.operands[node] = operand
                    self.uses.setdefault(node, number)
        elementwise = use.operands[0].kind in ("scale", "shift")
        for source in use.inputs:
            for block, nodes in zip(blocks[number], stages[0], strict=True):
                # a bias that is added by an operation of its own has the blocks of its matrix
                own = elementwise and source.part is None and blocks.get(source.use) == blocks[number]
                self._join(flow, blocks, Source(source.use, block, source.softmax) if own else source, nodes)
        for one, other in pairwise(stages):
            for above, below in zip(one, other, strict=True):
                self._edges(above, below, False)

    def _join(self, flow: Flow, blocks: Mapping[int | str, list[Part]], source: Source, nodes: list[Node]) -> None:
        if isinstance(source.use, str):
            self.labels[(source.use, None)] = ("input", source.use)
            self._edges([(source.use, None)], nodes, source.softmax)
            return
        last = flow.uses[source.use].operands[-1]
        for part in blocks[source.use]:
            if source.part is None or part is None or part == source.part:
                self._edges([(key, part) for key in last.keys], nodes, source.softmax)

    def _edges(self, above: list[Node], below: list[Node], softmax: bool) -> None:
        for a in above:
            for b in below:
                self.after[a].add((b, softmax))
                self.before[b].add((a, softmax))


def _blocks(flow: Flow) -> dict[int | str, list[Part]]:
    """The blocks in which other uses take the output of each use: [None] unless they divide it exactly."""
    taken: dict[int | str, set[Part]] = defaultdict(set)
    readers: dict[int | str, list[int]] = defaultdict(list)
    for number, use in enumerate(flow.uses):
        for source in use.inputs:
            taken[source.use].add(source.part)
            readers[source.use].append(number)
    found: dict[int | str, list[Part]] = {}
    for number, use in reversed(list(enumerate(flow.uses))):
        parts = sorted(p for p in taken[number] if p is not None)
        rows = use.operands[0].shape[0] if use.operands[0].shape else 0
        ends = [0, *(stop for _, stop in parts)]
        divides = bool(parts) and [start for start, _ in parts] == ends[:-1] and ends[-1] == rows
        found[number] = list(parts) if divides and len({b - a for a, b in parts}) == 1 else [None]
        bias = flow.uses[readers[number][0]] if len(readers[number]) == 1 else None
        if (
            not parts
            and bias is not None
            and bias.operands[0].kind == "shift"
            and bias.operands[0].shape[:1] == (rows,)
        ):
            found[number] = found[readers[number][0]]
    return found


def _shape(operand: Operand, shapes: Mapping[str, tuple[int, ...]], key: str, part: Part) -> tuple[int, ...]:
    shape = operand.shape or tuple(n for n in shapes.get(key, ()) if n != 1)
    return shape if part is None else (part[1] - part[0], *shape[1:])


def colours(graphs: tuple[Graph, Graph], fixed: Mapping[tuple[int, Node], int]) -> list[dict[Node, int]]:
    """Colour refinement of two graphs together; nodes in `fixed` ((side, node) -> number) have colours of their own."""
    sides = [
        {node: hash((label, fixed.get((side, node)))) for node, label in graph.labels.items()}
        for side, graph in enumerate(graphs)
    ]
    return _refined(graphs, sides, ("before", "after"))


def _refined(graphs: tuple[Graph, Graph], sides: list[dict[Node, int]], ways: tuple[str, ...]) -> list[dict[Node, int]]:
    count = -1
    while count != (count := len({c for side in sides for c in side.values()})):
        sides = [
            {
                node: hash((colour, *(_around(getattr(graph, way)[node], side) for way in ways)))
                for node, colour in side.items()
            }
            for graph, side in zip(graphs, sides, strict=True)
        ]
    return sides


def origins(graphs: tuple[Graph, Graph]) -> tuple[list[Node], list[Node]]:
    """Where two graphs differ: nodes that nothing of the other side equals by what lies before nor by what lies after.

    If there are none, edges alone tell them apart: the first nodes whose past has no equal, and the last whose future
    has none. In the order of the flow.
    """
    labels = [{node: hash(label) for node, label in graph.labels.items()} for graph in graphs]
    past, future = (_alone(_refined(graphs, labels, (way,))) for way in ("before", "after"))
    found = [p & f for p, f in zip(past, future, strict=True)]
    if not any(found):
        found = [
            {node for node in p if not any(other in p for other, _ in graph.before[node])}
            | {node for node in f if not any(other in f for other, _ in graph.after[node])}
            for graph, p, f in zip(graphs, past, future, strict=True)
        ]
    mine, theirs = (
        sorted(nodes & graph.operands.keys(), key=lambda node: (graph.uses[node], str(node)))
        for graph, nodes in zip(graphs, found, strict=True)
    )
    return mine, theirs


def _alone(sides: list[dict[Node, int]]) -> list[set[Node]]:
    """Nodes whose colour the other side does not have as often."""
    numbers = [Counter(side.values()) for side in sides]
    return [{node for node, colour in side.items() if numbers[0][colour] != numbers[1][colour]} for side in sides]


def _around(edges: set[tuple[Node, bool]], side: Mapping[Node, int]) -> tuple[tuple[tuple[int, bool], int], ...]:
    return tuple(sorted(Counter((side[node], softmax) for node, softmax in edges).items()))


@dataclass
class Match:
    """Native nodes and the foreign ones that do the same.

    pairs       native -> foreign
    open        classes that stay alike, as (native nodes, foreign nodes) of equal number
    native, foreign
                nodes without a partner
    """

    graphs: tuple[Graph, Graph]
    pairs: dict[Node, Node] = field(default_factory=dict)
    open: list[tuple[list[Node], list[Node]]] = field(default_factory=list)
    native: list[Node] = field(default_factory=list)
    foreign: list[Node] = field(default_factory=list)

    @property
    def same_graph(self) -> bool:
        """Every weight that is read has a partner, or a choice of them."""
        return not self.native and not self.foreign


def match(graphs: tuple[Graph, Graph], chosen: Mapping[Node, Node] | None = None) -> Match:
    """Pairs of unique colours; `chosen` are pairs that are taken for granted."""
    fixed: dict[tuple[int, Node], int] = {}
    for number, (native, foreign) in enumerate((chosen or {}).items()):
        fixed[0, native] = fixed[1, foreign] = number
    classes: list[dict[int, list[Node]]] = []
    for graph, side in zip(graphs, colours(graphs, fixed), strict=True):
        by_colour: dict[int, list[Node]] = defaultdict(list)
        for node in sorted(side, key=lambda n: (graph.uses.get(n, -1), str(n))):
            if node in graph.operands:
                by_colour[side[node]].append(node)
        classes.append(by_colour)
    found = Match(graphs)
    for colour in dict.fromkeys([*classes[0], *classes[1]]):
        ours, theirs = classes[0].get(colour, []), classes[1].get(colour, [])
        if len(ours) != len(theirs):
            found.native += ours
            found.foreign += theirs
        elif len(ours) == 1:
            found.pairs[ours[0]] = theirs[0]
        else:
            found.open.append((ours, theirs))
    return found


def settled(graphs: tuple[Graph, Graph], chosen: Mapping[Node, Node]) -> Match:
    """A match without open classes: what is still alike is paired in order, choice by choice."""
    taken = dict(chosen)
    while (found := match(graphs, taken)).open:
        ours, theirs = found.open[0]
        taken[ours[0]] = theirs[0]
    return found


def choices(graphs: tuple[Graph, Graph], chosen: Mapping[Node, Node]) -> Iterator[Match]:
    """One settled match per candidate for the first open class (the first in the order of the flow)."""
    found = match(graphs, chosen)
    ours, theirs = min(found.open, key=lambda c: graphs[0].uses[c[0][0]])
    for candidate in theirs:
        yield settled(graphs, {**chosen, ours[0]: candidate})
