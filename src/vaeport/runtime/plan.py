"""`Plan`: how one half of a VAE runs on one shape within a memory budget, and what that takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from vaeport.layers.layer import Layer
from vaeport.runtime.passes import Pass, Passes, Progress
from vaeport.runtime.program import Op, steps_of

Half = Literal["encoder", "decoder"]
Kind = Literal["whole", "stream", "bands"]
GIB = 2**30


@dataclass(frozen=True)
class Cost:
    """What a run takes: bytes at its peak beside the weights, seconds by the device's profile, bytes moved to the host.

    seconds are an estimate; ratios of two are what they are for.
    """

    peak: int
    seconds: float
    moved: int = 0


@dataclass(frozen=True)
class Stop:
    """A barrier: its place, its share of the whole run's time, and the bytes that it keeps of its input."""

    name: str
    kind: str
    share: float
    notes: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Passes over the steps of a half, in windows along `axis`.

    shape       of the input
    kind        "whole"; "stream": pieces of time or samples; "bands": windows of rows
    ranks       devices that share the work, each of which runs the passes on its own stripe
    shared      the axis along which the stripes lie; None for one device
    frames      whether image layers are steps of their own (see `program.steps_of`)
    cost, whole what the plan takes, and what the run in one piece would
    """

    half: Half
    shape: tuple[int, ...]
    device: str
    dtype: str
    kind: Kind
    axis: int
    passes: tuple[Pass, ...]
    cost: Cost
    whole: Cost
    why: str
    barriers: tuple[Stop, ...] = ()
    frames: bool = False
    ranks: int = 1
    shared: int | None = None

    @property
    def relative(self) -> float:
        """Time by the profile, the whole run's being 1."""
        return self.cost.seconds / self.whole.seconds

    def steps(self, layer: Layer) -> list[Op]:
        """The steps of the half that the passes count."""
        return steps_of(layer, self.shape[0] if self.frames else None)

    def run(self, layer: Layer, x: Tensor, out: Tensor | None = None, progress: Progress | None = None) -> Tensor:
        """`layer(x)`, by this plan; on several ranks, of the own stripe by the own shard."""
        with torch.no_grad():
            return Passes(self.steps(layer), x, self.axis, out, halves=self.ranks == 1).run(self.passes, progress)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and strings."""
        return {
            "half": self.half,
            "shape": list(self.shape),
            "device": self.device,
            "dtype": self.dtype,
            "kind": self.kind,
            "ranks": self.ranks,
            "shared": self.shared,
            "exact": True,
            "why": self.why,
            "passes": [_pass_json(p) for p in self.passes],
            "peak_bytes": self.cost.peak,
            "relative_time": round(self.relative, 3),
            "moved_bytes": self.cost.moved,
            "whole_peak_bytes": self.whole.peak,
            "barriers": [{**vars(stop), "share": round(stop.share, 4)} for stop in self.barriers],
        }

    def lines(self) -> Sequence[str]:
        """For people."""
        found = [
            f"{self.half} {list(self.shape)} in {self.dtype} on {self.device}: exact, {self.why}"
            + (f", of a stripe on each of {self.ranks} ranks" if self.ranks > 1 else ""),
            f"  peak {size(self.cost.peak)} beside the weights, whole {size(self.whole.peak)}; "
            f"time {self.relative:.2f} of the whole run's"
            + (f"; {size(self.cost.moved)} through host memory" if self.cost.moved else ""),
        ]
        if self.barriers:
            worst = max(self.barriers, key=lambda stop: stop.share)
            found.append(
                f"  {len(self.barriers)} barriers, {sum(stop.share for stop in self.barriers):.0%} of the time; "
                f"the dearest is {worst.name} ({worst.kind}): {worst.share:.0%}, it keeps {size(worst.notes)}"
            )
        return found


def size(count: int) -> str:
    """Bytes for people."""
    return f"{count / GIB:.2f} GiB" if count >= GIB / 10 else f"{count / 2**20:.1f} MiB"


def _pass_json(p: Pass) -> dict[str, Any]:
    return {"steps": [p.start, p.stop], "rows": p.rows, "pieces": p.pieces, "resident": p.resident}
