"""How a checkpoint may be read: every architecture whose names, shapes and plan come near to it, best first."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from vaeport.configs import VAEArchConfig
from vaeport.errors import VaeportError
from vaeport.mapping import Layout, plan
from vaeport.mapping.outline import ForeignShapes, Outline, outlines
from vaeport.registry import Registration
from vaeport.runtime.reading import Reading, Shapes, native_shapes
from vaeport.shapes import Collected, WeightShapes, collect

MOST = 8
"""Outlines that are looked at closely: more have never been near."""
_CONTRADICTIONS = (VaeportError, ArithmeticError, LookupError, TypeError, ValueError, RuntimeError)
"""What building a model from the shapes of another may end in."""


def readings(shapes: Shapes, registrations: Sequence[Registration]) -> list[Reading]:
    """How the checkpoint may be read, best first: the fewer keys that do not fit, the more that do.

    The names alone say which layouts and prefixes are worth a closer look; the shapes, which constants; a plan, whether
    all of it is so. Where nothing fits, a missing key may have hidden what the shapes show: then published variants
    are tried whole, too.
    """
    reader = _Reader(shapes)
    found: list[Reading] = []
    pairs: list[tuple[Registration, Outline]] = []
    for outline in near(shapes, registrations):
        fitting = [one for one in found if one.plan.fits and one.plan.prefix == outline.prefix]
        if any(outline.keys < len(one.used) for one in fitting):
            continue  # what fits as well speaks of as many keys
        for registration in registrations:
            own = [layout for layout in registration.layouts if layout.rules is outline.layout.rules]
            if own:
                layout = next((layout for layout in own if outline.prefix in layout.prefixes), own[0])
                pairs.append((registration, replace(outline, layout=layout)))
                found += reader.shown(*pairs[-1])
    if not any(one.plan.fits for one in found):
        found += [one for pair in pairs for one in reader.published(*pair)]
    return sorted((one for one in found if one.whole.steps), key=_order)


def near(shapes: Shapes, registrations: Sequence[Registration]) -> list[Outline]:
    """The layouts and prefixes that the names come nearest to; layouts with the same rules stand for each other."""
    layouts = {id(layout.rules): layout for one in registrations for layout in one.layouts}
    found = outlines(list(layouts.values()), shapes, MOST)
    return [one for one in found if 5 * one.rank > found[0].rank]


def _order(reading: Reading) -> tuple[int, int, bool]:
    return reading.misfits, -len(reading.used), not reading.has_known_prefix


def read_as(
    shapes: Shapes, registration: Registration, archs: Mapping[str, VAEArchConfig], *, published: bool = False
) -> list[Reading]:
    """The checkpoint as given architectures, in each layout, best first; their names are variants if `published`."""
    reader = _Reader(shapes)
    found = []
    for layout in registration.layouts:
        outline = next(iter(outlines([layout], shapes)), None) or Outline(layout, layout.prefixes[0])
        for name, arch in archs.items():
            found.append(reader.planned(registration, outline, arch, (name,) if published else ()))
    return sorted(found, key=_order)


class _Reader:
    """Readings of one checkpoint; native shapes and fields are found once."""

    def __init__(self, shapes: Shapes) -> None:
        self._shapes = shapes
        self._native: dict[tuple[str, str], Shapes] = {}
        self._fields: dict[tuple[str, int, str], Collected] = {}

    def shown(self, registration: Registration, outline: Outline) -> list[Reading]:
        """With the constants that the shapes show, if they are near to the architecture's."""
        model, collected = registration.model, self._collected(registration, outline)
        if not collected.is_near:
            return []
        if not collected.determined:
            return self.published(registration, outline)  # nothing tells how its constants are read
        values = {name: one.value for name, one in collected.determined.items()}
        equal = tuple(v for v, arch in model.variants.items() if values.items() <= vars(arch).items())
        values = {**{name: one.value for name, one in collected.assumed.items()}, **values}
        try:
            arch = model.variants[equal[0]] if equal else model.arch_class(**values)
            reading = self.planned(registration, outline, arch, equal)
        except _CONTRADICTIONS:
            return []
        if equal or not reading.plan.fits:
            return [reading]
        # one function may be written with several sets of constants
        return [one for one in self.published(registration, outline) if one.plan.fits] or [reading]

    def published(self, registration: Registration, outline: Outline) -> list[Reading]:
        """As each published variant; as all of those that fit, if any does."""
        model = registration.model
        found = [self.planned(registration, outline, arch, (v,)) for v, arch in model.variants.items()]
        fitting = [one for one in found if one.plan.fits]
        if not fitting:
            return found if self._collected(registration, outline).is_near else []
        return [self._marked(fitting[0], tuple(v for one in fitting for v in one.variants))]

    def planned(
        self, registration: Registration, outline: Outline, arch: VAEArchConfig, variants: tuple[str, ...]
    ) -> Reading:
        """As one architecture."""
        key = registration.name, repr(arch)
        if key not in self._native:
            self._native[key] = native_shapes(registration.model, arch)
        native = self._native[key]
        whole = plan(replace(outline.layout, prefixes=(outline.prefix,)), native, self._shapes)
        shown = self._collected(registration, outline).determined
        inside = sum(key.startswith(outline.prefix) for key in self._shapes)
        reading = Reading(registration, arch, (), shown, native, replace(whole, layout=outline.layout), inside)
        return self._marked(reading, variants)

    def _marked(self, reading: Reading, variants: tuple[str, ...]) -> Reading:
        """As those of the variants that a key elsewhere in the file speaks for, if one does."""
        layout = reading.whole.layout
        return reading.named(tuple(v for v in variants if _is_marked(layout, v, self._shapes)) or variants)

    def _collected(self, registration: Registration, outline: Outline) -> Collected:
        key = registration.name, id(outline.layout), outline.prefix
        if key not in self._fields:
            find = ForeignShapes.of(outline.layout, outline.prefix, self._shapes).find
            weights = WeightShapes(find, outline.halves)
            try:
                found = collect(registration.model.arch_class.read_shapes(weights), weights)
            except _CONTRADICTIONS:
                found = Collected(unread=("all",))
            self._fields[key] = found
        return self._fields[key]


def _is_marked(layout: Layout, variant: str, shapes: Shapes) -> bool:
    marker = layout.variants.get(variant)
    return marker is not None and any(re.fullmatch(marker, key) for key in shapes)
