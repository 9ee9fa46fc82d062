"""Who owns which positions: a function of a length alone, so that all layers and all ranks agree without asking."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import floor

from vaeport.errors import InputError
from vaeport.layers.layer import Interval, Layer


@dataclass(frozen=True)
class Partition:
    """`units` positions in `ranks` stripes as even as can be; longer tensors are cut where those cuts come to lie.

    units   the shortest length that is met (usually of the latents), so that cuts fall between latents
    """

    units: int
    ranks: int

    def __post_init__(self) -> None:
        """InputError for more ranks than positions."""
        if self.units < self.ranks:
            what = "there are more ranks than positions to share out"
            raise InputError(what, expected=f"at most {self.units} ranks", found=self.ranks, fix="use fewer ranks")

    def stripe(self, n: int, rank: int) -> Interval:
        """The positions `[start, stop)` of a tensor of length n that `rank` owns; never none for n >= units."""
        start, stop = (n * (self.units * r // self.ranks) // self.units for r in (rank, rank + 1))
        return start, stop

    def stripes(self, n: int) -> list[Interval]:
        """Those of all ranks, in order."""
        return [self.stripe(n, rank) for rank in range(self.ranks)]


def inputs_of(layer: Layer, outputs: Interval, n: int, axis: int) -> Interval:
    """The inputs of n from which `layer` gives `outputs`, beginning where it gives an output of its own.

    InputError for a layer whose outputs depend on all inputs, and which is no barrier.
    """
    needed, least = layer.needs(outputs, axis), layer.needs((0, 1), axis)
    if needed is None or least is None:
        what = f"{type(layer).__name__} runs whole only, so it cannot be shared out"
        raise InputError(what, fix="run it on one device, or share out whole clips")
    start = max(needed[0], 0)
    # no fewer than the first output needs, without which a layer may not run: one position has no mirror image
    stop = min(max(needed[1], start + least[1]), n)
    start = max(min(start, stop - least[1]), 0)
    return start - start % layer.rate(axis).denominator, stop


def skipped(layer: Layer, inputs: Interval, outputs: Interval, axis: int) -> int:
    """Outputs that `layer`, fed with `inputs`, gives before the first of `outputs`."""
    return outputs[0] - floor(Fraction(inputs[0]) * layer.rate(axis))


def common(a: Interval, b: Interval) -> Interval:
    """Where two intervals overlap; empty if stop <= start."""
    return max(a[0], b[0]), min(a[1], b[1])
