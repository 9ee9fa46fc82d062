"""The bench that disturbs data sets: three rounds of it, and that it sees what is lost."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from bench import kill_dataset


@pytest.mark.full
def test_a_kill_a_hang_and_a_full_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kill_dataset.main(["--rounds", "5", "--json-out", str(tmp_path / "found.json")]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found == json.loads((tmp_path / "found.json").read_text())
    assert (found["rounds"], found["failures"]) == (5, [])
    assert found["struck"]["driver"] == found["struck"]["disk"] == 1


def test_what_is_lost_is_a_failure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    whole = {"data/a": b"all"}

    def lossy(one: Any, pictures: Path, out: Path, draw: random.Random, span: float) -> dict[str, Any]:
        out.mkdir()
        lost = one.fault == "driver"
        told = {"hit": "driver", "first": -9, "last": 1, "runs": 1, "faults": []}
        return told | {"contents": {} if lost else whole}

    monkeypatch.setattr(kill_dataset, "disturbed", lossy)
    monkeypatch.setattr(kill_dataset, "undisturbed", lambda *args: 1.0)
    monkeypatch.setattr(kill_dataset, "contents", lambda folder: whole)
    assert kill_dataset.main(["--rounds", "4"]) == 1
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [line["fault"] for line in found["failures"]] == ["driver"]
