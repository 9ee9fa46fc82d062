"""Kernels by themselves: every operator against its definition, and the convolution's blocks beside cuDNN's conv3d.

    python -m bench.kernels [--json-out FILE] [--quick]

The last line is one JSON object. Exit code 1 if an operator is farther from its definition in float64 than its type
explains. `--quick` checks the definitions alone, on a CPU too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vaeport.kernels import hopper_conv, selfcheck

SHAPES = (
    ((96, 96), (3, 3, 3), (4, 480, 832)),
    ((192, 192), (3, 3, 3), (4, 240, 416)),
    ((384, 384), (3, 3, 3), (2, 120, 208)),
    ((384, 384), (3, 3, 3), (1, 60, 104)),
    ((192, 96), (1, 3, 3), (4, 480, 832)),
    ((128, 128), (1, 3, 3), (1, 1024, 1024)),
    ((512, 512), (1, 3, 3), (1, 256, 256)),
    ((256, 256), (3, 3, 3), (4, 352, 640)),
)
"""channels in and out, taps, frames of a piece: what Wan's and KL's decoders meet"""


def checked(types: Sequence[torch.dtype], device: str) -> list[dict[str, Any]]:
    """The error of every case, over what its type explains."""
    return [
        {"operator": name, "case": what, "dtype": str(dtype), "of_limit": selfcheck.error(name, given) / limit}
        for dtype in types
        for limit in [selfcheck.LARGEST[dtype]]
        for name, what, given in selfcheck.cases(dtype, device, 7)
    ]


def timed(run: Callable[[], Any]) -> float:
    """Milliseconds, the median of eight after three to warm up."""
    times = []
    for _ in range(11):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times[3:])


def last(*shape: int) -> Tensor:
    """Random values of [B, C, T, H, W] with channels last."""
    return torch.randn(shape, device="cuda", dtype=torch.bfloat16).to(memory_format=torch.channels_last_3d)


def blocks(channels: tuple[int, int], kernel: tuple[int, int, int], axes: tuple[int, int, int]) -> dict[str, Any]:
    """TFLOP/s of cuDNN and of all blocks that divide the channels, plain and with a residual."""
    (inner, outer), (kt, kh, kw) = channels, kernel
    x, addend, out = last(1, inner, *axes), last(1, outer, *axes), last(1, outer, *axes)
    past = last(1, inner, kt - 1, *axes[1:]) if kt > 1 else None
    weight = last(outer, inner, *kernel) * (inner * kt * kh * kw) ** -0.5
    flops = 2 * out.numel() * inner * kt * kh * kw
    pad = (kt // 2 * 2, kh // 2, kw // 2)
    joined = x if past is None else torch.cat((past, x), 2).contiguous(memory_format=torch.channels_last_3d)
    found = {"cudnn": flops / timed(lambda: F.conv3d(joined, weight, padding=(0, *pad[1:]))) / 1e9}
    packed = hopper_conv.packed(weight)
    for n, patches in hopper_conv._RATE:
        if patches == hopper_conv.LINE or outer % n:
            continue
        v = hopper_conv.variant_of(False, packed.shape[-1], kernel, False, 1, n, patches)
        for name, residual in (("", None), ("+", addend)):

            def run(v: hopper_conv.Variant = v, residual: Tensor | None = residual) -> None:
                given = (x, packed, None, outer, kernel, out)
                before = (pad[0] - (kt - 1 if past is not None else 0), *pad[1:])
                hopper_conv.run(*given, pad=before, past=past, residual=residual, variant=v)

            found[f"{n}x{patches}{name}"] = flops / timed(run) / 1e9
    chosen = hopper_conv.choice(outer, 1, *axes, torch.cuda.get_device_properties().multi_processor_count)
    name = f"{inner} to {outer}, {kt} x {kh} x {kw}, {' x '.join(map(str, axes))}"
    return {"work": name, "tflop_per_s": found, "chosen": "x".join(map(str, chosen))}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs both; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.kernels", description="operators by themselves")
    parser.add_argument("--json-out", type=Path, metavar="FILE", help="also write the JSON object to FILE")
    parser.add_argument("--quick", action="store_true", help="the checks alone, in float64, on a CPU too")
    options = parser.parse_args(arguments)
    if not (options.quick or torch.cuda.is_available()):
        parser.error("torch finds no GPU; --quick checks the definitions")
    types = (torch.float64,) if options.quick else (torch.bfloat16, torch.float16)
    rows = checked(types, "cpu" if options.quick else "cuda")
    wrong = [row for row in rows if not row["of_limit"] <= 1]
    for row in wrong:
        print(f"{row['operator']} {row['case']}, {row['dtype']}: {row['of_limit']:.3g} of the limit")
    print(f"{len(rows) - len(wrong)} of {len(rows)} cases are right")
    found: dict[str, Any] = {"bench": "kernels", "torch": torch.__version__, "checks": rows, "convolutions": []}
    if not options.quick:
        found["device"] = torch.cuda.get_device_name()
        for shape in SHAPES:
            row = blocks(*shape)
            found["convolutions"].append(row)
            rates = ", ".join(f"{name} {rate:.0f}" for name, rate in row["tflop_per_s"].items())
            print(f"{row['work']}: {rates}; chosen {row['chosen']}", flush=True)
    if options.json_out:
        options.json_out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
