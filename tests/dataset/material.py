"""Small data sets, and what an output folder holds."""

from __future__ import annotations

import io
import json
import tarfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor

from vaeport.media import AudioWriter, VideoWriter, write_image


def pixels(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def pictures(folder: Path, sizes: list[tuple[int, int]]) -> Path:
    """Pictures of these sizes, `00.png`, `01.png`, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, size in enumerate(sizes):
        write_image(folder / f"{index:02d}.png", pixels(*size, seed=index))
    return folder


def clip(path: Path, frames: int, height: int = 16, width: int = 24, rate: Fraction = Fraction(24)) -> Path:
    """A clip without losses."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, rate=rate, width=width, height=height) as video:
        video.write(pixels(frames, height, width))
    return path


def sound(path: Path, samples: int, rate: int = 44100, channels: int = 2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with AudioWriter(path, rate=rate, channels=channels) as audio:
        audio.write(torch.rand(channels, samples, generator=torch.Generator().manual_seed(samples)) - 0.5)
    return path


def tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as out:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))
    return path


def rows(folder: Path) -> dict[str, dict[str, Any]]:
    """All rows of a Parquet output by id; each id is there once. Latents as FastVideo's reader takes them."""
    found = [row for path in sorted(folder.rglob("*.parquet")) for row in pq.ParquetFile(path).read().to_pylist()]
    for row in found:
        values = np.frombuffer(row["vae_latent_bytes"], dtype=np.float32)
        row["latents"] = torch.from_numpy(values.reshape(row["vae_latent_shape"]).copy())
        row["told"] = json.loads(row["vaeport"])
    assert len({row["id"] for row in found}) == len(found)
    return {row["id"]: row for row in found}


def contents(folder: Path) -> dict[str, bytes]:
    """Latents and what says which they are, by name."""
    names = [path for name in ("data", "latents") for path in (folder / name).rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in names}
