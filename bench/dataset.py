"""How near a data set comes to the bare encoder: items a second of both, in turns, in one process.

    python -m bench.dataset [--items 16] [--size 256] [--batch 1] [--repeats 3] [--device cpu|cuda] [--quick]
                            [--json-out FILE]

FLUX.1's encoder with drawn weights, on frames of a moving camera as PNG, read by two processes, and written as Parquet.
"Bare" encodes the same pictures, which lie on the device, in the same batches. The last line is one JSON object; exit
code 1 if a latent differs, or nothing was compared.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor

from bench import report
from bench.drawn import drawn
from bench.work import KL, QUICK_KL
from vaeport.dataset import Settings, encode_dataset
from vaeport.media import to_model, write_image
from vaeport.media.samples import clip
from vaeport.vae import VAE


def pictures(folder: Path, items: int, size: int) -> list[Tensor]:
    """Frames of a camera over a photo, as files and as uint8 [size, size, 3]."""
    folder.mkdir()
    frames = [frame.clone() for frame in clip(items, size, size)]
    for n, frame in enumerate(frames):
        write_image(folder / f"{n:04d}.png", frame)
    return frames


def bare(vae: VAE, media: Sequence[Tensor]) -> list[Tensor]:
    """The latents of batches that lie on the device, in host memory in the end."""
    return [z for x in media for z in vae.encode(x).latent_dist.mode().cpu()]


def stored(folder: Path) -> list[np.ndarray[Any, Any]]:
    """The latents of an output folder, by id."""
    rows = sorted(pq.read_table(folder / "data").to_pylist(), key=lambda row: str(row["id"]))
    return [np.frombuffer(row["vae_latent_bytes"], np.float32).reshape(row["vae_latent_shape"]) for row in rows]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.dataset", description="a data set beside the bare encoder")
    parser.add_argument("--items", type=int, default=16)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--quick", action="store_true", help="a narrow model")
    parser.add_argument("--json-out", type=Path, metavar="FILE", help="also write the JSON object to FILE")
    options = parser.parse_args(arguments)
    dtype = torch.float32 if options.device == "cpu" else torch.bfloat16
    vae = drawn(QUICK_KL if options.quick else KL, dtype, options.device)
    taken: dict[str, list[float]] = {"bare": [], "dataset": []}
    with tempfile.TemporaryDirectory(prefix="vaeport-bench-") as temporary, torch.no_grad():
        place = Path(temporary)
        frames = pictures(place / "src", options.items, options.size)
        together = [torch.stack(frames[i : i + options.batch]) for i in range(0, options.items, options.batch)]
        media = [torch.stack([to_model(p, dtype=dtype) for p in part]).to(options.device) for part in together]
        bare(vae, media[:1])
        expected: list[Tensor] = []
        for n in range(options.repeats):
            begin = time.perf_counter()
            expected = bare(vae, media)
            taken["bare"].append(time.perf_counter() - begin)
            begin = time.perf_counter()
            encode_dataset(vae, place / "src", place / f"out{n}", Settings(batch=options.batch))
            taken["dataset"].append(time.perf_counter() - begin)
        found = stored(place / "out0")
    worst = max(float(np.abs(a - b.float().numpy()).max()) for a, b in zip(found, expected, strict=True))
    seconds = {name: statistics.median(times) for name, times in taken.items()}
    told: dict[str, Any] = {"bench": "dataset", "date": datetime.datetime.now(datetime.UTC).date().isoformat()}
    told |= report.machine([options.device]) | {"items": options.items, "size": options.size, "batch": options.batch}
    told |= {"items_per_s": {name: round(options.items / value, 3) for name, value in seconds.items()}}
    told |= {"of_bare": round(seconds["bare"] / seconds["dataset"], 3), "worst_difference": worst}
    if options.json_out:
        options.json_out.write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps(told))
    return int(not found or worst > 1e-4 * max(float(z.abs().max()) for z in expected))


if __name__ == "__main__":
    sys.exit(main())
