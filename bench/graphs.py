"""Pieces of streams by CUDA graphs: the same result, their cost where nothing delays the device, and their memory.

    python -m bench.graphs --device cuda [--quick] [--json-out FILE]

Wan 2.1 and 2.2 with drawn weights, on a clip that lies on the device. The first run with graphs meets the shapes and
records them; the median of the others counts. The last line is one JSON object; exit code 1 if a result differs.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench import report
from bench.drawn import drawn
from bench.timing import seconds_of
from bench.work import QUICK_WAN, QUICK_WAN22, WAN, WAN22, Model
from vaeport.kernels.graphs import Graphs

FULL = ((WAN, (81, 480, 832)), (WAN22, (41, 480, 832)))
QUICK = ((QUICK_WAN, (25, 16, 16)), (QUICK_WAN22, (25, 32, 32)))


def rows(model: Model, shape: tuple[int, ...], device: torch.device) -> list[dict[str, Any]]:
    """Encode and decode, without graphs and with them."""
    vae = drawn(model, torch.bfloat16 if device.type == "cuda" else torch.float32, device)
    x = torch.randn(1, 3, *shape, generator=torch.Generator().manual_seed(0)).clamp(-1, 1).to(device, vae.dtype)
    z = vae.encode(x).latent_dist.mode()
    calls: dict[str, Callable[[], Tensor]] = {
        "encode": lambda: vae.encode(x).latent_dist.mode(),
        "decode": lambda: vae.decode(z).sample,
    }
    found = []
    for name, call in calls.items():
        row: dict[str, Any] = {"model": model.label, "half": name, "shape": list(shape)}
        expected, same = call(), True
        for way in ("plain", "graphs"):
            vae._graphs = Graphs() if way == "graphs" else None
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            taken = []
            for _ in range(4):
                made, time = seconds_of(call, device)
                same &= torch.equal(made, expected)
                taken.append(time)
            row[f"{way}_ms"] = round(1e3 * statistics.median(taken[1:]), 1)
            if device.type == "cuda":
                row[f"{way}_gib"] = round(torch.cuda.max_memory_allocated(device) / 2**30, 2)
        vae._graphs = None
        found.append(row | {"equal": same})
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.graphs", description="pieces of streams by CUDA graphs")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="narrow models, small clips")
    parser.add_argument("--json-out", type=Path, metavar="FILE", help="also write the JSON object to FILE")
    options = parser.parse_args(arguments)
    found: dict[str, Any] = {"bench": "graphs", "date": datetime.datetime.now(datetime.UTC).date().isoformat()}
    found |= report.machine([options.device])
    with torch.no_grad():
        work = QUICK if options.quick else FULL
        found["rows"] = [row for model, shape in work for row in rows(model, shape, torch.device(options.device))]
    if options.json_out:
        options.json_out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))
    return int(not all(row["equal"] for row in found["rows"]))


if __name__ == "__main__":
    sys.exit(main())
