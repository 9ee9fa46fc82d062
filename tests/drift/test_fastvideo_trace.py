"""Activation traces: FastVideo's lines are read, records come back, broken files are told by line."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaeport.drift.fastvideo_trace import LONGEST, STATS, Record, read_trace, write_trace
from vaeport.errors import ProofError

# fields, types and order as FastVideo's hook writes them: module, tensor, step, then the statistics asked for
FASTVIDEO = (
    '{"module": "block.layers.0", "tensor": "out", "step": 0, "abs_mean": 1.25, "sum": -5.5, "max": 9.0,'
    ' "shape": [1, 4096, 5120]}\n'
    '{"module": "tuple", "tensor": "out[1].hidden", "step": null, "std": NaN, "min": -Infinity,'
    ' "max": "<error: IndexError(\'max(): Expected reduction dim\')>", "dtype": "torch.bfloat16"}\n'
)
NUMBERS = st.floats(allow_nan=False)
JSON = st.recursive(st.none() | st.booleans() | st.integers() | NUMBERS | st.text(), st.lists, max_leaves=4)
KNOWN = {"module", "tensor", "step", "shape", "dtype", *STATS}
RECORDS = st.builds(
    Record,
    module=st.text(),
    tensor=st.text(),
    step=st.none() | st.integers(),
    stats=st.dictionaries(st.sampled_from(STATS[:3]), NUMBERS),
    shape=st.none() | st.lists(st.integers(0, 10**12)).map(tuple),
    dtype=st.sampled_from((None, "torch.float32")),
    failed=st.dictionaries(st.sampled_from(STATS[3:]), st.text().map(lambda text: f"<error: {text}>")),
    more=st.dictionaries(st.text().filter(lambda name: name not in KNOWN), JSON),
)


def written(tmp_path: Path, text: str | bytes) -> Path:
    file = tmp_path / "trace.jsonl"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def test_lines_of_fastvideo_are_read(tmp_path: Path) -> None:
    first, second = read_trace(written(tmp_path, FASTVIDEO))
    assert first == Record(
        "block.layers.0", "out", 0, {"abs_mean": 1.25, "sum": -5.5, "max": 9.0}, shape=(1, 4096, 5120)
    )
    assert (second.module, second.tensor, second.step) == ("tuple", "out[1].hidden", None)
    assert math.isnan(second.stats["std"])
    assert second.stats["min"] == -math.inf
    assert second.failed == {"max": "<error: IndexError('max(): Expected reduction dim')>"}
    assert (second.shape, second.dtype) == (None, "torch.bfloat16")


def test_lines_are_written_as_fastvideo_writes_them(tmp_path: Path) -> None:
    file = tmp_path / "again.jsonl"
    write_trace(read_trace(written(tmp_path, FASTVIDEO.splitlines()[0])), file)
    assert file.read_text() == FASTVIDEO.splitlines()[0] + "\n"


@settings(max_examples=200)
@given(records=st.lists(RECORDS, min_size=1, max_size=4))
def test_what_is_written_comes_back(records: list[Record], tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("trace") / "trace.jsonl"
    write_trace(records, file)
    assert read_trace(file) == records


def test_unknown_fields_are_kept(tmp_path: Path) -> None:
    line = {"module": "a", "tensor": "out", "step": None, "sum": 1.0, "rank": 3, "l2": [0.5]}
    file = written(tmp_path, json.dumps(line))
    assert read_trace(file)[0].more == {"rank": 3, "l2": [0.5]}
    write_trace(read_trace(file), file)
    assert json.loads(file.read_text()) == line


GOOD = '{"module": "a", "tensor": "out", "step": null, "sum": 1.0}\n'


@pytest.mark.parametrize(
    ("line", "expected", "found"),
    [
        (GOOD.rstrip()[:-9], "newline", "torn last line"),
        (GOOD.rstrip()[:-9] + "\n", "one JSON object", "column"),
        ("[1, 2]\n", "one JSON object", "a list"),
        ('{"tensor": "out", "step": 1}\n', "module, tensor, step", "no module"),
        ('{"module": "a", "module": "b", "tensor": "out", "step": 1}\n', "one JSON object", "twice"),
        (GOOD.replace("1.0", "true"), "a number", "True"),
        (GOOD.replace("1.0", '"1.0"'), "a number", "1.0"),
        (GOOD.replace("1.0", "1" + "0" * 400), "a number", "1000"),
        (GOOD.replace("1.0", "1" + "0" * 5000), "one JSON object", "digits"),
        (GOOD.replace("null", "0.5"), "a whole number", "0.5"),
        (GOOD.replace('"sum": 1.0', '"shape": [1, -1]'), "a list of sizes", "-1"),
        (GOOD.replace('"out"', "7"), "the place of a tensor", "7"),
        ("[" * 100_000 + "\n", "one JSON object", "recursion"),
        (b"\xff\xfe\n", "one JSON object", "decode"),
        ("x" * (LONGEST + 5) + "\n", "at most", "longer"),
    ],
)
def test_a_broken_line_is_told_by_its_number(line: str | bytes, expected: str, found: str, tmp_path: Path) -> None:
    raw = line if isinstance(line, bytes) else line.encode()
    file = written(tmp_path, GOOD.encode() + b"\n" + raw)  # an empty line counts
    with pytest.raises(ProofError) as refused:
        read_trace(file)
    assert f"{file}:3" in str(refused.value.where)
    assert expected in str(refused.value.expected)
    assert found in str(refused.value.found)
    assert refused.value.fix


@pytest.mark.parametrize("held", [None, "", "\n\n"])
def test_no_trace_is_no_empty_trace(held: Any, tmp_path: Path) -> None:
    file = tmp_path / "none.jsonl" if held is None else written(tmp_path, held)
    with pytest.raises(ProofError, match="no trace here" if held is None else "empty"):
        read_trace(file)


def test_a_trace_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    file = written(tmp_path, GOOD)
    with pytest.raises(TypeError):
        write_trace([Record("a"), Record("b", more={"x": object()})], file)
    assert file.read_text() == GOOD
    assert list(tmp_path.iterdir()) == [file]
