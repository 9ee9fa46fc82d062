"""The benchmark of files, on a narrow model: every sink runs, and what it says is whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from bench import files
from vaeport.media import VideoReader


@pytest.mark.parametrize("sink", files.SINKS)
def test_quick(sink: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--quick", "--sink", sink, "--repeats", "1", "--json-out", str(tmp_path / "out.json")]
    assert files.main(arguments) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    found = json.loads(last)
    assert found == json.loads((tmp_path / "out.json").read_text())
    assert [line.partition(":")[0] for line in lines] == ["decode", "encode"]
    assert (found["sink"], found["device"], found["frames"]) == (sink, "cpu", [9, 32, 48])
    for half in ("decode", "encode"):
        row = found[half]
        assert row["device"] > 0
        assert row["ratio"] == pytest.approx(row["file"] / row["device"], rel=0.05)
    assert found.get("mp4_kib", 1) > 0


def test_every_sink_gets_the_frames_and_every_source_gives_the_latents(tmp_path: Path) -> None:
    latents, pictures = [], []
    for sink in ("mp4", "raw"):
        (folder := tmp_path / sink).mkdir()
        options = files.parsed(["--quick", "--sink", sink])
        work = files.Work(options, folder)
        for runs in (work.decoding(), work.encoding()):
            runs["file"]()
        latents.append(files.read_latents(folder / "again.safetensors")[0])
        if sink == "raw":
            raw = torch.frombuffer(bytearray((folder / "out.raw").read_bytes()), dtype=torch.uint8)
            pictures.append(raw.view(work.decoded.shape))
            assert torch.equal(pictures[-1], work.decoded)
        else:
            with VideoReader(folder / "out.mp4") as video:
                pictures.append(torch.stack(list(video)))
    assert latents[0].shape == latents[1].shape  # the mp4 that is encoded is not lossless
    brightness = [video.float() @ torch.tensor([0.2126, 0.7152, 0.0722]) for video in pictures]
    assert (brightness[0] - brightness[1]).abs().mean() < 3  # colour has half the resolution there


def test_a_preset_that_x264_lacks_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert files.main(["--quick", "--preset", "quick"]) == 2
    assert "no such preset" in capsys.readouterr().err
