"""The deriver on scrambled references at published width: which native weights it maps, and how many of them rightly.

    python -m bench.scrambled [--only kl,wan,oobleck] [--modes normal,hard] [--seed 1] [--table FILE]

Each reference runs in a process of its own, as in a port, and keeps its true map to itself. Progress goes to stderr;
the last line of stdout is one JSON object; `--table` writes the rows as Markdown. Exit code 1 if a weight is wrong or a
twin does not pass.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.port.scrambled import PUBLISHED
from tests.port.truth import wrong
from vaeport.mapping.flow import Flow
from vaeport.port.derivation import derive_map, twin
from vaeport.port.reuse import reuse_proof
from vaeport.proof.calling import Convention
from vaeport.proof.remote import RemoteSide

STEPS = ("probe", "reuse", "derive", "twin")
HEAD = ("reference", "mode", "weights", "native", "right", "wrong", "open by graph", "gate S, worst", *STEPS)


def derived(name: str, seed: int, *, hard: bool) -> dict[str, Any]:
    """One row: probe, reuse proof, map, comparison with the truth, and gate S on weights drawn for both sides."""
    model, variant = PUBLISHED[name]
    arguments = {"seed": seed, "hard": hard}
    side = RemoteSide(f"tests.port.scrambled:{name}", arguments, python=sys.executable)
    times = [time.perf_counter()]
    contract = side.ask("port.probe:probe")
    flow = Flow.from_json(contract.pop("flow"))
    side = replace(side, convention=Convention(**contract["convention"]))
    times.append(time.perf_counter())
    proof = reuse_proof(flow, contract, arguments, variant=variant)
    times.append(time.perf_counter())
    row: dict[str, Any] = {
        "reference": model.variants[variant].class_names[0],
        "mode": "hard" if hard else "normal",
        "seed": seed,
        "verdict": proof.verdict,
        "weights": len(flow.shapes),
    }
    nearest = proof.nearest
    if proof.verdict == "port" or nearest is None or nearest.flow is None:
        return {**row, "differences": proof.differences, "wrong": len(flow.shapes)}
    media, latent = tuple(contract["media"]), tuple(contract["latent"])
    registration, arch = nearest.registration, nearest.arch

    def measure(drawn: Mapping[str, Tensor]) -> Flow:
        with tempfile.TemporaryDirectory(prefix="vaeport-bench-") as folder:
            file = Path(folder) / "drawn.safetensors"
            save_file({key: tensor.contiguous() for key, tensor in drawn.items()}, file)
            return Flow.from_json(side.ask("port.flows:foreign_values", media=media, latent=latent, weights=str(file)))

    found = derive_map(registration, arch, (nearest.flow, flow), measure, normalized=False, media=media, latent=latent)
    times.append(time.perf_counter())
    verdict = twin(side, registration, arch, found, flow, normalized=False)
    times.append(time.perf_counter())
    missed = wrong(found.plan, registration.model, arch, name, seed, hard=hard)
    return {
        **row,
        "native": len(found.plan.steps),
        "right": len(found.plan.steps) - len(missed),
        "wrong": len(missed),
        "open": sum(line.startswith("open by graph") for line in found.evidence),
        "undecided": sum("values cannot tell" in line for line in found.evidence),
        "seconds": {step: round(b - a, 1) for step, a, b in zip(STEPS, times, times[1:], strict=False)},
        "gate_s": max((r.figure for r in verdict.rows), default=None),
        "twin": "PASS" if verdict else "FAIL",
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [HEAD, ("---",) * len(HEAD)]
    for row in rows:
        if "native" not in row:
            lines.append((row["reference"], row["mode"], str(row["weights"]), "not reused", *[""] * (len(HEAD) - 4)))
            continue
        numbers = [str(row[key]) for key in ("weights", "native", "right", "wrong", "open")]
        figure = f"{row['gate_s']:.1e}" if row["twin"] == "PASS" else "FAIL"
        lines.append((row["reference"], row["mode"], *numbers, figure, *(f"{row['seconds'][s]} s" for s in STEPS)))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> int:
    """Derives, compares, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PUBLISHED), help="of %(default)s")
    parser.add_argument("--modes", default="normal,hard")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--table", type=Path, help="Markdown file")
    options = parser.parse_args()
    rows = []
    for name in options.only.split(","):
        for mode in options.modes.split(","):
            rows.append(derived(name, options.seed, hard=mode == "hard"))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    if options.table:
        options.table.write_text(table(rows), "utf-8")
    print(json.dumps({"rows": rows, "torch": torch.__version__, "threads": torch.get_num_threads()}))
    return 0 if all(row["wrong"] == 0 and row["twin"] == "PASS" for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
