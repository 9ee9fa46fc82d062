"""The statistics of one tensor on two sides, after the calls of a module that streams were joined to one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from vaeport.drift.fastvideo_trace import STATS, Record

Stats = dict[str, tuple[float, float, float]]


def side_by_side(native: Sequence[Record], reference: Sequence[Record]) -> tuple[Stats, tuple[str, ...]]:
    """name -> (native, reference, relative difference) of what both have, and what else is to be said.

    Each side is given by the calls that make up the tensor. NaN on both sides says nothing and is left out with a
    note; on one side alone it is an infinite difference, as are tensors of different sizes.
    """
    counts, shapes = [_count(calls) for calls in (native, reference)], [_shape(calls) for calls in (native, reference)]
    ours, theirs = _joined(native), _joined(reference)
    stats: Stats = {}
    notes = [f"{name}: {text}" for one in (*native, *reference) for name, text in one.failed.items()]
    for name in (name for name in STATS if name in ours and name in theirs):
        a, b = ours[name], theirs[name]
        if math.isnan(a) and math.isnan(b):
            notes.append(f"{name} is NaN on both sides")
        else:
            stats[name] = (a, b, _relative(name, ours, theirs, max(map(int, filter(None, counts)), default=0)))
    if None not in counts and counts[0] != counts[1]:
        notes.append(f"{counts[0]} values against {counts[1]}")
        stats = {name: (a, b, math.inf) for name, (a, b, _) in stats.items()}
    if None not in shapes and shapes[0] != shapes[1]:
        notes.append(f"shape {shapes[0]} against {shapes[1]}")
    dtypes = [{one.dtype for one in calls} for calls in (native, reference)]
    if dtypes[0] != dtypes[1] and None not in dtypes[0] | dtypes[1]:
        notes.append(" against ".join(", ".join(sorted(map(str, side))) for side in dtypes))
    return stats, tuple(dict.fromkeys(notes if stats else (*notes, "no statistic to compare")))


def _relative(name: str, ours: dict[str, float], theirs: dict[str, float], count: int) -> float:
    a, b = ours[name], theirs[name]
    if a == b:
        return 0.0
    if not (math.isfinite(a) and math.isfinite(b)):
        return math.inf
    scales = [abs(a), abs(b)]
    if name in ("mean", "sum"):  # they cancel: their own size says nothing of how exact they are
        scales += [side["abs_mean"] * (count if name == "sum" else 1) for side in (ours, theirs) if "abs_mean" in side]
    if name in ("min", "max"):
        scales += [abs(side[end]) for side in (ours, theirs) for end in ("min", "max") if end in side]
    return abs(a - b) / max(filter(math.isfinite, scales))


def _count(calls: Sequence[Record]) -> int | None:
    return None if any(one.shape is None for one in calls) else sum(math.prod(one.shape or ()) for one in calls)


def _shape(calls: Sequence[Record]) -> tuple[int, ...] | None:
    """The shape of the joined tensor, where its axis can be told from the calls."""
    shapes = [one.shape for one in calls if one.shape is not None]
    if len(shapes) < len(calls) or len({len(shape) for shape in shapes}) != 1:
        return None
    if len(shapes) == 1:
        return shapes[0]
    axes = {axis for a, b in pairwise(shapes) for axis in range(len(a)) if a[axis] != b[axis]}
    if len(axes) != 1:
        return None
    return tuple(sum(s[axis] for s in shapes) if axis in axes else size for axis, size in enumerate(shapes[0]))


def _joined(calls: Sequence[Record]) -> dict[str, float]:
    """Statistics of the concatenation; what does not follow from those of the parts is absent."""
    if len(calls) == 1:
        return dict(calls[0].stats)
    plain: dict[str, Callable[[list[float]], float]] = {"sum": sum, "min": min, "max": max}
    held = [name for name in STATS if all(name in one.stats for one in calls)]
    found = {name: plain[name]([one.stats[name] for one in calls]) for name in held if name in plain}
    for name in found:
        if any(math.isnan(one.stats[name]) for one in calls):  # which min and max pass over
            found[name] = math.nan
    if any(one.shape is None for one in calls):
        return found
    counts = [math.prod(one.shape or ()) for one in calls]
    total = sum(counts)
    for name in ("abs_mean", "mean"):
        if name in held and total:
            found[name] = sum(n * one.stats[name] for n, one in zip(counts, calls, strict=True) if n) / total
    if "std" in held and "mean" in found and total > 1:
        squares = sum(
            (n - 1) * (one.stats["std"] ** 2 if n > 1 else 0) + n * (one.stats["mean"] - found["mean"]) ** 2
            for n, one in zip(counts, calls, strict=True)
            if n
        )
        found["std"] = math.sqrt(squares / (total - 1))
    return found
