"""A short run of the fuzzer in bench/: whatever is done to a file, the answer is its tensors or one clear error."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

FUZZER = Path(__file__).parents[2] / "bench" / "fuzz_checkpoint.py"


def test_mutated_files_never_escape() -> None:
    command = [sys.executable, str(FUZZER), "--count", "200", "--seed", "42"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    report = json.loads(result.stdout.splitlines()[-1])
    assert report["failures"] == []
    assert result.returncode == 0
    assert report["files"] == sum(report["outcomes"].values()) == 200
    assert {"success", "CorruptFileError", "UnsafePickleError"} <= report["outcomes"].keys()
