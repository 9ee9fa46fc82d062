"""What passes will cost, from a run of them on tensors without memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vaeport.layers.layer import Layer
from vaeport.runtime.bands import cuts
from vaeport.runtime.passes import Keep, Make, Pass, Passes
from vaeport.runtime.plan import Cost
from vaeport.runtime.profile import Profile
from vaeport.runtime.program import Op
from vaeport.runtime.rehearsal import Rehearsal

_STEADY = 4
"""pieces after which a stream that has looked ahead goes on as before"""
_MADE = 8
"""about how many windows of a pass are made"""


def foretold(
    ops: Sequence[Op],
    layer: Layer,
    x: Tensor,
    passes: Sequence[Pass],
    axis: int,
    time: int | None,
    profile: Profile,
    *,
    out_given: bool,
) -> Cost:
    """The cost of passes over the steps of a layer on an input like x, on the meta device.

    time    the axis of pieces; of a long stream the beginning is run, and the rest is taken for as dear
    """
    pieces, scale = passes[0].pieces, 1.0
    if pieces is not None and time is not None:
        n, short = x.shape[time], pieces[0] + _until_steady(layer, time, pieces[1])
        if n > short + pieces[1]:
            scale = len(cuts(n, *pieces)) / len(cuts(short, *pieces))
            x = x.narrow(time, 0, short)
    with torch.no_grad(), Rehearsal(profile) as counted:
        y = _Sampled(ops, x, axis, counted).run(passes)
    beyond = int(y.nbytes * (scale - 1))
    peak = counted.peak + (-y.nbytes if out_given else beyond)
    return Cost(peak, counted.seconds * scale, int(counted.moved * scale))


def _until_steady(layer: Layer, time: int, piece: int) -> int:
    """Positions after which no state of a stream grows any more: as far as layers look ahead, and some pieces."""
    far = 4096
    found = layer.needs((far, far + 1), time)
    assert found is not None
    ahead = found[1] - far / layer.rate(time)
    return (max(0, -int(-ahead // piece)) + _STEADY) * piece


class _Sampled(Passes):
    """Of many windows the first two, every few and the last are made; others give something like the one before."""

    def __init__(self, ops: Sequence[Op], x: Tensor, axis: int, counted: Rehearsal) -> None:
        super().__init__(ops, x, axis)
        self.counted = counted

    def _windows(self, total: int, rows: int, make: Make, keep: Keep, *, fixed: bool = False) -> None:
        counted, windows = self.counted, cuts(total, rows, rows)
        spent, shapes = (0.0, 0), list[tuple[torch.Size, torch.dtype]]()
        for number, (start, stop) in enumerate(windows):
            if 1 < number < len(windows) - 1 and number % -(-len(windows) // _MADE):
                counted.seconds += spent[0]
                counted.moved += spent[1]
                keep(start, stop, [torch.empty(s, dtype=t, device="meta") for s, t in shapes])
                continue
            before = counted.seconds, counted.moved
            made = make(start, stop)
            spent = counted.seconds - before[0], counted.moved - before[1]
            shapes = [(t.shape, t.dtype) for t in made]
            keep(start, stop, made)
            del made
