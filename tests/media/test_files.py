from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vaeport.errors import BlockedError, LatentFileError, MediaError
from vaeport.media import AudioReader, AudioWriter, VideoReader, VideoWriter, read_image, read_latents, write_image
from vaeport.media.samples import photo

READERS = {"image": read_image, "video": VideoReader, "audio": AudioReader, "latents": read_latents}
EVERY_READER = pytest.mark.parametrize("kind", READERS)


@EVERY_READER
def test_what_is_no_file_is_refused(kind: str, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    for name, said in {
        "none": "no such",
        "empty": "empty",
        "": "a folder",
        "pipe": "a pipe",
        "empty/x": "no such",
    }.items():
        with pytest.raises(LatentFileError if kind == "latents" else MediaError, match=said) as caught:
            READERS[kind](tmp_path / name)
        assert caught.value.where == tmp_path / name


@EVERY_READER
def test_what_the_system_withholds_is_blocked(kind: str) -> None:
    with pytest.raises(BlockedError, match="cannot be opened"):
        READERS[kind]("/proc/self/mem")


@EVERY_READER
@pytest.mark.parametrize(
    "content", [b"hello, this is a text file\n" * 40, b"\0" * 5000, b"#EXTM3U\nhttp://127.0.0.1:9/x.ts\n"]
)
@pytest.mark.parametrize("suffix", [".mp4", ".png", ".wav", ".raw", ".safetensors", ""])
def test_other_content_is_refused_under_any_name(kind: str, content: bytes, suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"x{suffix}"
    file.write_bytes(content)
    with pytest.raises(LatentFileError if kind == "latents" else MediaError, match="cannot be read"):
        READERS[kind](file)


@pytest.mark.parametrize(
    ("package", "install", "use"),
    [
        ("PIL", "vaeport[video]", lambda: read_image(__file__)),
        ("PIL", "vaeport[video]", lambda: write_image("a.png", torch.zeros(1, 1, 3, dtype=torch.uint8))),
        ("av", "vaeport[video]", lambda: VideoReader(__file__)),
        ("av", "vaeport[video]", lambda: VideoWriter("a.mp4", rate=24, width=4, height=4).__enter__()),
        ("soundfile", "vaeport[audio]", lambda: AudioReader(__file__)),
        ("soundfile", "vaeport[audio]", lambda: AudioWriter("a.wav", rate=8000, channels=1).__enter__()),
        ("skimage.data", "vaeport[demo]", photo),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    package: str, install: str, use: Callable[[], object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, package, None)  # what Python itself does for a package that must not be found
    with pytest.raises(BlockedError) as caught:
        use()
    assert f"pip install {install}" in (caught.value.fix or "").replace("'", "")
    assert not list(tmp_path.iterdir())


def test_importing_the_media_layer_loads_no_codec() -> None:
    heavy = {"av", "soundfile", "PIL", "skimage"}
    script = f"import sys, vaeport.media, vaeport.media.samples; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
