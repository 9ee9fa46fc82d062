"""From two flows to a proved map: open choices settled by values, the map written as rules, gate S on drawn weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from vaeport.configs import VAEArchConfig
from vaeport.errors import ConfigError, KeyMismatchError
from vaeport.mapping import Drop, Layout, Plan, plan
from vaeport.mapping.derive import Graph, Match, Node, choices, match, origins, settled
from vaeport.mapping.flow import Flow
from vaeport.mapping.induce import induce, pairs_of
from vaeport.port.flows import UNREAD, draw_by_flow, drawn_file, drawn_for, native_values
from vaeport.proof.cases import cases_of
from vaeport.proof.prove import Proof
from vaeport.proof.remote import RemoteSide
from vaeport.proof.sides import NativeSide
from vaeport.registry import Registration
from vaeport.runtime.load import load_as
from vaeport.vae import VAE


@dataclass
class Derived:
    """A map from data flow.

    layout      registered layout with the same pairs, if there is one, else the derived one
    rules       the derived layout itself
    registered  name of the registered layout that says the same, or None
    evidence    counts, choices and how they were settled
    """

    layout: Layout
    rules: Layout
    plan: Plan
    registered: str | None
    evidence: list[str] = field(default_factory=list)


def derive_map(
    registration: Registration,
    arch: VAEArchConfig,
    flows: tuple[Flow, Flow],
    measure: Callable[[Mapping[str, Tensor]], Flow],
    *,
    normalized: bool,
    media: tuple[int, ...],
    latent: tuple[int, ...],
    name: str = "official",
) -> Derived:
    """The map of official weights onto `registration`'s model.

    flows       native, official
    measure     official weights -> the official flow with values, for choices that the graph leaves open
    name        of the derived layout

    Raises KeyMismatchError that lists what has no partner, with what is nearest to it.
    """
    mine, theirs = flows
    graphs = (Graph.of(mine), Graph.of(theirs))
    found = settled(graphs, {})
    if not found.same_graph:
        raise _unmapped(found, theirs)
    drops = tuple(Drop(key.replace(".", r"\."), UNREAD) for key in theirs.unused())
    evidence = [f"{len(found.pairs)} weights or blocks paired by data flow, none by name"]
    if drops:
        evidence.append(f"dropped by name: {', '.join(theirs.unused())} ({UNREAD})")

    def rules(chosen: Match) -> Layout:
        return induce(name, pairs_of(chosen, mine.shapes, theirs.shapes), drops)

    layout = rules(found)
    if match(graphs, {}).open:
        drawn = draw_by_flow(theirs, 0, {})
        truth = measure(drawn)

        def agreement(chosen: Match) -> tuple[int, int]:
            vae = _filled(registration, arch, plan(rules(chosen), mine.shapes, theirs.shapes), drawn)
            return _agreement(chosen, native_values(vae, media, latent, normalized=normalized), truth)

        found, told = _settle(graphs, agreement)
        evidence += told
        layout = rules(found)
    mapped = plan(layout, mine.shapes, theirs.shapes).require("the derived map", "report this: the derivation is wrong")
    evidence += _proved(mapped, theirs)
    fitting = [(one, plan(one, mine.shapes, theirs.shapes)) for one in layouts_of(registration)]
    known = next((one for one, other in fitting if _same(other, mapped)), None)
    evidence += [
        f"layout `{one.name}` has the same keys in another order: {_other_blocks(other, mapped)}; "
        "its files are not this class's"
        for one, other in fitting
        if other.fits and known is None
    ]
    if known is not None:
        evidence.append(
            f"the registered layout `{known.name}` says the same for all {len(mapped.steps)} native weights"
        )
        # what reads no weight may still be in files
        known = replace(known, drops=(*known.drops, *drops))
    return Derived(known or layout, layout, mapped, known.name if known else None, evidence)


def _settle(graphs: tuple[Graph, Graph], agreement: Callable[[Match], tuple[int, int]]) -> tuple[Match, list[str]]:
    """Takes the candidate of each open class under which most results agree; says what was tried."""
    chosen: dict[Any, Any] = {}
    told = []
    while (left := match(graphs, chosen)).open:
        options = list(choices(graphs, chosen))
        first = min(left.open, key=lambda c: graphs[0].uses[c[0][0]])
        node, candidates = first[0][0], first[1]
        scores = [agreement(option) for option in options]
        best = max(range(len(scores)), key=lambda i: scores[i][0])
        ties = [_told(candidates[i]) for i, score in enumerate(scores) if score[0] == scores[best][0] and i != best]
        rows = ", ".join(f"{_told(c)}: {a} of {n} results agree" for c, (a, n) in zip(candidates, scores, strict=True))
        told.append(f"open by graph: {_told(node)}; tried {rows}")
        if ties:
            what = f"values cannot tell {_told(candidates[best])} from {', '.join(ties)}; the first is taken"
            told.append(f"{_told(node)}: {what}")
        chosen[node] = candidates[best]
    return settled(graphs, chosen), told


def _told(node: Node) -> str:
    return node[0] if node[1] is None else f"{node[0]}[{node[1][0]}:{node[1][1]}]"


def _agreement(chosen: Match, mine: Flow, theirs: Flow) -> tuple[int, int]:
    """How many results of paired operations have equal sums, and how many could be compared."""
    pairs = {(chosen.graphs[0].uses[a], chosen.graphs[1].uses[b]) for a, b in chosen.pairs.items()}
    agree = compared = 0
    for number, other in pairs:
        a, b = mine.uses[number].values, theirs.uses[other].values
        if a and b and a[0] == b[0]:
            compared += 1
            scale = (a[0] * max(a[2], b[2])) ** 0.5
            near = [abs(a[1] - b[1]) <= 1e-8 * scale, abs(a[2] - b[2]) <= 1e-8 * b[2], abs(a[3] - b[3]) <= 1e-8 * b[3]]
            agree += all(near)
    return agree, compared


def _filled(registration: Registration, arch: VAEArchConfig, mapped: Plan, drawn: Mapping[str, Tensor]) -> VAE:
    with torch.device("meta"):
        vae = registration.model(arch)
    vae.load_state_dict(dict(mapped.convert(drawn.__getitem__)), strict=True, assign=True)
    return vae.eval().requires_grad_(False)


def _proved(mapped: Plan, theirs: Flow) -> list[str]:
    """Every source element once, every target filled, and back: the same bits. Raises KeyMismatchError otherwise."""
    drawn = draw_by_flow(theirs, 1, {})
    back = dict(mapped.write(dict(mapped.convert(drawn.__getitem__)).__getitem__))
    wrong = [
        key for key, tensor in back.items() if not torch.equal(tensor, drawn[key]) or tensor.dtype != drawn[key].dtype
    ]
    lost = [key for key in drawn if key not in back and key not in mapped.dropped]
    if wrong or lost:
        raise KeyMismatchError(
            "the map does not run backwards", found=", ".join([*wrong, *lost][:8]), fix="report this"
        )
    elements = sum(t.numel() for t in back.values())
    return [
        f"{len(mapped.steps)} native weights filled from {len(back)} official ones, {elements} elements, each once",
        "map, then inverse map: bit-equal, types kept",
    ]


def _same(one: Plan, other: Plan) -> bool:
    return one.fits and {s.native: s.blocks for s in one.steps} == {s.native: s.blocks for s in other.steps}


def _other_blocks(one: Plan, other: Plan) -> str:
    blocks = {s.native: s.blocks for s in other.steps}
    return ", ".join([s.native for s in one.steps if s.blocks != blocks[s.native]][:4])


def _unmapped(found: Match, theirs: Flow) -> KeyMismatchError:
    """The official weights where the graphs part, with the nearest native one and why it was rejected."""
    graphs = found.graphs
    first = origins(graphs)[1] or found.foreign
    rows = []
    for node in sorted(first, key=lambda n: graphs[1].uses[n])[:12]:
        label = graphs[1].labels[node]
        near = [n for n in found.native if graphs[0].labels[n] == label]
        kind, shape = label
        if near:
            other = near[0]
            above = ", ".join(sorted(k for (k, _), _ in graphs[1].before[node])[:2])
            mine = ", ".join(sorted(k for (k, _), _ in graphs[0].before[other])[:2])
            rows.append(
                f"{node[0]} {kind} {list(shape)}: {other[0]} has its shape, "  # type: ignore[call-overload]
                f"but reads {mine}, not what pairs with {above}"
            )
        else:
            rows.append(f"{node[0]} {kind} {list(shape)}: no native weight of this kind and shape is left")  # type: ignore[call-overload]
    return KeyMismatchError(
        "weights cannot be mapped: the two sides are not the same graph",
        expected=f"a partner for each of {len(theirs.shapes)} official weights",
        found="\n    ".join([f"{len(found.foreign)} official and {len(found.native)} native ones without", *rows]),
        fix="mend the native model where the first of them differs",
    )


@contextmanager
def twin(
    side: RemoteSide, registration: Registration, arch: VAEArchConfig, derived: Derived, flow: Flow, *, normalized: bool
) -> Iterator[Proof]:
    """Gate S on weights drawn anew for both sides, on the case with a batch of two and every rule of length."""
    model = registration.model
    with torch.device("meta"):
        contract = model(arch).contract
    mapped = derived.plan
    drawn = drawn_for(flow, mapped, 0, clamped=contract.clamp is not None)
    one = with_layout(registration, derived.layout)
    native = NativeSide(
        f"{registration.name}", lambda: model(arch), lambda path: load_as(one, arch, path), normalized=normalized
    )
    with drawn_file(drawn) as weights:
        cases = cases_of(contract)[:1]
        yield Proof(side, native, (derived.layout,), weights=weights, dtypes=(), cases=cases)


def with_layout(registration: Registration, layout: Layout) -> Registration:
    """The registration with this layout before its own, which may have the same keys in another order."""
    others = tuple(one for one in layouts_of(registration) if one.name != layout.name)
    return replace(registration, load_layouts=lambda: (layout, *others))


def layouts_of(registration: Registration) -> tuple[Layout, ...]:
    """The registered layouts; none for a model that is being written."""
    try:
        return registration.layouts
    except ConfigError:
        return ()
