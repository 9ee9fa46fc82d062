"""Speed on a GPU: ours, and Diffusers as it is, channels last, and compiled where that ends, beside gates S and P.

    python -m bench.gpu [--only wan,kl,...] [--json-out FILE] [--quick]

All sides run in one process, in turns, on fresh random inputs, timed by CUDA events; medians. Each model's gates are
run in the same process on the very weights that are timed: S in float64, P in the type that is timed. The machine's
ceilings (a matrix product, a copy) are measured first. The last line is one JSON object. Exit code 1 if a gate fails.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bench import work
from bench.parity import WEIGHTS
from bench.work import Half, Model
from vaeport.proof.calling import Caller, build
from vaeport.proof.gates import same_function, same_precision
from vaeport.proof.importing import import_object
from vaeport.proof.jobs import in_float64
from vaeport.vae import VAE

Run = Callable[[], Any]
SEEDS = 3


@dataclass(frozen=True)
class Row:
    """Work of one half on media of a shape.

    small       media of the gates
    compiled    Diffusers compiled is tried too
    tiled       Diffusers in its own tiles, which is approximate, where it does not run whole
    repeats     timed runs of each side
    """

    model: Model
    half: Half
    size: str
    media: tuple[int, ...]
    small: tuple[int, ...]
    dtype: str = "bfloat16"
    compiled: bool = False
    tiled: bool = False
    repeats: int = 3


_KL, _OOBLECK = (1, 3, 1024, 1024), (1, 2, 1024 * 2048)
_SD, _HD, _WIDE = (1, 3, 81, 480, 832), (1, 3, 81, 720, 1280), (1, 3, 121, 768, 1280)
FULL = (
    Row(work.KL, "decode", "1024 x 1024", _KL, (1, 3, 192, 256), compiled=True, repeats=9),
    Row(work.KL, "encode", "1024 x 1024", _KL, (1, 3, 192, 256), repeats=9),
    Row(work.OOBLECK, "decode", "47.5 s", _OOBLECK, (1, 2, 2048 * 24), "float16", compiled=True, repeats=9),
    Row(work.OOBLECK, "encode", "47.5 s", _OOBLECK, (1, 2, 2048 * 24), "float16", repeats=9),
    Row(work.WAN, "decode", "480 x 832, 81 frames", _SD, (1, 3, 9, 96, 128)),
    Row(work.WAN, "encode", "480 x 832, 81 frames", _SD, (1, 3, 9, 96, 128)),
    Row(work.WAN, "decode", "720 x 1280, 81 frames", _HD, (1, 3, 9, 96, 128), repeats=2),
    Row(work.WAN, "decode", "928 x 1664, one frame", (1, 3, 1, 928, 1664), (1, 3, 9, 96, 128), repeats=7),
    Row(work.LTX2, "decode", "768 x 1280, 121 frames", _WIDE, (1, 3, 17, 128, 192)),
    Row(work.LTX2, "encode", "768 x 1280, 121 frames", _WIDE, (1, 3, 17, 128, 192)),
    Row(work.HUNYUAN, "decode", "480 x 720, 33 frames", (1, 3, 33, 480, 720), (1, 3, 9, 96, 128)),
    Row(work.HUNYUAN, "encode", "480 x 720, 33 frames", (1, 3, 33, 480, 720), (1, 3, 9, 96, 128)),
    Row(
        work.HUNYUAN,
        "decode",
        "720 x 1280, 65 frames",
        (1, 3, 65, 720, 1280),
        (1, 3, 9, 96, 128),
        tiled=True,
        repeats=1,
    ),
    Row(work.WAN22, "decode", "704 x 1280, 61 frames", (1, 3, 61, 704, 1280), (1, 3, 9, 96, 128)),
    Row(work.WAN22, "encode", "704 x 1280, 61 frames", (1, 3, 61, 704, 1280), (1, 3, 9, 96, 128)),
)
QUICK = (
    Row(work.QUICK_KL, "decode", "48 x 64", (1, 3, 48, 64), (1, 3, 48, 64), "float32"),
    Row(work.QUICK_WAN, "encode", "5 frames 16 x 24", (1, 3, 5, 16, 24), (1, 3, 5, 16, 24), "float32"),
)


class Sides:
    """A model with drawn weights on both sides, and what the gates said of them."""

    def __init__(self, row: Row, device: str, folder: Path) -> None:
        self.model, self.device, self.dtype = row.model, device, getattr(torch, row.dtype)
        self.ours = drawn(row.model, device)
        self.ours.save(folder)
        module = build(import_object(row.model.reference), row.model.arch.to_published())
        module.load_state_dict(load_file(folder / WEIGHTS))
        self.theirs = Caller(module.eval().requires_grad_(False), row.model.convention, {})
        self.gates, self.failures = self._judged(row)

    @torch.no_grad()
    def _judged(self, row: Row) -> tuple[dict[str, float], list[str]]:
        """Gates S and P of both halves on small media: figure over limit of the worst, and what failed.

        Both sides are left in the type that is timed; float64 holds the drawn weights exactly on the way.
        """
        contract = self.model.contract
        worst, failures = {"S": 0.0, "P": 0.0}, []
        shapes = {"encode": row.small, "decode": contract.latent_shape(row.small)}
        inputs = {
            half: [fresh(shapes[half], self.device, torch.float64, half, seed) for seed in range(SEEDS)]
            for half in work.HALVES
        }
        measures, truths = [], {}
        self._cast(torch.float64)
        with in_float64():
            for half in work.HALVES:
                truths[half] = [theirs_run(self.theirs, half, x) for x in inputs[half]]
                measures.append(("S", same_function(half, ours_run(self.ours, half, inputs[half][0]), truths[half][0])))
        self._cast(self.dtype)
        for half in work.HALVES:
            low = [x.to(self.dtype) for x in inputs[half]]
            runs = [
                (ours_run(self.ours, half, x), theirs_run(self.theirs, half, x), truth)
                for x, truth in zip(low, truths[half], strict=True)
            ]
            measures += [("P", measure) for measure in same_precision(half, runs, self.dtype)]
        for gate, measure in measures:
            worst[gate] = max(worst[gate], measure.figure / measure.limit)
            if not measure.passed:
                says = f"{measure.figure:.3g} > {measure.limit:g}"
                failures.append(f"gate {gate}, {measure.output}, {measure.slice}: {says}")
        return worst, failures

    def _cast(self, dtype: torch.dtype) -> None:
        self.ours.to(dtype)
        # nn.Module's own, since a subclass's may keep some weights in another type
        nn.Module.to(self.theirs.module, self.device, dtype)


def drawn(model: Model, device: str) -> VAE:
    """Random weights, those of norms and biases too."""
    torch.manual_seed(0)
    with torch.device(device):
        vae = model.cls(model.arch, replace(model.cls.config_class(), use_graphs=model.contract.modality != "video"))
        with torch.no_grad():
            for parameter in vae.parameters():
                if parameter.dim() < 2:
                    parameter.add_(0.1 * torch.randn_like(parameter))
    return vae.eval().requires_grad_(False)


def fresh(shape: Sequence[int], device: str, dtype: torch.dtype, half: Half, seed: int) -> Tensor:
    """Media in -1..1, or latents."""
    generator = torch.Generator(device).manual_seed(seed)
    x = torch.randn(shape, generator=generator, device=device)
    return (x.clamp_(-1, 1) if half == "encode" else x).to(dtype)


def ours_run(vae: VAE, half: Half, x: Tensor) -> Tensor:
    """Moments' mode, or media."""
    return vae.encode(x).latent_dist.mode() if half == "encode" else vae.decode(x).sample


def theirs_run(caller: Caller, half: Half, x: Tensor) -> Tensor:
    """As `ours_run`."""
    out = caller.raw(half, x)
    y: Tensor = out.latent_dist.mode() if half == "encode" else out.sample
    return y


def measure(row: Row, sides: Sides, say: Callable[[str], None]) -> dict[str, Any]:
    """The row's figures: milliseconds and GiB of each side, TFLOP/s of ours."""
    shape = row.media if row.half == "encode" else row.model.contract.latent_shape(row.media)
    name = f"{row.model.label} {row.half}, {row.size}"
    found: dict[str, Any] = {"work": name, "dtype": row.dtype, "gates": sides.gates, "failures": sides.failures}
    found["verdict"] = "FAIL" if sides.failures else "PASS"
    found["graphs"] = sides.ours.config.use_graphs
    flops = operations(row, shape)
    runs: dict[str, Callable[[Tensor], Any]] = {"ours": lambda x: ours_run(sides.ours, row.half, x)}
    module = sides.theirs.module
    laid(module, last=False)
    if row.tiled:
        module.enable_tiling()
    runs["diffusers, tiled" if row.tiled else "diffusers"] = lambda x: theirs_run(sides.theirs, row.half, x)
    times, peaks = alternated(runs, shape, row, sides)
    if not row.tiled:
        laid(module, last=True)
        more, peak = alternated(
            {"diffusers, channels last": lambda x: theirs_run(sides.theirs, row.half, x)}, shape, row, sides
        )
        times |= more
        peaks |= peak
    if row.compiled:
        say(f"compiling {name}")
        start = time.perf_counter()
        getattr(module, f"{row.half}r").compile()
        try:
            more, peak = alternated(
                {"diffusers, compiled": lambda x: theirs_run(sides.theirs, row.half, x)}, shape, row, sides
            )
            times |= more
            peaks |= peak
            found["compile_s"] = round(time.perf_counter() - start, 1)
        except Exception as error:  # whatever a compiler raises
            found["compiled"] = f"{type(error).__name__}: {str(error)[:200]}"
    best = min(v for k, v in times.items() if k != "ours")
    found |= {"ms": times, "peak_gib": peaks, "tflop": flops / 1e12, "tflop_per_s": flops / times["ours"] / 1e9}
    return found | {"ratio_to_best": best / times["ours"]}


@torch.no_grad()
def alternated(
    runs: dict[str, Callable[[Tensor], Any]], shape: Sequence[int], row: Row, sides: Sides
) -> tuple[dict[str, float], dict[str, float]]:
    """Median milliseconds and peak GiB beside the weights of each, after two runs to warm up; in turns."""
    cuda = sides.device != "cpu"
    times: dict[str, list[float]] = {name: [] for name in runs}
    peaks: dict[str, float] = {}
    for turn in range(-1 if row.repeats == 1 else -2, row.repeats):
        for name, run in runs.items():
            x = fresh(shape, sides.device, sides.dtype, row.half, turn + 100)
            if cuda:
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
            held = torch.cuda.memory_allocated() if cuda else 0
            clock = _clock(cuda)
            next(clock)
            run(x)
            took = next(clock)
            if turn >= 0:
                times[name].append(took)
            if cuda:
                peaks[name] = max(peaks.get(name, 0.0), (torch.cuda.max_memory_allocated() - held) / 2**30)
    return {name: statistics.median(values) for name, values in times.items()}, peaks


def _clock(cuda: bool) -> Iterator[float]:
    if not cuda:
        start = time.perf_counter()
        yield 0.0
        yield (time.perf_counter() - start) * 1e3
        return
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    yield 0.0
    end.record()
    torch.cuda.synchronize()
    yield begin.elapsed_time(end)


def operations(row: Row, shape: Sequence[int]) -> int:
    """Of the layers as they are written, without what kernels save."""
    with torch.device("meta"):
        vae = row.model.cls(row.model.arch).requires_grad_(False)
        x = torch.empty(tuple(shape))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        ours_run(vae, row.half, x)
    return int(counter.get_total_flops())


def laid(module: nn.Module, *, last: bool) -> None:
    """Weights of convolutions with channels last, or as they are loaded."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d} if last else {}
    for parameter in module.parameters():
        parameter.data = parameter.data.contiguous(memory_format=formats.get(parameter.dim(), torch.contiguous_format))


def ceilings() -> dict[str, float]:
    """Of this machine: bf16 products of random matrices in TFLOP/s, copies in TB/s, read and written bytes counted."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    x = torch.empty(2**31, dtype=torch.uint8, device="cuda")
    y = torch.empty_like(x)
    found = []
    for run in (lambda: a @ b, lambda: y.copy_(x)):
        times = []
        for _ in range(13):
            clock = _clock(True)
            next(clock)
            run()
            times.append(next(clock))
        found.append(statistics.median(times[3:]))
    return {"matmul_tflop_per_s": 2 * 8192**3 / found[0] / 1e9, "copy_tb_per_s": 2 * 2**31 / found[1] / 1e9}


def line(row: dict[str, Any]) -> str:
    """For the eye."""
    if "error" in row:
        return f"{row['work']}: {row['error']}"
    times = ", ".join(f"{name} {ms:.1f} ms ({row['peak_gib'].get(name, 0):.1f} GiB)" for name, ms in row["ms"].items())
    gates = ", ".join(f"{gate} {figure:.2g}" for gate, figure in row["gates"].items())
    return (
        f"{row['work']}: {times}; {row['ratio_to_best']:.2f} times the best; {row['tflop_per_s']:.0f} TFLOP/s; "
        f"{row['verdict']} ({gates} of the limits)"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the rows; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description="speed on a GPU beside gates")
    parser.add_argument("--only", help="keys of models, such as wan,kl")
    parser.add_argument("--json-out", type=Path, metavar="FILE", help="also write the JSON object to FILE, row by row")
    parser.add_argument("--quick", action="store_true", help="narrow models, on a CPU too: shows that it works")
    options = parser.parse_args(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not options.quick:
        parser.error("torch finds no GPU; --quick runs narrow models on the CPU")
    rows = [r for r in (QUICK if options.quick else FULL) if not options.only or r.model.key in options.only.split(",")]
    found: dict[str, Any] = {"bench": "gpu", "date": datetime.datetime.now(datetime.UTC).date().isoformat()}
    found |= {"torch": torch.__version__, "device": torch.cuda.get_device_name() if device == "cuda" else device}
    found |= {"cudnn": torch.backends.cudnn.version(), "rows": []}
    if device == "cuda":
        found["ceilings"] = ceilings()
    say = _say
    for model in dict.fromkeys(row.model.key for row in rows):
        mine = [row for row in rows if row.model.key == model]
        with tempfile.TemporaryDirectory(prefix="vaeport-gpu-") as folder:
            try:
                say(f"gates of {model}")
                sides = Sides(mine[0], device, Path(folder))
                for row in mine:
                    say(f"{model} {row.half} {row.size}")
                    done = measure(row, sides, say)
                    found["rows"].append(done)
                    print(line(done), flush=True)
                    _save(options.json_out, found)
            except Exception as error:  # one model's failure shall not cost the others
                found["rows"].append({"work": model, "error": f"{type(error).__name__}: {str(error)[:400]}"})
                print(line(found["rows"][-1]), flush=True)
            sides = None  # type: ignore[assignment]
            gc.collect()
            if device == "cuda":
                torch.cuda.empty_cache()
    _save(options.json_out, found)
    print(json.dumps(found, allow_nan=False))
    return int(any(row.get("verdict") != "PASS" for row in found["rows"]))


def _save(file: Path | None, found: dict[str, Any]) -> None:
    if file is not None:
        file.write_text(json.dumps(found, indent=1) + "\n")


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=FutureWarning)  # Diffusers uses torch's old weight_norm
    sys.exit(main())
