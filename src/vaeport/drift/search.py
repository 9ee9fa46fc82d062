"""The search for the change that mends one place: made, tried on the reference's own tensors, and taken back."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vaeport.drift.edits.attributes import attribute_edits, config_edits
from vaeport.drift.edits.calls import call_edits
from vaeport.drift.edits.edit import Edit, Scope, values
from vaeport.drift.edits.fits import combined_edits, fitted_edits
from vaeport.drift.edits.latents import latent_edits, normalisation_edits
from vaeport.drift.edits.parameters import parameter_edits
from vaeport.drift.edits.structure import structure_edits
from vaeport.drift.edits.watching import calls_in
from vaeport.drift.edits.words import renamed, word_edits
from vaeport.drift.forced import DECODE, ENCODE, FORCE, FREE, HALVES, OPEN, SKIP, STAGES, Difference, Forcing, Spot
from vaeport.drift.prepare import within


@dataclass
class Place:
    """One unit, or the VAE's own steps "", with all that differs there."""

    unit: str
    differences: list[Difference]

    @property
    def spots(self) -> list[Spot]:
        """Where."""
        return [d.spot for d in self.differences]


def places_of(found: Sequence[Difference]) -> list[Place]:
    """By unit, in the order of execution."""
    units: dict[str, list[Difference]] = {}
    for difference in found:
        units.setdefault(difference.spot.unit, []).append(difference)
    return [Place(unit, differences) for unit, differences in units.items()]


class Trial:
    """A place under one case: everything around it gives what the reference gave, without running."""

    def __init__(self, forcing: Forcing, place: Place, source: Forcing | None = None) -> None:
        self.default = FREE
        self.forcing, self.place = forcing, place
        above = _above(place.unit, forcing.parents)
        self.around = [s.at.partition(" ")[2] for s in place.spots if s.at.startswith("around ")]
        self.modes = dict.fromkeys(above, OPEN) | dict.fromkeys(self.around, FORCE)
        if place.unit:
            self.modes[place.unit] = FORCE
        # what lies inside a unit that is skipped does not run; what is compared as a whole runs as it is
        entered = {"", place.unit, *above}
        beside = {u: SKIP for u, parent in forcing.parents.items() if parent in entered and u not in self.modes}
        inside = {u for u in beside if place.unit and place.unit in _above(u, forcing.parents)}
        self.free = {u: mode for u, mode in (self.modes | beside).items() if u not in inside}
        self.modes |= beside
        self.halves = _halves(place, forcing)
        # a unit may be called several times
        self.until = place.unit if (place.unit, 1) not in forcing.shapes else None
        known = bool(place.differences) and forcing is source
        found = self.errors()
        if not found and known:
            # what is around it is part of what differs
            self.modes, self.until, self.default = {}, None, FORCE
            found = self.errors()
        self.place = Place(place.unit, found)
        self.compared = frozenset(forcing.compared)

    def errors(self) -> list[Difference]:
        """What differs at the place."""
        found = self.forcing.run(self.halves, self.modes, self.default, self.until)
        return [d for d in found if d.spot.unit == self.place.unit]

    def whole(self) -> list[Difference]:
        """The same with nothing inside the unit replaced: its function, and nothing else."""
        found = self.forcing.run(self.halves, self.free, FREE, self.until)
        own = [d for d in found if d.spot.unit == self.place.unit and not d.spot.at.startswith("before")]
        own += [d for d in found if d.spot.at == f"around {self.place.unit}"]
        seen = (self.place.unit, "out", 0) in self.forcing.compared
        return own if own or seen else [Difference(Spot(self.place.unit, "after"), float("nan"))]

    def agrees(self, edit: Edit) -> bool:
        """Whether a change makes the outputs right."""
        try:
            with self.forcing.unlearned(), edit.applied(self.forcing.vae):
                return all(self.forcing.right(half) for half in self.halves)
        except Exception:  # a change may be impossible in any way
            return False


def _above(unit: str, parents: dict[str, str]) -> list[str]:
    found = []
    while parents.get(unit):
        unit = parents[unit]
        found.append(unit)
    return found


def _halves(place: Place, forcing: Forcing) -> tuple[str, ...]:
    names = [s.at.partition(" ")[2] or place.unit for s in place.spots]
    tops = {name.split(".")[0] for name in names if name} & {"encoder", "decoder"}
    stages = {half for half, stage in STAGES.items() for s in place.spots if s.at in stage}
    wanted = {"encoder": "encode", "decoder": "decode"}
    halves = stages | {wanted[top] for top in tops}
    return tuple(half for half in HALVES if half in halves) or HALVES


def edits_for(trial: Trial, reference_unit: str, told: Sequence[object]) -> Iterator[Edit]:
    """Changes to try, the likeliest first: what is told by a constant before what is only fitted."""
    forcing, place = trial.forcing, trial.place
    first = next((d for d in place.differences if d.found is not None and d.wanted is not None), place.differences[0])
    scope = Scope(
        forcing.vae,
        modules_of(trial),
        [*hints_of(forcing, reference_unit), *told],
        first.found,
        first.wanted,
    )
    if not place.unit:
        yield from config_edits(scope)
    for difference in place.differences if not place.unit else ():
        at = difference.spot.at
        around = Scope(forcing.vae, [""], scope.hints, difference.found, difference.wanted)
        if at == "normalized":
            yield from normalisation_edits(around, forcing.outputs("encode").get("mean"))
        if " " in at:
            yield from fitted_edits(around, at)
        yield from latent_edits(around, at)
    yield from attribute_edits(scope)
    if place.unit:
        calls = calls_in(scope, trial.errors)
        yield from call_edits(calls, scope.hints)
        yield from structure_edits(scope)
        yield from parameter_edits(scope)
        spot = first.spot.at if " " in first.spot.at else f"{first.spot.at} {place.unit}"
        sources = _sources(trial)
        yield from combined_edits(scope, spot, sources, simple=True)
        yield from word_edits(scope)
        yield from call_edits(calls, scope.hints, operations=True)
        yield from combined_edits(scope, spot, sources, simple=False)
        yield from fitted_edits(scope, spot)


def modules_of(trial: Trial) -> list[str]:
    """The unit's own modules: those of its aligned children are theirs."""
    forcing, unit = trial.forcing, trial.place.unit
    aligned = forcing.fitting - set(trial.around)
    names = [name for name, _ in forcing.vae.named_modules()]
    if not unit:
        tops = ("encoder", "decoder")
        return [n for n in names if n not in aligned and not any(within(n, t) for t in (*tops, *aligned))]
    children = [u for u in aligned if u != unit and within(u, unit)]
    return [n for n in names if within(n, unit) and not any(within(n, c) for c in children)]


def hints_of(forcing: Forcing, reference_unit: str) -> list[object]:
    """Constants of the reference's module and of its operations."""
    record = forcing.truth.captured.record
    path = "" if reference_unit in (ENCODE, DECODE) else reference_unit
    found: list[object] = []
    if path in record.units:
        found += values(record.units[path].constants)
    for operation in record.operations:
        if path and within(operation.unit, path):
            found += values(operation.constants)
    unique: list[object] = []
    for value in found:
        if not any(type(value) is type(u) and value == u for u in unique):
            unique.append(value)
    return unique


def _sources(trial: Trial) -> list[tuple[str, str, Tensor]]:
    """Tensors of the unit and its children that a residual could be."""
    forcing, found = trial.forcing, []
    near = [
        u for u in forcing.units if u.native == trial.place.unit or forcing.parents.get(u.native) == trial.place.unit
    ]
    for unit in near:
        for end in ("in", "out"):
            if unit.native == trial.place.unit and end == "out":
                continue
            calls = forcing.truth.calls(unit.reference, end)
            shape = None if not trial.place.differences else trial.place.differences[0].found
            if calls and shape is not None:
                tensor = forcing.truth.fitted(unit.reference, end, shape.shape, 0)
                if tensor is not None:
                    found.append((unit.native, end, tensor))
    return found


_MORE = 4
"""How many times the changes that were tried until one mends a place are tried for one that mends the outputs too."""


@dataclass
class Answer:
    """The change that mends a place, or None; how many were tried; what was left of the error."""

    edit: Edit | None
    tried: int
    remaining: float | None = None


def search(
    trial: Trial, checks: Sequence[Trial], reference_unit: str, told: Sequence[object], seconds: float
) -> Answer:
    """The first change after which nothing differs at the place, in this case and in those of `checks`.

    A case in which nothing can be compared there, since the reference drops what ours does not, asks for the right
    outputs: they show the change to be wrong, or another fault, so the search for a better one is short. When several
    faults lie there, the first that mends one spot and breaks none, in all cases.
    """
    if not trial.place.differences:  # it shows in the whole run alone
        return Answer(None, 0)
    deadline, tried = time.monotonic() + seconds, 0
    partly: tuple[Edit, float] | None = None
    mends: tuple[Edit, int] | None = None
    blind = [check for check in checks if not check.compared]
    for edit in edits_for(trial, reference_unit, told):
        if time.monotonic() > deadline or (mends and tried > _MORE * mends[1]):
            break
        tried += 1
        after = _tried(edit, trial)
        if after is None:
            continue
        if not after and all(_tried(edit, check) == [] for check in checks):
            if all(check.agrees(edit) for check in blind):
                return Answer(renamed(edit, trial.forcing.vae, trial.errors), tried, 0.0)
            mends = mends or (edit, tried)
        elif partly is None and (left := _partly(after, trial, checks, edit)) is not None:
            partly = edit, left
    if mends is not None:
        return Answer(renamed(mends[0], trial.forcing.vae, trial.errors), tried, 0.0)
    if partly is not None:
        return Answer(partly[0], tried, partly[1])
    return Answer(None, tried)


def _partly(after: Sequence[Difference], trial: Trial, checks: Sequence[Trial], edit: Edit) -> float | None:
    """The worst error that is left if something is right that was not, in all cases; else None.

    Nothing may be wrong that was right, unless it is made of what is mended, or was not reached.
    """
    gone = set(trial.place.spots) - {d.spot for d in after}
    raised = any(d.raised and d.spot in gone for d in trial.place.differences)
    behind = {spot for one in gone for spot in _made_of(one)}
    worst = 0.0
    for one, left in ((trial, after), *((check, _tried(edit, check)) for check in checks if gone)):
        if left is None:
            return None
        reached = {d.spot for d in left if raised and d.spot.at not in ("inside", "after")}
        if not {d.spot for d in left} <= {*one.place.spots, *behind, *reached} - gone:
            return None
        worst = max(worst, *(d.error for d in left), 0.0)
    return worst if gone else None


def _made_of(spot: Spot) -> Iterator[Spot]:
    """Outputs that are compared only if what is here is right."""
    for half, stages in STAGES.items():
        if spot.at in stages:
            yield from (Spot("", stage) for stage in stages[stages.index(spot.at) + 1 :])
        elif spot.at == f"before {half}r":
            yield from (Spot("", stage) for stage in stages)


@torch.no_grad()
def _tried(edit: Edit, trial: Trial) -> list[Difference] | None:
    try:
        with trial.forcing.unlearned(), edit.applied(trial.forcing.vae):
            found = trial.errors()
        # what is not compared any more has not become right
        whole = trial.compared <= trial.forcing.compared
    except Exception:  # a change may be impossible in any way
        return None
    return found if whole and not any(d.raised for d in found) else None
