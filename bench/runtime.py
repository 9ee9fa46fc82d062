"""Plans against their budgets: predicted and measured peak, time beside the whole run, and whether it is exact.

    python -m bench.runtime [--only kl_12,wan_81,...] [--quick] [--json-out FILE]

Full sizes and widths need a GPU; elsewhere, or with `--quick`, narrow models run at small sizes. The last line is one
JSON object. Exit code 1 if a plan is not exact, or breaks its budget on a GPU: a CPU tells what the process holds.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench import report
from bench.drawn import drawn
from bench.memory import peak_growth
from bench.timing import seconds_of
from bench.work import HUNYUAN, KL, LTX2, OOBLECK, QUICK_KL, QUICK_WAN, WAN, Model
from vaeport.errors import VaeportError
from vaeport.runtime.plan import GIB, Kind, Plan
from vaeport.runtime.planner import Planner
from vaeport.runtime.sizes import example
from vaeport.vae import VAE

EXACT, ROUNDING = 1e-12, 2.0


@dataclass(frozen=True)
class Work:
    """A half on a shape within a budget.

    budget  bytes beside the weights
    host    whether the result lies in host memory, beside the budget
    check   a shape that runs whole in float64, too
    """

    key: str
    model: Model
    shape: tuple[int, ...]
    budget: int
    check: tuple[int, ...]
    half: str = "decoder"
    host: bool = False
    fits: bool = True


def _gib(n: float) -> int:
    return int(n * GIB)


FULL = (
    Work("kl_12", KL, (1, 16, 512, 512), _gib(12), (1, 16, 48, 40)),
    Work("kl_6", KL, (1, 16, 512, 512), _gib(6), (1, 16, 48, 40)),
    Work("kl_encode_12", KL, (1, 3, 4096, 4096), _gib(12), (1, 3, 384, 320), half="encoder"),
    Work("wan_81", WAN, (1, 16, 21, 90, 160), _gib(3), (1, 16, 4, 24, 16), host=True),
    Work("wan_801", WAN, (1, 16, 201, 90, 160), _gib(3), (1, 16, 4, 24, 16), host=True, fits=False),
    Work("hunyuan_16", HUNYUAN, (1, 16, 17, 90, 160), _gib(16), (1, 16, 3, 20, 24), fits=False),
    Work("ltx2_5", LTX2, (1, 128, 16, 24, 40), _gib(5), (1, 128, 4, 6, 6)),
    Work("kl_8192", KL, (1, 16, 1024, 1024), _gib(16), (1, 16, 48, 40), fits=False),
    Work("hunyuan_129", HUNYUAN, (1, 16, 33, 90, 160), _gib(24), (1, 16, 3, 20, 24), host=True, fits=False),
    Work("oobleck_10min", OOBLECK, (1, 64, 12920), _gib(1), (1, 64, 700), host=True, fits=False),
    Work("oobleck_hour", OOBLECK, (1, 64, 77520), _gib(1), (1, 64, 700), host=True, fits=False),
)
QUICK = (
    Work("kl", QUICK_KL, (1, 4, 48, 32), 24 * 2**20, (1, 4, 12, 8)),
    Work("wan", QUICK_WAN, (1, 4, 5, 8, 8), 30 * 2**20, (1, 4, 3, 8, 8)),
)


def measure(work: Work, device: str) -> dict[str, Any]:
    """The row of one work."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    vae = drawn(work.model, dtype, device)
    planner = Planner(vae, work.half, work.shape, out_given=work.host)  # type: ignore[arg-type]
    start = time.perf_counter()
    plan = planner.plan(work.budget)
    planning = time.perf_counter() - start
    layer = _layer(vae, work)
    x = example(vae, work.shape)
    out = None
    if work.host:
        shape = vae.contract.decoded_shape(work.shape)
        out = torch.empty(shape, dtype=dtype, pin_memory=device == "cuda")
    planned = lambda: plan.run(layer, x, out)  # noqa: E731
    found: list[Tensor] = []
    start = time.perf_counter()
    peak = peak_growth(lambda: found.append(planned()), device)
    seconds = time.perf_counter() - start
    if work.fits:  # the first run also loads kernels
        seconds = min(seconds, _seconds(planned, device))
    row: dict[str, Any] = {
        "work": f"{work.model.label} {work.half}",
        "key": work.key,
        "shape": list(work.shape),
        "dtype": str(dtype).removeprefix("torch."),
        "budget_gib": round(work.budget / GIB, 3),
        "predicted_gib": round(plan.cost.peak / GIB, 3),
        "measured_gib": None if peak is None else round(peak / 1024, 3),
        "seconds": round(seconds, 3),
        "predicted_seconds": round(plan.cost.seconds, 3),
        "predicted_ratio": round(plan.relative, 3),
        "planning_seconds": round(planning, 2),
        "plan": plan.to_json(),
        "lines": list(plan.lines()),
    }
    if work.fits:
        del found[:]
        whole = lambda: _whole(vae, work, x)  # noqa: E731
        row["whole_gib"] = round((peak_growth(whole, device) or 0) / 1024, 3)
        row["whole_seconds"] = round(_seconds(whole, device), 3)
        row["ratio"] = round(seconds / row["whole_seconds"], 3)
        y = planned()
        row["difference_from_whole"] = _relative(y.to(device), whole())
        del y
    row |= _verdict(work, vae, device, plan)
    return row


def _whole(vae: VAE, work: Work, x: Tensor) -> Tensor:
    pieces = vae.decode_pieces if work.half == "decoder" else vae.encode_pieces
    return vae._run(work.half, _layer(vae, work), x, pieces)


def _layer(vae: VAE, work: Work) -> Any:
    return vae.decoder_at() if work.half == "decoder" else vae.encoder


def _verdict(work: Work, vae: VAE, device: str, plan: Plan) -> dict[str, Any]:
    """On the smaller shape: difference in float64, and errors in the type against float64, relative to the whole."""
    del vae
    share = plan.cost.peak / plan.whole.peak
    errors: dict[str, Any] = {}
    truth = None
    for dtype in (torch.float64, torch.bfloat16 if device == "cuda" else torch.float32):
        twin = drawn(work.model, dtype, device)
        if dtype is not torch.float64:  # the same weights and inputs on both sides
            exact = drawn(work.model, dtype, device).double()
            x = example(twin, work.check)
            with torch.no_grad():
                truth = _layer(exact, work)(x.double())
        else:
            x = example(twin, work.check)
        planner = Planner(twin, work.half, work.check)  # type: ignore[arg-type]
        small = _smaller(planner, share, plan.kind)
        with torch.no_grad():
            whole = _layer(twin, work)(x)
        y = small.run(_layer(twin, work), x)
        if dtype is torch.float64:
            errors |= {"checked": small.kind, "rms_float64": _relative(y, whole)}
        else:
            assert truth is not None
            errors |= {"error_plan": _relative(y, truth), "error_whole": _relative(whole, truth)}
    passed = errors["rms_float64"] <= EXACT and errors["error_plan"] <= ROUNDING * errors["error_whole"]
    return errors | {"verdict": "PASS" if passed else "FAIL"}


def _smaller(planner: Planner, share: float, kind: Kind) -> Plan:
    """A plan of that kind, for that share of the whole run's memory or the least above it that there is."""
    if planner.streams:
        return min((p for p in planner.candidates(0) if p.kind == kind), key=lambda p: p.cost.peak)
    for factor in (share, 0.3, 0.5, 0.7, 0.9, 2.0):
        if factor >= share and (found := planner.within(int(planner.whole.peak * factor))) is not None:
            return found
    raise RuntimeError("no plan")


def _relative(y: Tensor, truth: Tensor) -> float:
    """rms(y - truth) / rms(truth), in pieces, so that nothing large is made."""
    error = power = 0.0
    for a, b in zip(y.flatten().split(2**26), truth.flatten().split(2**26), strict=True):
        error += float((a.double() - b.double()).square().sum())
        power += float(b.double().square().sum())
    return (error / power) ** 0.5


def _seconds(run: Callable[[], Any], device: str) -> float:
    """The shorter of two runs."""
    return min(seconds_of(run, device)[1] for _ in range(2))


def rows(works: Sequence[Work], device: str) -> Iterator[dict[str, Any]]:
    """A row for each work; one that fails says why."""
    for work in works:
        if device == "cuda":
            torch.cuda.empty_cache()
        start = time.perf_counter()
        try:
            yield measure(work, device)
        except (VaeportError, RuntimeError, ValueError, AssertionError) as error:
            yield {"key": work.key, "verdict": "ERROR", "error": f"{type(error).__name__}: {error}"[:600]}
        print(f"{work.key}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)


def line(row: dict[str, Any]) -> str:
    """For people."""
    if row["verdict"] == "ERROR":
        return f"{row['key']:<14} {row['error'][:300]}"
    ratio = f"{row['ratio']:.2f} of whole" if "ratio" in row else "whole does not fit"
    return (
        f"{row['key']:<14} budget {row['budget_gib']:>6} GiB, predicted {row['predicted_gib']:>7}, measured "
        f"{row['measured_gib']!s:>7}; {row['seconds']:>7} s (predicted {row['predicted_seconds']}), {ratio}, predicted "
        f"{row['predicted_ratio']}; {row['verdict']} {row['checked']} {row['rms_float64']:.1e} "
        f"{row['error_plan']:.2e}/{row['error_whole']:.2e}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.runtime", description="plans against their budgets")
    parser.add_argument("--only", help="keys of works, with commas")
    parser.add_argument("--quick", action="store_true", help="narrow models, small sizes")
    parser.add_argument("--json-out", type=Path, metavar="FILE", help="also write the JSON object to FILE")
    options = parser.parse_args(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    works = FULL if device == "cuda" and not options.quick else QUICK
    if options.only:
        works = tuple(work for work in works if work.key in options.only.split(","))
    found: dict[str, Any] = {"bench": "runtime", "date": datetime.datetime.now(datetime.UTC).date().isoformat()}
    found |= report.machine([device])
    found["rows"] = []
    for row in rows(works, device):
        print(line(row), flush=True)
        found["rows"].append(row)
        if options.json_out:
            options.json_out.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")
    print(json.dumps(found, allow_nan=False))
    over = [row for row in found["rows"] if device == "cuda" and row.get("measured_gib", 0) > row.get("budget_gib", 0)]
    return int(bool(over) or any(row["verdict"] != "PASS" for row in found["rows"]))


if __name__ == "__main__":
    sys.exit(main())
