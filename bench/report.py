"""The card for people: one line a row, with its verdict."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from bench.speed import TARGET
from bench.work import SECOND


def machine(devices: Iterable[str]) -> dict[str, Any]:
    """What the figures depend on."""
    found: dict[str, Any] = {"cpu": _cpu(), "threads": torch.get_num_threads()}
    if "cuda" in devices:
        found |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
        found["cudnn"] = torch.backends.cudnn.version()
    versions = {"torch": torch.__version__, "diffusers": _version("diffusers"), "python": platform.python_version()}
    return {"machine": found, **versions}


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def speed_line(row: dict[str, Any]) -> str:
    """ours, Diffusers, their ratio, its range over the pairs of runs, peaks, verdict."""
    name = f"{row['work']}, {row['dtype']}"
    if row["ratio"] is None:
        return f"{name:<70} no speed{_verdict(row)}"
    low, high = row["spread"]
    peaks = f"{mib(row['ours_peak_mib'])} / {mib(row['theirs_peak_mib'])}"
    mark = "" if row["ratio"] >= TARGET else f"  below {TARGET}"
    times = f"{row['ours_ms']:9.1f} ms {row['theirs_ms']:9.1f} ms {row['ratio']:6.3f} ({low:.2f}-{high:.2f})"
    return f"{name:<70}{times} {peaks:>21}{_verdict(row)}{mark}"


def stream_line(row: dict[str, Any]) -> str:
    """The peak at each length, verdict."""
    name = f"{row['work']}, {row['dtype']}"
    if row["peak_mib"] is None:
        return f"{name:<70} no figures{_verdict(row)}"
    peaks = ", ".join(f"{length(n, row)} {mib(p)}" for n, p in zip(row["lengths"], row["peak_mib"], strict=True))
    flat = {True: "flat", False: "NOT FLAT", None: "not measured here"}[row["flat"]]
    return f"{name:<70} {peaks}: {flat}{_verdict(row)}"


def length(n: int, row: dict[str, Any]) -> str:
    """Frames, or the time of samples at 44.1 kHz."""
    if "Oobleck" not in row["work"]:
        return f"{n} frames"
    return f"{n // SECOND} s" if n < 120 * SECOND else f"{n // SECOND // 60} min"


def duration(ms: float) -> str:
    """Milliseconds or seconds, three digits."""
    return f"{ms:.3g} ms" if ms < 999.5 else f"{ms / 1e3:.3g} s"


def mib(value: float | None) -> str:
    """Memory in MiB or GiB."""
    return "?" if value is None else f"{value:.0f} MiB" if value < 10240 else f"{value / 1024:.1f} GiB"


def _verdict(row: dict[str, Any]) -> str:
    gates = ", ".join(f"{gate} {figure:.2g}" for gate, figure in row["gates"].items() if not gate.startswith("D"))
    reasons = "".join(f"\n    {reason}" for reason in row["reasons"])
    return f"   {row['verdict']} {gates and f'({gates})'}{reasons}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
