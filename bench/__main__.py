"""Speed and memory of the native VAEs, each beside the parity verdict of the very weights that ran.

    python -m bench [--device cpu|cuda] [--only wan,kl,...] [--quick] [--json-out FILE]

Each model is timed against Diffusers' class in one process, in turns, median of 7. Progress goes to stderr; the last
line of stdout is one JSON object. Exit code 1 if a verdict is not PASS or the memory of a stream is not flat.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bench import report
from bench.parity import Proved, prove_weights
from bench.speed import REPEATS, speed_rows
from bench.streams import stream_rows
from bench.work import Model, speed, streams
from vaeport.errors import VaeportError

MODELS = ("kl", "wan", "oobleck", "wan2_2", "ltx_video", "ltx2", "hunyuan_video")


class Weights:
    """A proof for each model, type and device, made when first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.known: dict[tuple[str, str, str], Proved] = {}

    def of(self, model: Model, dtype: str, device: str) -> Proved:
        """The weights and their verdict."""
        key = model.label, dtype, device
        if key not in self.known:
            say(f"proving {model.label} in {dtype} on {device}")
            self.known[key] = prove_weights(model, dtype, device, self.folder / str(len(self.known)))
        return self.known[key]


def say(text: str) -> None:
    """Progress."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="speed and memory against Diffusers")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: the CPU, then the GPU if there is one")
    parser.add_argument("--only", default=",".join(MODELS), help=f"some of {','.join(MODELS)}")
    parser.add_argument(
        "--quick", action="store_true", help="narrow models and small sizes: shows that it works, not how fast"
    )
    parser.add_argument("--json-out", type=Path, metavar="FILE", help="also write the JSON object to FILE")
    options = parser.parse_args(arguments)
    only = options.only.split(",")
    if unknown := set(only) - set(MODELS):
        parser.error(f"--only {','.join(sorted(unknown))}: choose from {','.join(MODELS)}")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU")
    devices = [options.device] if options.device else ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    try:
        found = measure(devices, only, options.quick)
    except VaeportError as error:
        print(error, file=sys.stderr)
        return 3
    line = json.dumps(found, allow_nan=False)
    if options.json_out:
        options.json_out.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")
    print(line)
    rows = found["rows"] + found["streams"]
    return int(not rows or any(row["verdict"] != "PASS" or row.get("flat") is False for row in rows))


def measure(devices: Sequence[str], only: Sequence[str], quick: bool) -> dict[str, Any]:
    """Everything that is asked for, printed as it comes."""
    about = {"bench": "quick" if quick else "full", "date": datetime.datetime.now(datetime.UTC).date().isoformat()}
    about |= report.machine(devices)
    rows: list[dict[str, Any]] = []
    streamed: list[dict[str, Any]] = []
    print(
        "  ".join(
            f"{k} {v}"
            for k, v in {**about["machine"], "torch": about["torch"], "diffusers": about["diffusers"]}.items()
        )
    )
    with tempfile.TemporaryDirectory(prefix="vaeport-bench-") as folder:
        weights = Weights(Path(folder))
        for device in devices:
            print(f"\n{device}: ours, Diffusers, ratio of medians of {REPEATS} (range of pairs), peak memory, parity")
            for work in speed(device, quick):
                if work.model.key not in only:
                    continue
                proved = weights.of(work.model, work.dtype, device)
                say(f"timing {work.model.label}, {work.size}")
                for row in speed_rows(work, proved):
                    print(report.speed_line(row), flush=True)
                    rows.append(row)
            print(f"\n{device}: peak memory of streams, on top of the model")
            for task in streams(device, quick):
                if task.model.key not in only:
                    continue
                proved = weights.of(task.model, task.dtype, device)
                say(f"streaming {task.model.label}, {task.size}")
                for row in stream_rows(task, proved):
                    print(report.stream_line(row), flush=True)
                    streamed.append(row)
    return {**about, "rows": rows, "streams": streamed}


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=FutureWarning)  # Diffusers uses torch's old weight_norm
    sys.exit(main())
