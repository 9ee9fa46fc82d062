from __future__ import annotations

import json

import pytest
import torch

from bench import dataset


def test_quick(capsys: pytest.CaptureFixture[str]) -> None:
    assert dataset.main(["--quick", "--items", "3", "--size", "32x32", "--batch", "2", "--repeats", "1"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["items"] == 3
    assert told["of_bare"] > 0
    assert told["worst_difference"] < 1e-5


def test_other_latents_are_seen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    true = dataset.bare
    monkeypatch.setattr(dataset, "bare", lambda vae, media: [z + torch.ones_like(z) for z in true(vae, media)])
    assert dataset.main(["--quick", "--items", "2", "--size", "32x32", "--repeats", "1"]) == 1


def test_clips(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--quick", "--model", "wan", "--items", "9", "--size", "32x32", "--frames", "5", "--repeats", "1"]
    assert dataset.main(arguments) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["items"], told["frames"]) == (9, 5)
    assert told["running_of_bare"] >= told["of_bare"] > 0
