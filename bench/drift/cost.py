"""What an explanation costs at full width, in runs of the reference: `python -m bench.drift.cost [--threads 2]`.

Wan 2.1 at its published widths, 5 frames of 64x64 in float64, beside the two small inputs on which changes are tried.
Each fault in a process of its own. Ends in one JSON line.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bench.drift.forking import asked
from bench.drift.kinds import Site
from bench.drift.run import injected
from vaeport.drift import explain
from vaeport.proof.cases import Case
from vaeport.proof.jobs import Job
from vaeport.proof.prove import Proof
from vaeport.proof.setup import proof_of
from vaeport.vae import VAE

CASES = (
    Case("cost", (1, 3, 5, 64, 64), (1, 16, 2, 8, 8)),
    Case("small", (1, 3, 5, 16, 24), (1, 16, 2, 2, 3)),
    Case("shortest", (1, 3, 1, 16, 24), (1, 16, 1, 2, 3)),
)
FAULTS = (
    (("padding_side", "encoder.conv_in"),),
    (("residual_scale", "decoder.levels.1.blocks.1"),),
    (("activation_variant", "decoder.levels.2.blocks.0.main.act1", "relu"),),
    (("attention_scale", "decoder.middle.attention.layer.main.attention", "missing"),),
    (("upsample_with_zeros", "decoder.levels.2.resample.space.layer.nearest"),),
    (("norm_missing", "encoder.levels.2.blocks.0.main.norm1"), ("kernel_flipped", "decoder.conv_in")),
)


def faulty(proof: Proof, faults: Any) -> Proof:
    """The proof of a native side with these faults."""
    fault = injected(*((kind, Site(path, *detail)) for kind, path, *detail in faults))

    def opened(path: Path) -> VAE:
        vae = proof.native.open(path)
        fault(vae)
        return vae

    return replace(proof, native=replace(proof.native, open=opened))


def reference_run(proof: Proof) -> float:
    """Seconds of one encode and decode of the first case by the reference, when it is warm."""
    with tempfile.TemporaryDirectory() as folder:
        _, weights = proof.prepared(Path(folder))
        x, z = (t.double() for t in CASES[0].inputs(0))
        stops = [time.monotonic() for _ in proof.reference.run(weights, [Job(str(i), x, z) for i in range(4)])]
    return min(b - a for a, b in itertools.pairwise(stops))


def peak() -> float:
    """GiB that this process has used at most."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


def of_reference(proof: Proof) -> dict[str, Any]:
    """The row of the reference alone."""
    return {"seconds": round(reference_run(proof), 2), "peak_gib": peak()}


def of_faults(proof: Proof, faults: Any) -> dict[str, Any]:
    """The row of some faults at once."""
    begun = time.monotonic()
    found = explain(faulty(proof, faults), cases=CASES)
    return {
        "faults": [f"{kind} at {path}" for kind, path, *_ in faults],
        "said": [f"{finding.unit}: {finding.cause}" for finding in found.findings],
        "tried": [finding.tried for finding in found.findings],
        "explained": found.explained,
        "seconds": round(time.monotonic() - begun, 1),
        "reference": round(found.seconds["reference"], 1),
        "peak_gib": peak(),
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m bench.drift.cost", description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    threads = parser.parse_args().threads

    def measured(row: Callable[..., dict[str, Any]], *of: Any) -> dict[str, Any]:
        def work() -> dict[str, Any]:
            torch.set_num_threads(threads)
            proof = proof_of(reference="diffusers:AutoencoderKLWan", native="wan", variant="wan2.1", dtypes=())
            return row(proof, *of)

        told: dict[str, Any] = asked(work, timeout=1800.0)
        return dict(told.get("value", told))

    reference, rows = measured(of_reference), []
    print(json.dumps(reference), flush=True)
    for faults in FAULTS:
        row = measured(of_faults, faults)
        row["runs_per_fault"] = round(row.get("seconds", math.inf) / reference["seconds"] / len(faults), 1)
        rows.append(row)
        print(json.dumps(row), flush=True)
    worst = max(row["runs_per_fault"] for row in rows)
    print(json.dumps({"reference": reference, "threads": threads, "cores": os.cpu_count(), "worst": worst}))


if __name__ == "__main__":
    main()
