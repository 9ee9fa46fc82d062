"""The benches of kernels run narrow on a CPU, and the page shows what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import gpu, kernels, performance

RESULTS = performance.ROOT / "bench" / "results" / "gpu_h200_2026-11-29" / "gpu.json"


def test_quick_rows_carry_their_gates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "gpu.json"
    assert gpu.main(["--quick", "--json-out", str(file)]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found == json.loads(file.read_text())
    assert [row["verdict"] for row in found["rows"]] == ["PASS", "PASS"]
    for row in found["rows"]:
        assert {"ours", "diffusers", "diffusers, channels last"} == row["ms"].keys()
        assert 0 < row["gates"]["P"] <= 1
        assert row["tflop"] > 0


def test_a_row_whose_gate_fails_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One side twice as loud as the other is another function."""
    theirs = gpu.theirs_run
    monkeypatch.setattr(gpu, "theirs_run", lambda *given: 2 * theirs(*given))
    assert gpu.main(["--quick", "--only", "kl"]) == 1
    (row,) = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert row["verdict"] == "FAIL"
    assert any(failure.startswith("gate S") for failure in row["failures"])


def test_kernels_quick(capsys: pytest.CaptureFixture[str]) -> None:
    assert kernels.main(["--quick"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(found["checks"]) > 60
    assert max(row["of_limit"] for row in found["checks"]) <= 1


def test_the_page_shows_the_results() -> None:
    found = json.loads(RESULTS.read_text())
    assert performance.table(found) in performance.PAGE.read_text()
    assert all(row["verdict"] == "PASS" for row in found["rows"])
    assert min(row["ratio_to_best"] for row in found["rows"]) > 1
