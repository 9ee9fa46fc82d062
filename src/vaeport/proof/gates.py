"""Gates S and P: how far two tensors may be apart, as a whole and slice by slice."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

SAME_FUNCTION = 1e-10
QUIET_SLICE = 1e-3
CONDITIONING = 1e-12
WHOLE_FACTOR, SLICE_FACTOR = 2.0, 4.0
NO_SIGNAL = 0.1
UNIT_ROUNDOFF = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
EDGES = (1, 2, 4)


@dataclass(frozen=True)
class Measure:
    """One output against its reference: the worst slice, its figure, and the limit that it must not exceed."""

    output: str
    slice: str
    figure: float
    limit: float
    slices: int
    elements: int

    @property
    def passed(self) -> bool:
        """A figure that is not a number has not passed."""
        return self.figure <= self.limit


def rms(x: Tensor) -> float:
    """Root mean square, in float64."""
    return x.double().pow(2).mean().sqrt().item() if x.numel() else 0.0


def slices(x: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The whole, every sample, channel and frame, the outer 1, 2, 4 positions of each axis, and the corners."""
    yield "whole", x
    for i in range(x.shape[0]):
        yield f"sample {i}", x[i]
    for c in range(x.shape[1]):
        yield f"channel {c}", x[:, c]
    axes = {5: ("frame", "row", "column"), 4: ("row", "column"), 3: ("position",)}[x.dim()]
    if x.dim() == 5:
        for t in range(x.shape[2]):
            yield f"frame {t}", x[:, :, t]
    for axis, name in enumerate(axes, start=2):
        n = x.shape[axis]
        for k in EDGES:
            if k < n:
                yield f"first {k} {name}s", x.narrow(axis, 0, k)
                yield f"last {k} {name}s", x.narrow(axis, n - k, k)
    if x.dim() > 3:
        for ends in product(("first", "last"), repeat=2):
            rows, columns = (slice(0, 2) if end == "first" else slice(-2, None) for end in ends)
            yield f"corner {ends[0]} rows {ends[1]} columns", x[..., rows, columns]


def same_function(output: str, native: Tensor, reference: Tensor) -> Measure:
    """Gate S: rms(native - reference) <= 1e-10 * max(rms(slice), 1e-3 rms(whole)) in every slice."""
    whole = rms(reference)
    worst, where, count = -1.0, "whole", 0
    for (name, difference), (_, expected) in zip(slices(native - reference), slices(reference), strict=True):
        scale = max(rms(expected), QUIET_SLICE * whole)
        ratio = rms(difference) / scale if scale > 0 else float("inf") if rms(difference) > 0 else 0.0
        count += 1
        if not ratio <= worst:
            worst, where = ratio, name
    return Measure(output, where, worst, SAME_FUNCTION, count, reference.numel())


def well_conditioned(output: str, one: Tensor, other: Tensor) -> Measure:
    """Two evaluations of the reference itself: rms of their difference against rms of the output."""
    scale = rms(one)
    return Measure(output, "whole", rms(one - other) / scale if scale > 0 else 0.0, CONDITIONING, 1, one.numel())


def same_precision(output: str, runs: Sequence[tuple[Tensor, Tensor, Tensor]], dtype: torch.dtype) -> list[Measure]:
    """Gate P over runs of (native, reference, truth): median error ratio of the whole <= 2, of every slice <= 4.

    The ratio is e(native) / max(e(reference), u * rms(truth)), e the rms distance from the truth.
    """
    ratios: dict[str, list[float]] = {}
    for native, reference, truth in runs:
        pairs = zip(slices(native.double() - truth), slices(reference.double() - truth), slices(truth), strict=True)
        for (name, of_native), (_, of_reference), (_, exact) in pairs:
            floor = max(rms(of_reference), UNIT_ROUNDOFF[dtype] * rms(exact))
            error = rms(of_native)
            ratios.setdefault(name, []).append(error / floor if floor > 0 else float("inf") if error > 0 else 0.0)
    medians: Mapping[str, float] = {name: statistics.median(values) for name, values in ratios.items()}
    elements = sum(truth.numel() for _, _, truth in runs)
    worst = max((name for name in medians if name != "whole"), key=lambda name: medians[name])
    return [
        Measure(output, "whole", medians["whole"], WHOLE_FACTOR, 1, elements),
        Measure(output, worst, medians[worst], SLICE_FACTOR, len(medians) - 1, elements),
    ]


def signal(runs: Sequence[tuple[Tensor, Tensor]]) -> float:
    """Largest e(reference) / rms(truth) over runs of (reference, truth); above 0.1 a comparison says nothing."""
    return max(
        (rms(reference.double() - truth) / max(rms(truth), 1e-300) for reference, truth in runs), default=float("inf")
    )
