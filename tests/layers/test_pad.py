"""Padding with frame 0: the values by hand, and the laws, alone and under convolutions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.layers.laws import assert_needs, assert_streams, cuttings, difference, filled, kept_alive, normal, singles
from vaeport.layers import HEIGHT, TIME, WIDTH, Chain, Conv, Layer, ReplicatePad


def causal(stride: int = 1) -> Chain:
    return Chain(past=ReplicatePad(2), conv=Conv(2, 2, (3, 1, 1), stride=(stride, 1, 1)))


CASES: dict[str, Layer] = {
    "nothing": ReplicatePad(0),
    "two": ReplicatePad(2),
    "causal": causal(),
    "halved": causal(stride=2),
    "halved twice": Chain(causal(), causal(stride=2), causal(), causal(stride=2)),
}
for _layer in CASES.values():
    filled(_layer)


@pytest.mark.parametrize("axis", [TIME, HEIGHT, WIDTH])
@pytest.mark.parametrize("name", CASES)
@given(frames=st.integers(1, 9), data=st.data())
@settings(max_examples=10)
def test_streams(name: str, axis: int, frames: int, data: st.DataObject) -> None:
    x = normal(2, 2, frames, 3, 2)
    n = x.shape[axis]
    assert_streams(CASES[name], x, axis, data.draw(cuttings(n) | st.just(singles(n))))


@pytest.mark.parametrize("axis", [TIME, HEIGHT, WIDTH])
@pytest.mark.parametrize("name", CASES)
def test_needs(name: str, axis: int) -> None:
    assert_needs(CASES[name], normal(1, 2, 7, 3, 2), axis)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_is_torchs_replication(dtype: torch.dtype) -> None:
    x = normal(2, 3, 4, 2, 3).to(dtype)
    y = ReplicatePad(3)(x)
    assert torch.equal(y, F.pad(x, (0, 0, 0, 0, 3, 0), mode="replicate"))


def test_padding_of_nothing_is_nothing() -> None:
    assert ReplicatePad(2).length(0, TIME) == 0
    assert ReplicatePad(2).step(None, None, True, TIME) == (None, None)


def test_the_state_holds_no_frames() -> None:
    _, state = ReplicatePad(2).step(normal(1, 2, 50, 3, 3), None, False, TIME)
    assert state is not None
    assert kept_alive(state) == 0


def test_a_still_clip_stays_still() -> None:
    """Zeros in front would make its first frames differ."""
    still = normal(1, 2, 1, 3, 2).expand(-1, -1, 9, -1, -1)
    y = CASES["halved twice"](still)
    assert y.shape[2] == 3
    assert difference(y, y[:, :, :1].expand_as(y)) < 1e-14
