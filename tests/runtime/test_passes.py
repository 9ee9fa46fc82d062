"""The executor: any cut into passes, windows and pieces gives the whole, for every model."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.layers.laws import STREAMED, difference, filled, normal
from tests.narrow import half, latent, media, native
from vaeport.errors import BlockedError
from vaeport.layers import HEIGHT, SAMPLES, WIDTH, Chain, Conv, GroupNorm, Layer, SiLU
from vaeport.runtime.passes import Pass, Passes
from vaeport.runtime.program import Op, depth_after, is_barrier, layer_of, steps_of

VIDEO = ("wan", "wan2_2", "ltx", "ltx5", "ltx2", "ltx23")
MODELS = ("kl", *VIDEO, "magvit", "hunyuan_video", "gamecraft", "gamecraft_open", "oobleck8")
HALVES = ("encoder", "decoder")
SMALL = {"ltx": (1, 3, 9, 64, 96), "ltx5": (1, 3, 9, 64, 96), "ltx2": (1, 3, 9, 64, 96), "ltx23": (1, 3, 9, 64, 96)}


def case(name: str, of: str) -> tuple[Layer, Tensor]:
    if of == "encoder":
        return half(name, of), media(name, SMALL.get(name))
    return half(name, of), latent(name)[:1] if name in SMALL else latent(name)


def alone(ops: list[Op]) -> list[int]:
    """Places where one tensor is all there is."""
    depth, found = 1, []
    for i, op in enumerate(ops, 1):
        depth += depth_after(op)
        if depth == 1 and i < len(ops):
            found.append(i)
    return found


@pytest.mark.parametrize("of", HALVES)
@pytest.mark.parametrize("name", MODELS)
@given(data=st.data())
@settings(max_examples=5)
def test_any_passes_give_the_whole(name: str, of: str, data: st.DataObject) -> None:
    """Cut anywhere, also within residual blocks, with windows of any height or width."""
    layer, x = case(name, of)
    axis = SAMPLES if name == "oobleck8" else data.draw(st.sampled_from((HEIGHT, WIDTH)))
    ops = steps_of(layer, x.shape[0])
    places = sorted(data.draw(st.sets(st.integers(1, len(ops) - 1), max_size=6)))
    passes = [Pass(a, b, data.draw(st.integers(2, 40))) for a, b in pairwise([0, *places, len(ops)])]
    assert difference(Passes(ops, x, axis).run(passes), layer(x)) <= STREAMED


@pytest.mark.parametrize("of", HALVES)
@pytest.mark.parametrize("name", VIDEO)
@given(data=st.data())
@settings(max_examples=4)
def test_windows_in_pieces_of_time(name: str, of: str, data: st.DataObject) -> None:
    layer, x = case(name, of)
    axis = data.draw(st.sampled_from((HEIGHT, WIDTH)))
    ops = steps_of(layer)
    sees_all = max((i for i, op in enumerate(ops) if is_barrier(op, axis)), default=-1)
    place = data.draw(st.sampled_from(alone(ops)))
    pieces = (1, 4) if of == "encoder" else (1, 1)
    rows = st.integers(1, 40)
    waiting = data.draw(st.sampled_from((None, 0)))
    first = Pass(0, place, 2**31 if 0 <= sees_all < place else data.draw(rows), pieces, waiting)
    second = Pass(place, len(ops), 2**31 if sees_all >= place else data.draw(rows), pieces)
    assert difference(Passes(ops, x, axis).run([first, second]), layer(x)) <= STREAMED


@pytest.mark.parametrize("of", HALVES)
@pytest.mark.parametrize("name", ["hunyuan_video", "gamecraft", "gamecraft_open"])
@given(data=st.data())
@settings(max_examples=2)
def test_settled_norms_in_pieces_of_time(name: str, of: str, data: st.DataObject) -> None:
    """What sees all of space and time is settled first, on windows that run in pieces themselves."""
    layer, x = case(name, of)
    ops = steps_of(layer, x.shape[0])
    attention = next(i for i, op in enumerate(ops) if "Attention" in type(getattr(op, "layer", None)).__name__)
    behind = [i for i in alone(ops) if i > attention]
    place = data.draw(st.sampled_from(behind))
    passes = [Pass(0, place, 7), Pass(place, len(ops), data.draw(st.integers(12, 40)), (2, 3))]
    assert difference(Passes(ops, x, HEIGHT).run(passes), layer(x)) <= STREAMED


@pytest.mark.parametrize("name", ["kl", "wan", "wan2_2", "ltx2", "oobleck8"])
@pytest.mark.parametrize("of", HALVES)
def test_steps_are_the_layer(name: str, of: str) -> None:
    layer, x = case(name, of)
    assert torch.equal(layer_of(steps_of(layer))(x), layer(x))


def test_a_barrier_behind_a_pass_costs_no_pass_of_its_own() -> None:
    """Cut before every norm, each convolution runs once; cut nowhere, the first runs once for each norm, too."""
    layer = filled(Chain(*(Chain(GroupNorm(4, 2), SiLU(), Conv(4, 4, (3, 3), pad=((1, 1),) * 2)) for _ in range(3))))
    x, ops = normal(1, 4, 12, 6), steps_of(layer)
    counts = []
    for places in ([3, 6], []):
        calls: list[int] = []
        hooks = [
            module.register_forward_hook(lambda m, a, y, calls=calls: calls.append(1))
            for module in layer.modules()
            if isinstance(module, Conv)
        ]
        y = Passes(ops, x, HEIGHT).run([Pass(a, b, 4) for a, b in pairwise([0, *places, len(ops)])])
        counts.append(len(calls))
        for hook in hooks:
            hook.remove()
        assert difference(y, layer(x)) <= STREAMED
    assert counts == [9, 9 + 2 * 3 + 3]


class Narrow(Layer):
    """Has memory for so many rows only."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows, self.refused = rows, 0

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[HEIGHT] > self.rows:
            self.refused += 1
            raise torch.OutOfMemoryError("no memory for so many rows")
        return 2 * x


def test_windows_that_do_not_fit_are_halved() -> None:
    """From the one that failed on; those that are done stay, and their notes count once."""
    conv = filled(Conv(4, 4, (3, 3), pad=((1, 1),) * 2))
    norm, narrow = filled(GroupNorm(4, 2)), Narrow(9)
    x, whole = normal(1, 4, 40, 6), Narrow(10**9)
    truth = norm(whole(conv(x)))
    run = Passes(steps_of(Chain(conv, narrow, norm)), x, HEIGHT)
    y = run.run([Pass(0, 2, 20), Pass(2, 3, 20)])
    assert difference(y, truth) <= STREAMED
    assert (narrow.refused, run.halved) == (2, 2)
    run = Passes(steps_of(Chain(conv, narrow, norm)), x, HEIGHT)
    assert difference(run.run([Pass(0, 3, 2**31)]), truth) <= STREAMED  # a whole that does not fit is settled first


def test_no_row_fits() -> None:
    with pytest.raises(BlockedError, match="out of memory, however small the windows"):
        Passes(steps_of(Chain(Narrow(0))), normal(1, 4, 8, 6), HEIGHT).run([Pass(0, 1, 8)])


def test_other_errors_are_not_taken_for_memory() -> None:
    with pytest.raises(RuntimeError, match="to have 3 channels"):
        Passes(steps_of(filled(Chain(Conv(3, 4, (1, 1))))), normal(1, 4, 8, 6), HEIGHT).run([Pass(0, 1, 2)])


def test_one_plan_gives_the_same_bits() -> None:
    layer, x = native("kl").decoder, latent("kl")
    ops = steps_of(layer, x.shape[0])
    passes = [Pass(0, 30, 2), Pass(30, len(ops), 5)]
    runs: list[Any] = [Passes(ops, x, HEIGHT).run(passes) for _ in range(2)]
    assert torch.equal(*runs)
