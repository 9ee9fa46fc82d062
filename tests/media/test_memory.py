"""Memory stays flat, however long the file: each case runs in a process of its own and prints its peak, in MiB."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PEAK = """
import resource, sys
from pathlib import Path
import torch
from vaeport.media import AudioReader, AudioWriter, VideoReader, VideoWriter, resample
from tests.media.material import moving_picture, tone

torch.set_num_threads(1)  # the work is small, and threads that wait for each other take longer
folder = Path(sys.argv[1])
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
"""

AUDIO = """
def run(seconds):
    second, count = tone(44100, 2), 0
    with AudioWriter(folder / "a.flac", rate=44100, channels=2) as writer:
        for _ in range(seconds):
            writer.write(second)
    with AudioReader(folder / "a.flac") as reader, AudioWriter(folder / "b.flac", rate=48000, channels=2) as writer:
        for block in resample(reader.blocks(44100), 44100, 48000):
            writer.write(block)
    assert writer.frames == 48000 * seconds

run(10)
before = peak()
run(600)
print(peak() - before)
"""

VIDEO = """
def run(name, frames):
    with VideoWriter(folder / name, rate=24, width=320, height=180) as writer:
        for start in range(0, frames, 10):
            writer.write(pieces[start // 10 % 2])
    with VideoReader(folder / name) as reader:
        assert sum(len(chunk) for chunk in reader.chunks(1, 4)) == frames

pieces = moving_picture(20, 180, 320).split(10)
for name in ("a.mp4", "a.mkv"):
    run(name, 60)  # the encoder looks 40 frames ahead
before = peak()
for name in ("a.mp4", "a.mkv"):
    run(name, 360)
print(peak() - before)
"""


@pytest.mark.parametrize(
    ("script", "allowed"),
    [
        pytest.param(AUDIO, 16, id="ten minutes of stereo, 202 MiB of it, against ten seconds"),
        pytest.param(VIDEO, 16, id="360 frames of 169 KiB, 59 MiB of them, against 60"),
    ],
)
def test_memory_is_flat(tmp_path: Path, script: str, allowed: int) -> None:
    done = subprocess.run([sys.executable, "-c", PEAK + script, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= allowed
