"""Does a native VAE compute what its reference computed? Exit status 0 if so, 1 if not, 2 if it cannot be told.

    python repro.py [--path FOLDER]

FOLDER is where the native class is imported from, if PYTHONPATH does not lead there. Beside this script lie
`case.json`, what is built and how its weights are drawn, and `reference.safetensors`: inputs, and what the reference
made of them.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from safetensors.torch import load_file

from vaeport.drift.replay import errors, opened
from vaeport.errors import VaeportError
from vaeport.proof.gates import SAME_FUNCTION
from vaeport.proof.setup import native_of


def main() -> int:
    """Prints one line: what differs first, by how much, and how much it may."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--path", action="append", default=[], help="folder to import the native class from")
    sys.path[:0] = parser.parse_args().path
    here = Path(__file__).parent
    case, tensors = json.loads((here / "case.json").read_text("utf-8")), load_file(here / "reference.safetensors")
    native = located(case["native"])
    try:
        native_of(native)
    except VaeportError as error:
        found = error.found or error.where
        print(f"{error.what}\n  found: {found}\n  fix: python {sys.argv[0]} --path FOLDER", file=sys.stderr)
        return 2
    try:
        # built anew from its source, and loaded strictly as users load it
        vae = opened(case, native)
    except Exception as error:  # a wrong port may raise anything
        print(f"{native} cannot be built and loaded\n  found: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    # the unit on the reference's own input first, then whole encode and decode
    found = list(errors(vae, case, tensors))
    failing = [pair for pair in found if not pair[1] <= SAME_FUNCTION]
    name, worst = failing[0] if failing else max(found, key=lambda pair: pair[1])
    print(f"{name}: relative error {worst:.2e}, limit {SAME_FUNCTION:.0e}")
    return 1 if failing else 0


def located(native: str) -> str:
    """A name or an import path as it is; a source file is looked for in the folders that modules are imported from."""
    file, _, name = native.rpartition(":")
    if not file.endswith(".py"):
        return native
    return next((f"{Path(p) / file}:{name}" for p in sys.path if (Path(p) / file).is_file()), native)


if __name__ == "__main__":
    sys.exit(main())
