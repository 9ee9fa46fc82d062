"""Decoding on several devices against one: `torchrun --nproc-per-node N -m bench.shards`; the last line is JSON.

First narrow models are encoded and decoded in float64 on every number of ranks and compared with the whole on rank 0:
that is whether shards are exact. Then the full model is timed in its type, and judged as gate P judges a type: its
distance from a float32 run may be twice that of the whole run on one device, and no more.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from bench.drawn import drawn
from bench.memory import peak_growth
from bench.work import HUNYUAN, KL, LTX2, QUICK_HUNYUAN, QUICK_KL, QUICK_LTX2, QUICK_WAN, QUICK_WAN22, WAN, WAN22, Model
from vaeport.proof.gates import WHOLE_FACTOR, rms
from vaeport.runtime.shards import Ranks, decode_sharded, encode_sharded

EXACT = 1e-12
AXES = {"longer": None, "height": -2, "width": -1}
FULL = {"wan": WAN, "kl": KL, "wan2_2": WAN22, "ltx2": LTX2, "hunyuan_video": HUNYUAN}
NARROW = {"wan": QUICK_WAN, "kl": QUICK_KL, "wan2_2": QUICK_WAN22, "ltx2": QUICK_LTX2, "hunyuan_video": QUICK_HUNYUAN}
ROUNDING = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11, torch.float64: 2.0**-53}


def main(args: list[str] | None = None) -> int:
    """Measures; 0 if all that was run is exact."""
    options = _options(args)
    world, device = _joined(options.device)
    counts = sorted({n for n in (1, 2, 4, 8) if n < world} | {world})
    # every process takes part in the making of every group
    groups = {n: dist.new_group(range(n), timeout=timedelta(seconds=options.timeout)) for n in counts}
    rank = dist.get_rank()
    row: dict[str, Any] = {"bench": "shards", "vae": options.vae, "device": options.device, "gpu": _name(device)}
    row |= {"torch": torch.__version__, "backend": dist.get_backend(), "exact": {}, "runs": []}
    timed = _Timed(options, device)
    row |= timed.said
    for n in counts:
        if rank < n:
            ranks = Ranks(groups[n], device=device)
            errors = {name: error for name in NARROW for error in [_exactness(NARROW[name], ranks)]}
            found = timed.run(ranks)
            if rank == 0:
                row["exact"][n] = errors
                row["runs"].append(found)
                print(f"{n} ranks: worst rms in float64 {max(errors.values()):.1e}; {found}", file=sys.stderr)
        dist.barrier()
    if rank == 0:
        exact = all(error <= EXACT for errors in row["exact"].values() for error in errors.values())
        near = all(run["distance"] <= run["allowed"] for run in row["runs"])
        row["verdict"] = "PASS" if exact and near else "FAIL"
        alone = row["runs"][0]["seconds"]
        for run in row["runs"]:
            run["times_one"] = alone / run["seconds"]
        print(json.dumps(row))
    dist.destroy_process_group()
    return 0 if rank or row["verdict"] == "PASS" else 1


class _Timed:
    """The model that is timed, its latent, and on rank 0 what it gives whole, in its type and in float32."""

    def __init__(self, options: argparse.Namespace, device: torch.device) -> None:
        model = (NARROW if options.quick else FULL)[options.vae]
        dtype = getattr(torch, options.dtype)
        self.vae = drawn(model, dtype, device)
        rules = self.vae.contract.axes
        media = [options.frames] * (len(rules) - 2) + list(options.size)
        latent = [rule.latents(n) for rule, n in zip(rules, media, strict=True)]
        shape = (1, self.vae.contract.latent_channels, *latent)
        generator = torch.Generator().manual_seed(0)
        self.z = torch.randn(shape, generator=generator).to(device, dtype)
        self.repeats, self.device, self.axis = options.repeats, device, AXES[options.axis]
        self.said = {"model": model.label, "media": media, "dtype": options.dtype, "axis": options.axis}
        if dist.get_rank() == 0:
            self.whole = self.vae.decode(self.z).sample.cpu()
            truth = drawn(model, dtype, device).to(torch.float64 if dtype == torch.float64 else torch.float32)
            self.truth = truth.decode(self.z.to(truth.dtype)).sample.cpu()

    def run(self, ranks: Ranks) -> dict[str, Any]:
        """Seconds of the slowest rank until rank 0 has all, and until each has its stripe; memory; distance."""
        found: list[Tensor | None] = []

        def gathered() -> None:
            found[:] = [decode_sharded(self.vae, self.z, ranks, axis=self.axis)]

        def left() -> None:
            decode_sharded(self.vae, self.z, ranks, axis=self.axis, gather="none")

        row: dict[str, Any] = {"ranks": ranks.size, "seconds": self._seconds(gathered, ranks)}
        row["seconds_left_as_stripes"] = self._seconds(left, ranks)
        peaks = ranks.agree(peak_growth(left, self.device.type))
        row["peak_mib"] = None if None in peaks else max(peaks)
        if found[0] is not None:
            y, size = found[0].cpu(), rms(self.truth)
            own = max(_distance(self.whole, self.truth), ROUNDING[y.dtype] * size)
            row["distance"] = _distance(y, self.truth)
            row["allowed"] = EXACT if y.dtype == torch.float64 else WHOLE_FACTOR * own
            row["from_whole"] = _distance(y, self.whole) / size
        return row

    def _seconds(self, call: Callable[[], Any], ranks: Ranks) -> float:
        call()
        taken = []
        for _ in range(self.repeats):
            ranks.barrier()
            _synchronize(self.device)
            started = time.perf_counter()
            call()
            _synchronize(self.device)
            taken.append(max(ranks.agree(time.perf_counter() - started)))
        return float(statistics.median(taken))


def _exactness(model: Model, ranks: Ranks) -> float:
    """The worst rms difference of a narrow model in float64, encoded and decoded along height and width."""
    vae = drawn(model, torch.float64, ranks.device)
    rules, worst = vae.contract.axes, 0.0
    for axis in (-2, -1):
        latent = [2] * len(rules)
        latent[axis] = ranks.size + 1
        generator = torch.Generator().manual_seed(1)
        z = torch.randn((1, vae.contract.latent_channels, *latent), generator=generator, dtype=torch.float64)
        z = z.to(ranks.device)
        x = vae.decode(z).sample.clamp(-1, 1)
        decoded, encoded = decode_sharded(vae, z, ranks, axis=axis), encode_sharded(vae, x, ranks, axis=axis)
        if decoded is not None and encoded is not None:
            moments = vae.encode(x).latent_dist.parameters
            worst = max(worst, _distance(decoded, vae.decode(z).sample), _distance(encoded.parameters, moments))
    return worst


def _distance(a: Tensor, b: Tensor) -> float:
    return float(rms(a.double() - b.double()))


def _joined(device: str) -> tuple[int, torch.device]:
    """The number of ranks that torchrun started, one if it did not, and this one's device."""
    # NVLink multicast, which collectives of NCCL would use, stays off
    os.environ.setdefault("NCCL_NVLS_ENABLE", "0")
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "1"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "29531")):
        os.environ.setdefault(name, value)
    torch.backends.cudnn.allow_tf32 = False
    here = torch.device(device)
    if device == "cuda":
        here = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(here)
    dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=timedelta(minutes=20))
    return dist.get_world_size(), here


def _name(device: torch.device) -> str | None:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _options(args: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.shards", description=__doc__)
    parser.add_argument("--vae", choices=FULL, default="wan")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--quick", action="store_true", help="a narrow model in float64, small")
    parser.add_argument("--frames", type=int)
    parser.add_argument("--size", type=lambda text: [int(n) for n in text.split("x")], help="as 720x1280")
    parser.add_argument("--axis", choices=AXES, default="longer")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16", "float64"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--timeout", type=int, default=600, help="seconds that a rank waits for another")
    options = parser.parse_args(args)
    options.quick = options.quick or options.device == "cpu"
    options.frames = options.frames or (9 if options.quick else 81)
    options.size = options.size or ([64, 96] if options.quick else [720, 1280])
    options.dtype = options.dtype or ("float64" if options.quick else "bfloat16")
    return options


if __name__ == "__main__":
    sys.exit(main())
