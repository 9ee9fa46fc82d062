"""What takes long is left to `make test-all`: tests/long.txt names it, so that `make test` stays within its time.

    python -m tests.long LOG

writes that file from what pytest prints with `--durations=0 --durations-min=0.3`. Of each test function those
parameters stay that take least, up to `PARAMETERS` seconds together; a function none of whose parameters takes less
than `ONE` does not stay.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest

FILE = Path(__file__).with_name("long.txt")
PARAMETERS, ONE = 4.0, 6.0
"""seconds"""
ALWAYS = (
    "tests/cli/test_prove.py::test_a_proof_from_a_config_and_a_weight_folder",
    "tests/test_readme.py::test_python_blocks_run",
)
"""long, and worth it each time"""
_LINE = re.compile(r"\s*([\d.]+)s (?:call|setup) +(\S.*)")


def mark(items: Sequence[pytest.Item], *, whole_files: bool) -> None:
    """Marks the long ones `full`; UsageError for a line that names no test, where files are collected whole."""
    lines = set(FILE.read_text().splitlines())
    found = set()
    for item in items:
        name = item.nodeid.partition("[")[0]
        if hit := lines & {item.nodeid, name}:
            item.add_marker(pytest.mark.full)
            found |= hit
    files = {item.nodeid.partition("::")[0] for item in items}
    lost = sorted(line for line in lines - found if line.partition("::")[0] in files)
    if lost and whole_files:
        raise pytest.UsageError(f"{FILE.name} names tests that are none: {', '.join(lost)}")


def choose(log: str) -> list[str]:
    """The lines of the file: tests, or functions all of whose parameters are long."""
    seconds: dict[str, float] = defaultdict(float)
    for taken, test in _LINE.findall(log):
        seconds[test.strip()] += float(taken)
    functions: dict[str, list[str]] = defaultdict(list)
    for test in sorted(seconds, key=lambda test: (seconds[test], test)):
        functions[test.partition("[")[0]].append(test)
    lines = []
    for function, tests in functions.items():
        total, long = 0.0, []
        for test in tests:
            total += seconds[test]
            if seconds[test] >= 0.5 and total > (ONE if test == tests[0] else PARAMETERS):
                long.append(test)
        if function not in ALWAYS:
            lines += [function] if long == tests else long
    return sorted(lines)


if __name__ == "__main__":
    FILE.write_text("\n".join(choose(Path(sys.argv[1]).read_text())) + "\n")
