"""Padding: the values of torch's own, the laws along every axis, and what a stream has to keep of an edge."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.layers.laws import assert_needs, assert_streams, cuttings, difference, filled, kept_alive, normal, singles
from vaeport.errors import InputError
from vaeport.layers import HEIGHT, TIME, WIDTH, Chain, Conv, Layer, Pad, stream

AXES = [TIME, HEIGHT, WIDTH]
MODES: list[Any] = ["constant", "replicate", "reflect"]
NONE = (0, 0)


def along(axis: int, before: int, after: int) -> tuple[tuple[int, int], ...]:
    """Padding of one axis."""
    return tuple((before, after) if i == axis else NONE for i in AXES)


def causal(stride: int = 1) -> Chain:
    past = Pad("replicate", ((2, 0), NONE, NONE))
    return Chain(past=past, conv=Conv(2, 2, (3, 1, 1), stride=(stride, 1, 1)))


def padded(x: Tensor, mode: Any, pads: tuple[tuple[int, int], ...]) -> Tensor:
    return F.pad(x, [n for pad in reversed(pads) for n in pad], mode=mode)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("amounts", [NONE, (2, 0), (0, 1), (1, 3)])
@pytest.mark.parametrize("mode", MODES)
def test_one_axis_is_torchs(mode: Any, amounts: tuple[int, int], axis: int) -> None:
    x, pads = normal(2, 3, 4, 5, 6), along(axis, *amounts)
    y = Pad(mode, pads)(x)
    assert torch.equal(y, padded(x, mode, pads))
    assert y.shape[axis] == Pad(mode, pads).length(x.shape[axis], axis)


@pytest.mark.parametrize("pads", [((2, 0), (1, 1), (1, 1)), ((0, 0), (1, 2), (2, 1)), ((1, 1), (1, 1), (0, 0))])
@pytest.mark.parametrize("mode", MODES)
def test_several_axes_are_torchs(mode: Any, pads: tuple[tuple[int, int], ...]) -> None:
    x = normal(2, 3, 4, 5, 6)
    assert torch.equal(Pad(mode, pads)(x), padded(x, mode, pads))


def test_values() -> None:
    row = torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 1, 1, 3)
    found = {mode: Pad(mode, along(WIDTH, 2, 1))(row).flatten().tolist() for mode in MODES}
    assert found == {"constant": [0, 0, 1, 2, 3, 0], "replicate": [1, 1, 1, 2, 3, 3], "reflect": [3, 2, 1, 2, 3, 2]}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_no_value_is_rounded(dtype: torch.dtype) -> None:
    x = normal(2, 3, 4, 2, 3).to(dtype)
    y = Pad("replicate", along(TIME, 3, 1))(x)
    assert y.dtype == dtype
    assert torch.equal(y, torch.cat((x[:, :, :1],) * 3 + (x, x[:, :, -1:]), TIME))


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("amounts", [NONE, (2, 0), (0, 2), (1, 1), (2, 1)])
@pytest.mark.parametrize("mode", MODES)
@given(data=st.data())
@settings(max_examples=5)
def test_streams(mode: Any, amounts: tuple[int, int], axis: int, data: st.DataObject) -> None:
    """Down to the fewest positions that there is anything to mirror of."""
    n = data.draw(st.integers(1 + max(amounts) * (mode == "reflect"), 7))
    x = normal(1, 2, 3, 3, 2).narrow(axis, 0, 1).repeat_interleave(n, axis) + normal(n).view(-1, *(1,) * (-axis - 1))
    layer = Pad(mode, along(axis, *amounts))
    assert_streams(layer, x, axis, data.draw(cuttings(n) | st.just(singles(n))))


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("mode", MODES)
@given(data=st.data())
@settings(max_examples=4)
def test_all_axes_at_once_stream(mode: Any, axis: int, data: st.DataObject) -> None:
    x = normal(1, 2, 4, 3, 5)
    n = x.shape[axis]
    layer = Pad(mode, ((2, 0), (1, 1), (1, 2)))
    assert_streams(layer, x, axis, data.draw(cuttings(n) | st.just(singles(n))))


CAUSAL: dict[str, Layer] = {
    "causal": causal(),
    "halved": causal(stride=2),
    "halved twice": Chain(causal(), causal(stride=2), causal(), causal(stride=2)),
}
for _layer in CAUSAL.values():
    filled(_layer)


@pytest.mark.parametrize("name", CAUSAL)
@given(frames=st.integers(1, 9), data=st.data())
@settings(max_examples=10)
def test_convolutions_behind_it_stream(name: str, frames: int, data: st.DataObject) -> None:
    x = normal(2, 2, frames, 3, 2)
    assert_streams(CAUSAL[name], x, TIME, data.draw(cuttings(frames) | st.just(singles(frames))))


@pytest.mark.parametrize("name", CAUSAL)
def test_convolutions_behind_it_need(name: str) -> None:
    assert_needs(CAUSAL[name], normal(1, 2, 7, 3, 2), TIME)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("amounts", [NONE, (2, 0), (0, 2), (1, 1)])
@pytest.mark.parametrize("mode", MODES)
def test_needs(mode: Any, amounts: tuple[int, int], axis: int) -> None:
    """What is mirrored, or repeated behind an end that is not known here, is stated generously."""
    tight = mode == "constant" or (mode == "replicate" and not amounts[1]) or amounts == NONE
    assert_needs(Pad(mode, along(axis, *amounts)), normal(1, 2, 4, 5, 6), axis, tight=tight)


@pytest.mark.parametrize("mode", MODES)
def test_padding_of_nothing_is_nothing(mode: Any) -> None:
    layer = Pad(mode, along(TIME, 2, 1))
    assert layer.length(0, TIME) == 0
    assert layer.step(None, None, False, TIME) == (None, None)
    assert layer.step(None, None, True, TIME) == (None, None)


@pytest.mark.parametrize("axis", AXES)
def test_too_short_for_a_mirror(axis: int) -> None:
    layer, x = Pad("reflect", along(axis, 1, 2)), normal(1, 2, 3, 3, 3)
    assert layer(x).shape[axis] == 6
    for run in (lambda y: layer(y), lambda y: list(stream(layer, [y], axis))):
        with pytest.raises(InputError, match="too short to be mirrored at its edges") as refused:
            run(x.narrow(axis, 0, 2))
        assert (refused.value.expected, refused.value.found) == ("more than 2", 2)


def test_an_axis_that_it_does_not_know_keeps_its_length() -> None:
    assert Pad("constant", ((1, 1),)).length(5, HEIGHT) == 5
    assert Pad("constant", ((1, 1),)).length(5, WIDTH) == 7


def test_a_mirror_waits_for_what_it_mirrors() -> None:
    layer, x = Pad("reflect", along(TIME, 2, 0)), normal(1, 2, 5, 1, 1)
    state, outputs = None, []
    for frame in x.split(1, TIME):
        y, state = layer.step(frame, state, False, TIME)
        outputs.append(0 if y is None else y.shape[TIME])
    assert outputs == [0, 0, 5, 1, 1]


def test_the_last_frame_comes_at_once_and_again_at_the_end() -> None:
    layer, x = Pad("replicate", along(TIME, 0, 2)), normal(1, 2, 3, 1, 1)
    y, state = layer.step(x, None, False, TIME)
    assert torch.equal(y, x)
    y, _ = layer.step(None, state, True, TIME)
    assert torch.equal(y, x[:, :, 2:].expand(-1, -1, 2, -1, -1))


@pytest.mark.parametrize(
    ("mode", "amounts", "frames"),
    [("constant", (2, 2), 0), ("replicate", (2, 0), 0), ("replicate", (2, 2), 1), ("reflect", (0, 2), 3)],
)
def test_the_state_holds_what_is_repeated_alone(mode: Any, amounts: tuple[int, int], frames: int) -> None:
    """At most one more for zeros, and never the piece that it came from."""
    layer, piece = Pad(mode, along(TIME, *amounts)), normal(1, 2, 50, 3, 3)
    state, sizes = None, []
    for _ in range(3):
        _, state = layer.step(piece, state, False, TIME)
        sizes.append(kept_alive(state) // (piece[:, :, :1].numel() * 8))
    assert sizes[0] == sizes[1] == sizes[2] <= max(frames, min(amounts[1], 1))
    assert sizes[0] >= frames


def test_a_piece_that_is_overwritten_changes_nothing() -> None:
    layer, x = Pad("replicate", along(TIME, 0, 1)), normal(1, 2, 3, 1, 1)
    piece = x.clone()
    _, state = layer.step(piece, None, False, TIME)
    piece.fill_(torch.nan)
    assert torch.equal(layer.step(None, state, True, TIME)[0], x[:, :, 2:])


def test_a_still_clip_stays_still() -> None:
    """Zeros in front would make its first frames differ."""
    still = normal(1, 2, 1, 3, 2).expand(-1, -1, 9, -1, -1)
    y = CAUSAL["halved twice"](still)
    assert y.shape[2] == 3
    assert difference(y, y[:, :, :1].expand_as(y)) < 1e-14
