"""Activations that are written and read piece by piece."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.layers.laws import normal
from vaeport.layers import HEIGHT, TIME
from vaeport.runtime.bands import Bands, cuts
from vaeport.runtime.profile import Profile
from vaeport.runtime.rehearsal import Rehearsal

CPU = torch.device("cpu")


@given(data=st.data())
@settings(max_examples=40)
def test_what_is_read_is_what_was_written(data: st.DataObject) -> None:
    """In any pieces, kept or waiting, whole or sliced; and after what lies below is let go."""
    x, draw = normal(1, 2, 9, 12, 3), data.draw
    axis = draw(st.sampled_from((TIME, HEIGHT)))
    sliced = (HEIGHT, draw(st.integers(1, 13))) if axis == TIME and draw(st.booleans()) else None
    bands = Bands(axis, CPU, draw(st.sampled_from((None, 0, 700))), sliced)
    for a, b in cuts(x.shape[axis], draw(st.integers(1, 5)), draw(st.integers(1, 5))):
        bands.append(bands.kept(x.narrow(axis, a, b - a)))
    for along in (TIME, HEIGHT):
        assert bands.size(along) == x.shape[along]

    def interval(n: int, least: int = 0) -> tuple[int, int]:
        a = draw(st.integers(least, n - 1))
        return a, draw(st.integers(a + 1, n))

    frames, rows = interval(9), interval(12)
    whole = x[:, :, frames[0] : frames[1], rows[0] : rows[1]]
    first = frames if axis == TIME else rows
    assert torch.equal(bands.read(rows, HEIGHT, frames), whole)
    assert torch.equal(bands.read(first, axis), x.narrow(axis, first[0], first[1] - first[0]))
    bands.release(first[0])
    assert torch.equal(bands.read(first, axis), x.narrow(axis, first[0], first[1] - first[0]))


def test_what_is_over_waits_in_slices() -> None:
    bands = Bands(TIME, torch.device("meta"), resident=0, sliced=(HEIGHT, 5))
    x = torch.empty(1, 2, 1, 12, 3, device="meta")
    with Rehearsal(Profile()):  # which moves what has no memory
        parts = bands.kept(x)
    assert [(part.device.type, part.shape[HEIGHT]) for part in parts] == [("cpu", 5), ("cpu", 5), ("cpu", 2)]


@pytest.mark.parametrize(
    ("n", "first", "rest", "found"),
    [(5, 1, 2, [(0, 1), (1, 3), (3, 5)]), (4, 9, 2, [(0, 4)]), (0, 1, 1, []), (3, 1, 1, [(0, 1), (1, 2), (2, 3)])],
)
def test_cuts(n: int, first: int, rest: int, found: list[tuple[int, int]]) -> None:
    assert cuts(n, first, rest) == found
