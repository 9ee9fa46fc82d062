"""`Trial`: one place under one case, without what lies around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vaeport.drift.edits.edit import Edit
from vaeport.drift.forced import Forcing
from vaeport.drift.passage import FORCE, FREE, OPEN, SKIP, Difference, Spot
from vaeport.drift.truth import HALVES, STAGES


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
