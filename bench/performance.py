"""Writes the table and the plot of docs/performance.md from a file of `bench.gpu`.

python -m bench.performance bench/results/gpu_h200_2026-11-29/gpu.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE, PLOT = ROOT / "docs" / "performance.md", ROOT / "docs" / "performance.svg"
BEGIN, END = "<!-- rows: python -m bench.performance -->", "<!-- end of rows -->"
NAMES = {
    "AutoencoderKLHunyuanVideo whole clip": "HunyuanVideo",
    "AutoencoderKLLTX2Video ltx2.0": "LTX-2",
    "AutoencoderKLWan wan2.1": "Wan 2.1",
    "AutoencoderKLWan wan2.2": "Wan 2.2",
    "AutoencoderKL flux1": "KL (FLUX.1)",
    "AutoencoderOobleck stable-audio-open-1.0": "Oobleck",
}


def named(row: dict[str, Any]) -> str:
    """The work in words that people use."""
    work = str(row["work"])
    return next((short + work.removeprefix(long) for long, short in NAMES.items() if work.startswith(long)), work)


def table(found: dict[str, Any]) -> str:
    """Markdown, a line a row."""
    sides = ("diffusers", "diffusers, channels last", "diffusers, compiled", "diffusers, tiled")
    lines = [
        "| work | ours | Diffusers | channels last | compiled | times the best | TFLOP/s "
        "| memory, ours / Diffusers | gates |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in found["rows"]:
        ms, peaks = row["ms"], row["peak_gib"]
        times = [f"{ms[side]:.0f} ms" if side in ms else "" for side in sides]
        if times[3]:
            times[0] = f"{times[3]}, in tiles"
        theirs = next((peaks[side] for side in sides if side in peaks), 0.0)
        gates = f"{row['verdict']} (P {row['gates']['P']:.2f})"
        ours = f"**{ms['ours']:.1f} ms**" if ms["ours"] < 100 else f"**{ms['ours']:.0f} ms**"
        cells = [named(row), ours, *times[:3], f"{row['ratio_to_best']:.2f}", f"{row['tflop_per_s']:.0f}"]
        lines.append(f"| {' | '.join(cells)} | {peaks['ours']:.1f} / {theirs:.1f} GiB | {gates} |")
    return "\n".join(lines)


def plot(found: dict[str, Any], file: Path) -> None:
    """Bars: how many times as fast as the best side of Diffusers, and as Diffusers as it is."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams |= {"svg.hashsalt": "vaeport", "svg.fonttype": "none"}
    from matplotlib import pyplot

    rows = sorted(found["rows"], key=lambda row: float(row["ratio_to_best"]))
    figure, axes = pyplot.subplots(figsize=(9, 0.42 * len(rows) + 1.2), layout="constrained")
    places = range(len(rows))
    axes.barh(places, [row["ratio_to_best"] for row in rows], color="#2a6f97")
    for place, row in zip(places, rows, strict=True):
        axes.text(
            row["ratio_to_best"] + 0.08, place, f"{row['ratio_to_best']:.1f}x, {row['ms']['ours']:.0f} ms", va="center"
        )
    axes.axvline(1, color="#888888", linewidth=1)
    axes.set_yticks(list(places), [named(row) for row in rows])
    axes.set_xlim(0, max(row["ratio_to_best"] for row in rows) * 1.18)
    axes.set_xlabel(f"times as fast as the best way of running Diffusers that was tried, on one {found['device']}")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, metadata={"Date": None, "Creator": None})


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes both."""
    parser = argparse.ArgumentParser(prog="python -m bench.performance", description="the table and plot of a run")
    parser.add_argument("file", type=Path)
    found = json.loads(parser.parse_args(arguments).file.read_text())
    text = PAGE.read_text()
    before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
    PAGE.write_text(f"{before}\n\n{table(found)}\n\n{after}")
    plot(found, PLOT)


if __name__ == "__main__":
    main()
