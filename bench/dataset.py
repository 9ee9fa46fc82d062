"""How near a data set comes to the bare encoder: items a second of both, in turns, in one process.

    python -m bench.dataset [--model kl|wan] [--items 16] [--size 256x256] [--frames 81] [--batch 1] [--readers 2]
                            [--shard-items 64] [--repeats 3] [--device cpu|cuda] [--graphs] [--quick] [--json-out FILE]

FLUX.1's encoder with drawn weights on frames of a moving camera as PNG, or Wan 2.1's on clips of it as MP4, read by
other processes, and written as Parquet. There are at most eight different ones, under as many names as there are items.
"Bare" encodes the same media, which lie on the device, in the same batches, and waits for the device in the end.
`running` leaves out what passes until the first item is done (processes start, the first files are read). The last line
is one JSON object; exit code 1 if a latent differs, or nothing was compared.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor

from bench import report
from bench.drawn import drawn
from bench.work import KL, QUICK_KL, QUICK_WAN, WAN, Model
from vaeport.dataset import Settings, encode_dataset
from vaeport.dataset.local import Resources
from vaeport.media import VideoReader, VideoWriter, read_image, to_model, write_image
from vaeport.media.samples import clip
from vaeport.vae import VAE

MODELS = {"kl": (KL, QUICK_KL), "wan": (WAN, QUICK_WAN)}


def source(folder: Path, items: int, model: Model, shape: tuple[int, int, int]) -> list[Tensor]:
    """Pictures, or clips of [frames, height, width], as files; what is read of each, uint8 [..., H, W, 3]."""
    folder.mkdir()
    different, (frames, height, width) = min(items, 8), shape
    length = frames if model.contract.modality == "video" else 1
    suffix = ".mp4" if model.contract.modality == "video" else ".png"
    read = []
    camera = iter(clip(different * length, height, width))
    for n in range(different):
        file = folder / f"{n:06d}{suffix}"
        if suffix == ".png":
            write_image(file, next(camera))
            read.append(read_image(file))
            continue
        with VideoWriter(file, rate=Fraction(24), width=width, height=height) as video:
            video.write(torch.stack(list(islice(camera, length))))
        with VideoReader(file) as reader:
            read.append(torch.stack(list(reader)))
    for n in range(different, items):
        (folder / f"{n:06d}{suffix}").hardlink_to(folder / f"{n % different:06d}{suffix}")
    return [read[n % different] for n in range(items)]


def bare(vae: VAE, media: Iterable[Tensor]) -> list[Tensor]:
    """The latents of batches that lie on the device, in host memory in the end."""
    return [z.cpu() for x in [vae.encode(x).latent_dist.mode() for x in media] for z in x]


def clock(times: list[float]) -> Callable[[int, int], None]:
    """Notes when items are done."""
    return lambda items, quarantined: times.append(time.perf_counter())


def stored(folder: Path) -> list[np.ndarray[Any, Any]]:
    """The latents of an output folder, by id."""
    rows = sorted(pq.read_table(folder / "data").to_pylist(), key=lambda row: str(row["id"]))
    return [np.frombuffer(row["vae_latent_bytes"], np.float32).reshape(row["vae_latent_shape"]) for row in rows]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.dataset", description="a data set beside the bare encoder")
    parser.add_argument("--model", choices=MODELS, default="kl")
    parser.add_argument("--items", type=int, default=16)
    parser.add_argument("--size", default="256x256", metavar="HEIGHTxWIDTH")
    parser.add_argument("--frames", type=int, default=81, help="of a clip")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--readers", type=int, default=2)
    parser.add_argument("--shard-items", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--graphs", action="store_true", help="pieces and pictures by CUDA graphs")
    parser.add_argument("--quick", action="store_true", help="a narrow model")
    parser.add_argument("--json-out", type=Path, metavar="FILE", help="also write the JSON object to FILE")
    options = parser.parse_args(arguments)
    dtype = torch.float32 if options.device == "cpu" else torch.bfloat16
    model = MODELS[options.model][options.quick]
    vae = drawn(model, dtype, options.device, graphs=options.graphs)
    height, width = map(int, options.size.split("x"))
    settings, resources = Settings(batch=options.batch, shard_items=options.shard_items), Resources(options.readers)
    taken: dict[str, list[float]] = {"bare": [], "dataset": [], "start": []}
    with tempfile.TemporaryDirectory(prefix="vaeport-bench-") as temporary, torch.no_grad():
        place = Path(temporary)
        pixels = source(place / "src", options.items, model, (options.frames, height, width))
        # each different batch once: the same ones come again and again
        held: dict[tuple[int, ...], Tensor] = {}
        media = []
        for first in range(0, options.items, options.batch):
            part = pixels[first : first + options.batch]
            key = tuple(map(id, part))
            if key not in held:
                held[key] = torch.stack([to_model(p.to(options.device), dtype=dtype) for p in part])
            media.append(held[key])
        bare(vae, media[:1])
        expected: list[Tensor] = []
        for n in range(options.repeats):
            begin = time.perf_counter()
            expected = bare(vae, media)
            taken["bare"].append(time.perf_counter() - begin)
            told_at: list[float] = []
            begin = time.perf_counter()
            encode_dataset(vae, place / "src", place / f"out{n}", settings, resources=resources, tell=clock(told_at))
            taken["dataset"].append(time.perf_counter() - begin)
            taken["start"].append(told_at[0] - begin)
        found = stored(place / "out0")
    worst = max(float(np.abs(a - b.float().numpy()).max()) for a, b in zip(found, expected, strict=True))
    seconds = {name: statistics.median(times) for name, times in taken.items()}
    running = (seconds["dataset"] - seconds["start"]) * options.items / max(1, options.items - options.batch)
    told: dict[str, Any] = {"bench": "dataset", "date": datetime.datetime.now(datetime.UTC).date().isoformat()}
    told |= report.machine([options.device]) | {"model": model.label, "items": options.items, "size": options.size}
    told |= {"frames": options.frames} if model.contract.modality == "video" else {}
    told |= {name: getattr(options, name) for name in ("batch", "readers", "shard_items", "graphs")}
    told |= {"start_s": round(seconds["start"], 3)}
    rates = {"bare": seconds["bare"], "dataset": seconds["dataset"], "running": running}
    told |= {"items_per_s": {name: round(options.items / value, 3) for name, value in rates.items()}}
    told |= {"of_bare": round(seconds["bare"] / seconds["dataset"], 3)}
    told |= {"running_of_bare": round(seconds["bare"] / running, 3), "worst_difference": worst}
    if options.json_out:
        options.json_out.write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps(told))
    return int(not found or worst > 1e-4 * max(float(z.abs().max()) for z in expected))


if __name__ == "__main__":
    sys.exit(main())
