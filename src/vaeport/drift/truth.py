"""`Truth`: what the reference took and gave in one case, and how far a tensor is from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from torch import Tensor

from vaeport.drift.hidden import hidden
from vaeport.drift.layouts import fitted
from vaeport.proof import gates
from vaeport.proof.recording import Captured

LIMIT = 1e-11
"""Of a unit alone; a fault of 1e-10 in an output may be less where it is made."""
ENCODE, DECODE = "@encode", "@decode"
"""The reference's calls themselves, which are the native halves' counterparts."""
STAGES = {"encode": ("moments", "mean", "std", "normalized"), "decode": ("unclamped", "decoded")}
"""Outputs in the order in which one is made of the other."""
HALVES = tuple(STAGES)


class Truth:
    """One case of the reference: inputs, outputs, and what its modules took and gave."""

    def __init__(
        self, media: Tensor, latent: Tensor, outputs: Mapping[str, Tensor], captured: Captured, raw: bool
    ) -> None:
        self.media, self.latent, self.outputs, self.captured = media, latent, outputs, captured
        self._ends = {
            (ENCODE, "in"): [media],
            (ENCODE, "out"): [outputs[name] for name in ("moments",) if name in outputs],
            (DECODE, "in"): [latent] if raw else [],
            (DECODE, "out"): [outputs["unclamped"]],
        }
        self._calls = lru_cache(maxsize=4)(captured.calls)
        self._kept: dict[tuple[Any, ...], Tensor | None] = {}
        self.keeping = False

    @property
    def batch(self) -> int:
        """Samples."""
        return len(self.media)

    def calls(self, unit: str, end: str) -> list[Tensor]:
        """Tensors "in" or "out" of the calls of one of its modules."""
        return self._ends[unit, end] if unit in (ENCODE, DECODE) else self._calls(unit, end)

    def fitted(self, unit: str, end: str, shape: Sequence[int], call: int) -> Tensor | None:
        """As a tensor of the native module's shape, which may be written to."""
        key = unit, end, tuple(shape), call
        with hidden():
            found = self._kept[key] if key in self._kept else fitted(self.calls(unit, end), shape, self.batch, call)
            if self.keeping:
                self._kept[key] = found
            return None if found is None else found.clone()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """What is asked for within stays in memory."""
        self.keeping = True
        try:
            yield
        finally:
            self.keeping = False
            self._kept.clear()


def error_of(found: Tensor, wanted: Tensor) -> float:
    """Gate S's figure: the worst slice's relative rms difference."""
    with hidden():
        return _error_of(found, wanted)


def _error_of(found: Tensor, wanted: Tensor) -> float:
    if found.shape != wanted.shape:
        return float("inf")
    if not found.isfinite().all():
        return float("inf")
    worst, scale = (found - wanted).abs().amax().item() if found.numel() else 0.0, gates.rms(wanted)
    if worst <= 1e-14 * scale:
        return worst / scale if scale else 0.0
    while found.dim() < 3:
        found, wanted = found.unsqueeze(1), wanted.unsqueeze(1)
    if found.dim() > 5:
        found, wanted = found.flatten(4), wanted.flatten(4)
    return gates.same_function("", found, wanted).figure
