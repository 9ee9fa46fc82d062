"""Real input for demonstrations and tests: a photo, a clip made of it, and a recording."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

from vaeport.errors import InputError
from vaeport.media.files import extra
from vaeport.media.values import to_model, to_pixels


def recording() -> Path:
    """An electric guitar: FLAC, stereo, 44.1 kHz, 5.97 s. Origin and licence: `README.md` beside it."""
    return Path(__file__).with_name("guitar.flac")


def photo() -> Tensor:
    """A portrait, uint8 `[512, 512, 3]`; it comes with scikit-image and needs no network.

    Raises:
        BlockedError: scikit-image is not installed.
    """
    with extra("scikit-image", "demo"):
        from skimage.data import astronaut

    return torch.from_numpy(astronaut())  # type: ignore[no-untyped-call]


def clip(frames: int = 49, height: int = 256, width: int = 256) -> Iterator[Tensor]:
    """Yield `frames` pictures, uint8 `[height, width, 3]`: a camera over the photo, panning and closing in.

    The movement is of fractions of a pixel and spans the clip, whatever its length. The same arguments give the same
    clip.

    Raises:
        InputError: an argument is less than 1.
        BlockedError: scikit-image is not installed.
    """
    if min(frames, height, width) < 1:
        found = f"frames={frames}, height={height}, width={width}"
        raise InputError("a clip has at least one frame and one pixel", expected=">= 1", found=found)
    return _clip(to_model(photo())[None], frames, height, width)


def _clip(scene: Tensor, frames: int, height: int, width: int) -> Iterator[Tensor]:
    widest = 0.9
    seen = (widest * min(1, height / width), widest * min(1, width / height))  # the part of the photo, per side
    shrink = min(1.0, height / (seen[0] * scene.shape[-2]))
    if shrink < 1:  # one pixel of the scene per pixel of the clip at the widest, or it would flicker
        scene = interpolate(scene, scale_factor=shrink, mode="bicubic", antialias=True)
    for index in range(frames):
        time = index / max(1, frames - 1)
        zoom = 1 - 0.4 * time
        rows, columns = (zoom * part for part in seen)
        angle = math.pi * (0.25 + 0.8 * time)
        # Along an arc, inside the photo: a window of this size may move by at most 1 - size on either side.
        across, down = (1 - columns) * 0.8 * math.cos(angle), -(1 - rows) * 0.8 * math.sin(angle)
        camera = torch.tensor([[[columns, 0, across], [0, rows, down]]], dtype=scene.dtype)
        grid = affine_grid(camera, [1, 3, height, width], align_corners=False)
        view = grid_sample(scene, grid, mode="bicubic", padding_mode="border", align_corners=False)
        yield to_pixels(view[0])
