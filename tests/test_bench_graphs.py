from __future__ import annotations

import json

import pytest
import torch

from bench import graphs
from vaeport.kernels.graphs import Graphs


def test_quick(capsys: pytest.CaptureFixture[str]) -> None:
    assert graphs.main(["--quick", "--device", "cpu"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [(row["half"], row["equal"]) for row in rows] == [("encode", True), ("decode", True)] * 2
    assert all(row["plain_ms"] > 0 and row["graphs_ms"] > 0 for row in rows)


def test_another_result_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    true = Graphs.stream
    monkeypatch.setattr(Graphs, "stream", lambda *args: map(torch.neg, true(*args)))
    assert graphs.main(["--quick", "--device", "cpu"]) == 1
