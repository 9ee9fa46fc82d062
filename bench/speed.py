"""Ours against theirs in one process, in turns."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from bench.memory import freed_memory_reused, peak_growth
from bench.parity import Proved
from bench.work import HALVES, Half, Timed
from vaeport.proof.gates import NO_SIGNAL, WHOLE_FACTOR, rms

REPEATS = 7
TARGET = 0.97
# gate P lets the reference be off by NO_SIGNAL, and us by WHOLE_FACTOR times as much
FARTHEST = (1 + WHOLE_FACTOR) * NO_SIGNAL
FIGURES = ("ours_ms", "theirs_ms", "ratio", "spread", "cpu_ratio", "ours_peak_mib", "theirs_peak_mib", "distance")

Run = Callable[[], Tensor]


@torch.no_grad()
def speed_rows(work: Timed, proved: Proved, repeats: int = REPEATS) -> list[dict[str, Any]]:
    """Rows of encode and decode; no figures without a PASS, nor where the outputs differ at this size."""
    return [_row(work, half, proved, repeats) for half in HALVES]


def _row(work: Timed, half: Half, proved: Proved, repeats: int) -> dict[str, Any]:
    row: dict[str, Any] = {"work": f"{work.model.label} {half}, {work.size}"}
    row |= {"device": proved.device, "dtype": work.dtype} | dict.fromkeys(FIGURES) | proved.summary()
    if not proved.verdict:
        return row
    try:
        sides = _sides(work, half, proved)
        outputs: list[Tensor] = []
        # the first run of each side: Diffusers' weight norm keeps what it folds
        peaks = [peak_growth(lambda side=side: outputs.append(side()), proved.device) for side in sides]
        distance = _distance(*outputs)
        outputs.clear()
        if not distance <= FARTHEST:
            reason = f"at this size the outputs differ by {distance:.2g} of their rms"
            return row | {"verdict": "FAIL", "reasons": [reason]}
        row |= {"distance": distance, "ours_peak_mib": peaks[0], "theirs_peak_mib": peaks[1]}
        with freed_memory_reused() if proved.device == "cpu" else nullcontext():
            return row | alternate(*sides, proved.device, repeats)
    except RuntimeError as error:
        return row | dict.fromkeys(FIGURES) | {"verdict": "FAIL", "reasons": [f"{type(error).__name__}: {error}"]}


def _sides(work: Timed, half: Half, proved: Proved) -> tuple[Run, Run]:
    ours, theirs = proved.native(), proved.reference()
    shape = work.media if half == "encode" else work.model.contract.latent_shape(work.media)
    generator = torch.Generator(proved.device).manual_seed(0)
    x = torch.randn(shape, generator=generator, device=proved.device, dtype=ours.dtype)
    if half == "decode":
        return lambda: ours.decode(x).sample, lambda: theirs.raw("decode", x).sample
    x.clamp_(-1, 1)
    return lambda: ours.encode(x).latent_dist.mode(), lambda: theirs.raw("encode", x).latent_dist.mode()


def _distance(ours: Tensor, theirs: Tensor) -> float:
    """rms(ours - theirs) / rms(theirs), in pieces that keep the float64 copies small; infinite if shapes differ."""
    if ours.shape != theirs.shape:
        return math.inf
    axis = max(range(ours.dim()), key=lambda i: ours.shape[i])
    pairs = list(zip(ours.chunk(16, axis), theirs.chunk(16, axis), strict=True))
    difference = sum(rms(a.double() - b.double()) ** 2 * a.numel() for a, b in pairs)
    return math.sqrt(difference / sum(rms(b) ** 2 * b.numel() for _, b in pairs))


def alternate(ours: Run, theirs: Run, device: str, repeats: int) -> dict[str, Any]:
    """Medians in ms of `repeats` pairs of runs after one of warm-up; who goes first changes from pair to pair.

    ratio       theirs / ours, of the medians
    spread      lowest and highest ratio of a pair
    cpu_ratio   as ratio, of the processor time of all threads, which other programs disturb less; on the CPU only
    """
    sides = [("ours", ours), ("theirs", theirs)]
    clock: dict[str, list[float]] = {"ours": [], "theirs": []}
    processor: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _, run in sides:
        run()
    for _ in range(repeats):
        for name, run in sides:
            wall, cpu = _ms(run, device)
            clock[name].append(wall)
            processor[name].append(cpu)
        sides.reverse()
    pairs = [b / a for a, b in zip(clock["ours"], clock["theirs"], strict=True)]
    mine, foreign = statistics.median(clock["ours"]), statistics.median(clock["theirs"])
    row = {"ours_ms": mine, "theirs_ms": foreign, "ratio": foreign / mine, "spread": [min(pairs), max(pairs)]}
    if device == "cpu":
        row["cpu_ratio"] = statistics.median(processor["theirs"]) / statistics.median(processor["ours"])
    return row


def _ms(run: Run, device: str) -> tuple[float, float]:
    """Milliseconds by the clock (by events on a GPU), and of processor time."""
    cpu = time.process_time()
    if device == "cpu":
        wall = time.perf_counter()
        run()
        return (time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    stop.record()
    torch.cuda.synchronize()
    return start.elapsed_time(stop), (time.process_time() - cpu) * 1e3
