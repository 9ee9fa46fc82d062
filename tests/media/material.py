"""Pictures, tones, and a full disk, for the tests of the media layer."""

from __future__ import annotations

import math
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def moving_picture(frames: int, height: int, width: int) -> Tensor:
    """Smooth coloured waves that travel, uint8 `[frames, height, width, 3]`; every frame is different."""
    t = torch.arange(frames)[:, None, None]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    waves = (torch.sin(x / 9 + t / 3), torch.cos(y / 11 - t / 5), torch.sin((x + y) / 17 - t / 4))
    return torch.stack([(127 + 100 * wave).expand(frames, height, width) for wave in waves], -1).to(torch.uint8)


def tone(samples: int, channels: int, rate: int = 44100, frequency: float = 440.0) -> Tensor:
    """Sines, float32 `[channels, samples]`, one octave per channel."""
    t = torch.arange(samples, dtype=torch.float64) / rate
    return torch.stack([0.5 * torch.sin(2 * math.pi * frequency * 2**c * t) for c in range(channels)]).float()


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """A block in which the system refuses to let any file grow beyond so many bytes, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
