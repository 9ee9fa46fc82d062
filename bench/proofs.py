"""Which full-width proofs were carried out: `src/vaeport/proved.json`, from the verdicts in `bench/results`.

python -m bench.proofs [--check]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from vaeport.published import PROOFS

RESULTS = Path(__file__).with_name("results")


def proved() -> dict[str, dict[str, Any]]:
    """Variant -> what its verdict says; of several verdicts that of the last folder counts, and none that failed."""
    found: dict[str, dict[str, Any]] = {}
    for file in sorted(RESULTS.glob("proofs_*/prove_*.json")):
        verdict = json.loads(file.read_text("utf-8"))
        variant = file.stem.removeprefix("prove_").rpartition("_")[0]
        gates = {row["gate"] for row in verdict["rows"]}
        if not verdict["passed"] or verdict["failures"]:
            raise SystemExit(f"{file} is no proof")
        found[variant] = {
            "gates": ", ".join(sorted({gate[0] for gate in gates}, key="SPD".index)),
            "dtypes": ", ".join(sorted(gate[2:] for gate in gates if gate.startswith("P "))),
            "verdict": str(file.relative_to(RESULTS.parent.parent)),
        }
    return found


def main() -> None:
    """Writes the file, or compares it with `--check`."""
    text = json.dumps(proved(), indent=1, sort_keys=True) + "\n"
    if "--check" not in sys.argv[1:]:
        PROOFS.write_text(text)
    elif PROOFS.read_text() != text:
        raise SystemExit(f"{PROOFS.name} is not what the verdicts say: run python -m bench.proofs")


if __name__ == "__main__":
    main()
