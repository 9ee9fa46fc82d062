"""Official classes at full width against the native ones, by `explain`: it should be quiet.

python -m bench.drift.officials [NAME ...] [--cache DIR] [--mirror OWNER/NAME=GITDIR ...]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.golden.flows import OFFICIALS
from tests.golden.official import checkout, source
from vaeport.drift import explain
from vaeport.proof.cases import cases_of
from vaeport.proof.setup import proof_of

NORMALIZED = ("flux1",)
"""Classes whose encode gives latents as the diffusion model sees them."""


def row(name: str, root: Path) -> dict[str, Any]:
    """What is said of one class, on the shortest and the odd case."""
    official = OFFICIALS[name]
    normalized = name in NORMALIZED
    proof = proof_of(
        reference=f"{root / official.place}",
        native=official.native,
        variant=official.variant,
        reference_args=official.arguments(root),
        convention=replace(official.convention, normalized=normalized),
        dtypes=(),
    )
    proof = replace(proof, native=replace(proof.native, normalized=normalized))
    begun = time.monotonic()
    found = explain(proof, cases=cases_of(proof.template.contract)[1:])
    return {
        "official": name,
        "findings": [finding.line() for finding in found.findings],
        "explained": found.explained,
        "same": sum(unit.status == "same" for unit in found.units),
        "units": len(found.units),
        "seconds": round(time.monotonic() - begun, 1),
    }


def main() -> int:
    """See the module; 1 if something is said."""
    parser = argparse.ArgumentParser(prog="python -m bench.drift.officials", description=__doc__)
    parser.add_argument("names", nargs="*", default=list(OFFICIALS))
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--mirror", action="append", default=[])
    options = parser.parse_args()
    mirrors = {repo: Path(folder) for repo, _, folder in (given.partition("=") for given in options.mirror)}
    quiet = True
    with tempfile.TemporaryDirectory() as folder:
        for name in options.names:
            origin = source(OFFICIALS[name].repo)
            found = row(name, checkout(origin, options.cache or Path(folder), mirrors.get(origin.repo)))
            quiet &= not found["findings"] and found["explained"]
            print(json.dumps(found), flush=True)
    return 0 if quiet else 1


if __name__ == "__main__":
    raise SystemExit(main())
