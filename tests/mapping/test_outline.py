"""Layouts and prefixes from names alone, and native shapes from stored ones, for the maps of every model."""

from __future__ import annotations

import pytest

from vaeport.mapping import Fuse, Layout, Rule, Units, plan
from vaeport.mapping.outline import ForeignShapes, outlines
from vaeport.registry import ModelRegistry, Registration
from vaeport.runtime.reading import native_shapes

LAYOUTS = [
    (registration, variant, layout)
    for registration in ModelRegistry.registrations()
    for variant in list(registration.model.variants)[-1:]
    for layout in registration.layouts
]


@pytest.mark.parametrize(("registration", "variant", "layout"), LAYOUTS, ids=lambda one: getattr(one, "name", one))
def test_native_shapes_are_found_again(registration: Registration, variant: str, layout: Layout) -> None:
    native = native_shapes(registration.model, registration.model.variants[variant])
    found = plan(layout, native)
    stored = {f"x.1.{b.key.removeprefix(found.prefix)}": s.stored_shape(b) for s in found.steps for b in s.blocks}
    shapes = ForeignShapes.of(layout, "x.1.", stored)
    for key in [step.native for step in found.steps]:
        name, shape = shapes.find(key)
        assert shape == native[key], key
        assert name in stored
    assert shapes.find("encoder.nowhere.weight")[1] is None
    best = outlines([one for _, _, one in LAYOUTS], {**stored, "y.encoder.conv_in.weight": ()})[0]
    assert best.prefix == "x.1."
    assert best.keys >= 0.95 * len(stored)
    assert (best.of, best.halves) == (len(stored), ("encoder", "decoder"))


LAYOUT = Layout(
    name="made",
    rules=(
        Rule("encoder.{i}.qkv", "encoder.{2*i+1}.{part}", Units(trail=2), Fuse(("q", "k", "v"))),
        Rule("encoder.{i}.table", "encoder.{i}.tables#1/2"),
        Rule("encoder.turned", "encoder.turned", Units(transposed=True)),
        Rule("encoder.gain", "encoder.gain", Units(lead=1, trail=1)),
        Rule("encoder.padded", "encoder.padded", Units(lead=-1, trail=-2)),
        Rule("encoder.scalar", "encoder.scalar"),
    ),
    spellings=((r"\.query$", ".q"),),
)
STORED = {
    "p.encoder.3.query": (4, 8, 1, 1),
    "p.encoder.3.k": (4, 8, 1, 1),
    "p.encoder.3.v": (4, 8, 1, 1),
    "p.encoder.0.tables": (6, 5),
    "p.encoder.turned": (3, 2),
    "p.encoder.gain": (1, 7, 1),
    "p.encoder.padded": (9,),
    "p.encoder.scalar": (),
}


@pytest.mark.parametrize(
    ("native", "stored", "shape"),
    [
        ("encoder.1.qkv", "p.encoder.3.query", (12, 8)),
        ("encoder.0.qkv", "p.encoder.1.q", None),
        ("encoder.0.table", "p.encoder.0.tables", (3, 5)),
        ("encoder.turned", "p.encoder.turned", (2, 3)),
        ("encoder.gain", "p.encoder.gain", (7,)),
        ("encoder.padded", "p.encoder.padded", (1, 9, 1, 1)),
        ("encoder.scalar", "p.encoder.scalar", ()),
        ("decoder.scalar", "decoder.scalar", None),
    ],
)
def test_what_happens_to_shapes(native: str, stored: str, shape: tuple[int, ...] | None) -> None:
    assert ForeignShapes.of(LAYOUT, "p.", STORED).find(native) == (stored, shape)


def test_a_part_that_is_missing() -> None:
    stored = {key: shape for key, shape in STORED.items() if key != "p.encoder.3.v"}
    assert ForeignShapes.of(LAYOUT, "p.", stored).find("encoder.1.qkv")[1] is None


def test_names_and_prefixes() -> None:
    (best,) = outlines([LAYOUT], STORED)
    assert (best.prefix, best.keys, best.of, best.share) == ("p.", 8, 8, 1.0)
    assert best.halves == ("encoder",)
    assert [one.prefix for one in outlines([LAYOUT], ["a.0.encoder.gain", "a.1.encoder.gain"], 5)] == ["a.0.", "a.1."]
    assert outlines([LAYOUT], ["encoder.gains", "encoder.gain.extra", "gain"]) == []
