"""How long a port of AutoencoderKL takes, against one forward of either side and the reading of the checkpoint.

    python -m bench.port [--size 512] [--dtypes float32,bfloat16]

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from vaeport.port.request import Request
from vaeport.port.run import Port
from vaeport.proof.calling import build
from vaeport.proof.importing import import_object
from vaeport.proof.seeded import write_seeded
from vaeport.registry import ModelRegistry
from vaeport.runtime.load import load_as

REFERENCE = "diffusers:AutoencoderKL"


def seconds(run: Callable[[], Any]) -> float:
    """Of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> int:
    """Ports, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512, help="pixels a side of the forwards")
    parser.add_argument("--dtypes", default="float32,bfloat16", help="types for gates P and D of the parity test")
    options = parser.parse_args()
    registration = ModelRegistry.find("autoencoder_kl")
    arch = registration.model.variants["flux1"]
    with tempfile.TemporaryDirectory(prefix="vaeport-bench-") as folder:
        root = Path(folder)
        weights = write_seeded(root / "official.safetensors", registration, arch, registration.layouts[0], "", seed=0)
        request = Request(
            REFERENCE, "bench", arguments=arch.to_published(), weights=str(weights), root=root,
            dtypes=tuple(filter(None, options.dtypes.split(","))),
        )  # fmt: skip
        start = time.perf_counter()
        state, code = Port(request, lambda text: print(text, file=sys.stderr)).run()
        ported = time.perf_counter() - start
        x = torch.rand(1, 3, options.size, options.size) * 2 - 1
        z = torch.randn(1, arch.latent_channels, options.size // 8, options.size // 8)
        official = build(import_object(REFERENCE), arch.to_published()).eval().requires_grad_(False)
        native = load_as(registration, arch, weights)
        with torch.no_grad():
            theirs = seconds(lambda: (official.encode(x), official.decode(z)))
            mine = seconds(lambda: (native.encode(x), native.decode(z)))
        read = seconds(lambda: [t.sum() for t in load_as(registration, arch, weights).state_dict().values()])
    steps = {name: state.steps.of(name).note for name in ("official", "reuse", "map", "convert", "parity", "handoff")}
    once = theirs + mine + read
    print(
        json.dumps(
            {
                "port": f"{REFERENCE} flux1",
                "parity": state.parity.status,
                "verdict_sha256": state.parity.verdict_sha256,
                "seconds": round(ported, 1),
                "steps": steps,
                "forward": f"{options.size} x {options.size}, encode and decode, float32",
                "official_forward_s": round(theirs, 1),
                "native_forward_s": round(mine, 1),
                "checkpoint_read_s": round(read, 2),
                "ratio": round(ported / once, 2),
                "threads": torch.get_num_threads(),
            }
        )
    )
    return code


if __name__ == "__main__":
    sys.exit(main())
