"""The reuse proof: is an official implementation one of the native models, with which arguments, or none of them?

Three kinds of evidence, from cheap to dear: shapes of all weights (which model, which arguments), the graph of their
flow with every attribute of an operation (strides, eps, groups), and the contract that a probe found. What they cannot
see (padding, causality, order of chunks) gate S decides afterwards, on drawn weights.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import torch

from vaeport.configs import LatentContract, VAEArchConfig
from vaeport.errors import ConfigError
from vaeport.mapping.derive import Graph, Match, Node, origins, settled
from vaeport.mapping.flow import Flow
from vaeport.port.flows import UNREAD, native_flow, shapes_of
from vaeport.port.search import Shape, adapted, search, shapes, similarity
from vaeport.registry import ModelRegistry, Registration

Verdict = Literal["reuse", "reuse_with_arguments", "port"]
CLOSE, SURE = 0.5, 0.9
"""Share of elements in weights of equal shape from which a candidate is looked at closely, or no others are made up."""
MOST_CLOSE = 4


@dataclass
class Candidate:
    """One native model with the arguments that come nearest."""

    registration: Registration
    arch: VAEArchConfig
    variant: str | None
    similarity: float
    match: Match | None = None
    flow: Flow | None = None
    differences: list[str] = field(default_factory=list)
    given: bool = False
    """The official arguments are this model's published configuration."""

    @property
    def unmatched(self) -> int:
        """Weights of either side without a partner."""
        return len(self.match.native) + len(self.match.foreign) if self.match else 0

    @property
    def name(self) -> str:
        """Native name and variant."""
        return f"{self.registration.name} {self.variant or '(other arguments)'}"

    @property
    def fits(self) -> bool:
        """The same graph, attributes and contract."""
        return self.match is not None and self.match.same_graph and not self.differences


@dataclass
class ReuseProof:
    """The verdict, the candidate it is about (the nearest relative for `port`), and what speaks for it."""

    verdict: Verdict
    nearest: Candidate | None
    evidence: list[str]
    differences: list[str]
    ambiguous: list[str] = field(default_factory=list)
    """Published configurations that differ in constants only, which the official code leaves to its caller."""


def reuse_proof(
    flow: Flow,
    contract: Mapping[str, Any],
    arguments: Mapping[str, Any],
    registrations: tuple[Registration, ...] | None = None,
    variant: str | None = None,
    class_name: str | None = None,
) -> ReuseProof:
    """Compares the flow and the probed contract of an official implementation with every native model.

    arguments   of the official constructor: their values are tried as arguments of the native classes
    variant     published configuration to choose where the official code cannot tell
    class_name  of the official implementation, which its arguments need not say
    """
    arguments = {"_class_name": class_name, **arguments} if class_name else arguments
    known = registrations or ModelRegistry.registrations()
    wanted = shapes(flow.shapes)
    candidates = [c for r in known for c in _published(r, wanted, arguments, variant)]
    alike = [r for r in known if r.model.config_class.modality == contract["modality"]]
    if max((c.similarity for c in candidates), default=0.0) < SURE:
        candidates += [c for r in alike for c in _searched(r, candidates, wanted, arguments, contract)]
    # of models that fit alike, that whose configuration the arguments are
    candidates.sort(key=lambda c: (c.registration not in alike, -c.similarity, not c.given))
    evidence = [f"{c.name}: {c.similarity:.1%} of the elements lie in weights of equal shape" for c in candidates[:6]]
    close: list[Candidate] = []
    for candidate in candidates:
        # the nearest relative is always looked at, for what differs from it
        if close and (candidate.similarity < CLOSE or len(close) >= MOST_CLOSE):
            break
        for one in _looked_at(candidate, flow, contract):
            close.append(one)
            if one.fits:
                return _reused(one, contract, evidence, chosen=variant is not None)
    if not close:
        return ReuseProof("port", None, evidence, ["there is no native model"])
    nearest = min(close, key=lambda c: (c.unmatched, len(c.differences)))
    return ReuseProof("port", nearest, evidence, nearest.differences)


def _reused(best: Candidate, contract: Mapping[str, Any], evidence: list[str], *, chosen: bool) -> ReuseProof:
    assert best.match is not None
    assert best.flow is not None
    evidence = [
        *evidence,
        f"{best.name}: the same graph, {len(best.match.pairs)} weights or blocks of them paired by data flow",
        f"{best.name}: strides, dilations, eps and groups of {len(best.flow.uses)} operations are equal",
        f"{best.name}: the same latent contract, as far as a run can tell",
    ]
    proof = ReuseProof("reuse" if best.variant else "reuse_with_arguments", best, evidence, [])
    if contract["normalization"]["where"] == "caller" and best.variant is None and not best.given:
        mine = best.registration.model.contract_of(best.arch)
        evidence.append(
            f"{best.name}: the official code leaves the latent statistics to its caller; shift {mine.shift} and scale "
            f"{mine.scale} are not known from it"
        )
    if contract["normalization"]["where"] == "caller" and best.variant and not chosen and not best.given:
        model = best.registration.model
        mine = _but_statistics(model.contract_of(best.arch))
        twins = [n for n, a in model.variants.items() if _but_statistics(model.contract_of(a)) == mine]
        different = len({repr(model.variants[n]) for n in twins}) > 1
        proof.ambiguous = twins if different else []
    return proof


def _but_statistics(contract: LatentContract) -> LatentContract:
    return replace(contract, shift=0.0, scale=1.0)


def _published(
    registration: Registration, wanted: Counter[Shape], arguments: Mapping[str, Any], variant: str | None
) -> Iterator[Candidate]:
    """The official arguments read as a published configuration, if they are one; else the published ones."""
    model = registration.model
    given = _from_published(registration, arguments)
    if given is not None:
        name = next((n for n, arch in model.variants.items() if arch == given), None)
        yield Candidate(registration, given, name, similarity(registration, given, wanted), given=True)
        return
    for name, arch in model.variants.items():
        if variant in (None, name):
            yield Candidate(registration, arch, name, similarity(registration, arch, wanted))


def _from_published(registration: Registration, arguments: Mapping[str, Any]) -> VAEArchConfig | None:
    """The arguments read as a published configuration, if they are one."""
    arch_class = registration.model.arch_class
    if arguments.get("_class_name") not in (None, *arch_class.class_names):
        arguments = {key: value for key, value in arguments.items() if key != "_class_name"}
    names = {f.name for f in fields(arch_class)} | set(arch_class.renames)
    if 2 * len(names & arguments.keys()) < len(arguments) or not arguments:
        return None
    try:
        return None if arch_class.misfit(arguments) else arch_class.from_published(arguments)
    except ConfigError:
        return None


def _searched(
    registration: Registration,
    published: list[Candidate],
    wanted: Counter[Shape],
    arguments: Mapping[str, Any],
    contract: Mapping[str, Any],
) -> Iterator[Candidate]:
    """The nearest published one, with the official arguments' values."""
    own = [c for c in published if c.registration.name == registration.name]
    if not own or any(c.given for c in own):
        return
    start = max(own, key=lambda c: c.similarity)
    arch, near = search(registration, start.arch, wanted, arguments, contract)
    if arch != start.arch:
        yield Candidate(registration, arch, None, near)


def _looked_at(candidate: Candidate, flow: Flow, contract: Mapping[str, Any]) -> Iterator[Candidate]:
    """The candidate, and for a graph that only differs in constants those with the official ones."""
    other = _look_closely(candidate, flow, contract)
    yield candidate
    if candidate.match is not None and candidate.match.same_graph and not candidate.given:
        for arch in adapted(candidate.arch, other):
            changed = Candidate(candidate.registration, arch, None, candidate.similarity)
            _look_closely(changed, flow, contract)
            yield changed


def _look_closely(candidate: Candidate, flow: Flow, contract: Mapping[str, Any]) -> dict[Any, Any]:
    """Adds the match of the graphs, and all differences in attributes and contract; native -> official attributes."""
    with torch.device("meta"):
        vae = candidate.registration.model(candidate.arch)
    candidate.arch, constants = with_statistics(candidate.arch, vae.contract, contract)
    if constants:
        candidate.variant = next(
            (n for n, a in candidate.registration.model.variants.items() if a == candidate.arch), None
        )
        with torch.device("meta"):
            vae = candidate.registration.model(candidate.arch)
    candidate.flow = native_flow(vae, *shapes_of(vae.contract))
    candidate.match = match = settled((Graph.of(candidate.flow), Graph.of(flow)), {})
    if not match.same_graph:
        candidate.differences += _graph_differences(match, flow)
        candidate.differences += _operation_differences(candidate.flow, flow)
    other = list(_other_attributes(match, candidate.flow, flow))
    candidate.differences += [f"{name} of {key} is {b}, of {native} {a}" for name, native, key, a, b in other]
    candidate.differences += contract_differences(vae.contract, contract)
    return {a: b for *_, a, b in other}


def _operation_differences(mine: Flow, theirs: Flow) -> list[str]:
    """Operations without weights that only one side has."""

    def seen(flow: Flow) -> dict[str, str]:
        trails = [(use.keys[0], step) for use in flow.uses for step in use.trail]
        trails += [(name, step) for name, trail in flow.trails.items() for step in trail]
        return {step: place for place, step in reversed(trails)}

    ours, others = seen(mine), seen(theirs)
    told = [("official", "native", others, ours), ("native", "official", ours, others)]
    rows = []
    for here, there, one, other in told:
        only = [f"{step} (before {one[step]})" for step in one if step not in other]
        if only:
            rows.append(f"operations of the {here} side that the {there} one has nowhere: {', '.join(only[:6])}")
    return rows


def with_statistics(
    arch: VAEArchConfig, mine: LatentContract, contract: Mapping[str, Any]
) -> tuple[VAEArchConfig, bool]:
    """The arch config with the latent statistics that the official encode applies itself, and whether they are new."""
    found = contract["normalization"]
    if found["where"] != "inside" or _same_statistics(mine, found):
        return arch, False
    names = {f.name for f in fields(arch)}
    shift, scale = found["shift"], found["scale"]
    if isinstance(scale, list) and {"latents_mean", "latents_std"} <= names:
        wide = shift if isinstance(shift, list) else [shift] * len(scale)
        return arch.replace(latents_mean=tuple(wide), latents_std=tuple(1 / s for s in scale)), True
    if not isinstance(scale, list) and {"scaling_factor", "shift_factor"} <= names:
        return arch.replace(scaling_factor=scale, shift_factor=shift or None), True
    return arch, False


def _same_statistics(mine: LatentContract, found: Mapping[str, Any]) -> bool:
    if mine.shift is None or mine.scale is None:
        return True  # they lie in the checkpoint, and are weights that the map is proved on

    def wide(value: Any) -> list[float]:
        return list(value) if isinstance(value, list | tuple) else [value] * mine.latent_channels

    pairs = [
        *zip(wide(mine.shift), wide(found["shift"]), strict=True),
        *zip(wide(mine.scale), wide(found["scale"]), strict=True),
    ]
    return all(math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-6) for a, b in pairs)


def contract_differences(mine: LatentContract, found: Mapping[str, Any]) -> list[str]:
    """What the contract says otherwise than the probe; what the probe could not see is not compared."""
    rules = [(a.name, a.multiple, a.offset) for a in mine.axes]
    pairs: list[tuple[str, Any, Any]] = [
        ("modality", mine.modality, found["modality"]),
        ("channels", mine.channels, found["channels"]),
        ("latent channels", mine.latent_channels, found["latent_channels"]),
        (
            "compression (axis, multiple, offset)",
            rules,
            [(a["name"], a["multiple"], a["offset"]) for a in found["axes"]],
        ),
    ]
    if found["posterior"].startswith("gaussian"):
        pairs.append(("posterior", mine.posterior, found["posterior"]))
    if found["moments_order"] != "unknown":
        pairs.append(("moments", "mean first", found["moments_order"]))
    clamp = found["decode"]["clamp"]
    pairs.append(("decode clamp", None if mine.clamp is None else list(mine.clamp), clamp))
    differences = [f"{name}: native {a}, official {b}" for name, a, b in pairs if a != b]
    if found["normalization"]["where"] == "inside" and not _same_statistics(mine, found["normalization"]):
        differences.append(f"normalisation: native ({mine.shift}, {mine.scale}), official {found['normalization']}")
    return differences


def _other_attributes(match: Match, mine: Flow, theirs: Flow) -> Iterator[tuple[str, str, str, Any, Any]]:
    """Attributes of matched operations that differ: name, native key, official key, native value, official value.

    Padding, which may be an operation of its own, is gate S's.
    """
    for native, foreign in match.pairs.items():
        a, b = mine.uses[match.graphs[0].uses[native]], theirs.uses[match.graphs[1].uses[foreign]]
        if native[0] != a.keys[0]:
            continue
        for name in ("stride", "dilation", "transposed", "groups", "eps"):
            if name in a.attributes and name in b.attributes:
                pair = _flat(a.attributes[name]), _flat(b.attributes[name])
                if pair[0] != pair[1]:
                    yield name, native[0], foreign[0], *pair


def _flat(value: Any) -> Any:
    """One number for a list of equal ones, so that a flat convolution compares with one of more axes."""
    return value[-1] if isinstance(value, list) and value else value


def _graph_differences(match: Match, theirs: Flow) -> list[str]:
    """Where the graphs differ first, and weights that no operation reads."""

    def told(nodes: list[Node], side: int) -> str:
        graph = match.graphs[side]
        rows = []
        for node in sorted(nodes, key=lambda n: graph.uses[n])[:6]:
            label: Any = graph.labels[node]
            above = ", ".join(sorted(key for (key, _), _ in graph.before[node])[:3])
            rows.append(f"{node[0]} ({label[0]} {list(label[1])}, reads {above})")
        return "; ".join(rows) + (f"; and {len(nodes) - 6} more" if len(nodes) > 6 else "")

    native, foreign = origins(match.graphs)
    rows = []
    if foreign:
        rows.append(f"the graphs differ first at these official weights: {told(foreign, 1)}")
    if native:
        rows.append(f"the graphs differ first at these native weights: {told(native, 0)}")
    rows.append(
        f"{len(match.foreign)} official and {len(match.native)} native weights have no partner in the whole graph"
    )
    if unused := theirs.unused():
        rows.append(f"{len(unused)} official weights are {UNREAD}: {', '.join(unused[:6])}")
    return rows
