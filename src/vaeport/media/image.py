"""Photos and other still pictures, as uint8 `[H, W, 3]`, RGB."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vaeport.errors import InputError, MediaError
from vaeport.media.atomic import atomic
from vaeport.media.files import StrPath, extra, input_file, writing

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

# A fixed list: Pillow would otherwise try every format it knows, and reading EPS starts another program.
_READS = ("PNG", "JPEG", "WEBP", "AVIF", "BMP", "TIFF", "GIF", "PPM")
_WRITES: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"lossless": True}),
    ".bmp": ("BMP", {}),
    ".tif": ("TIFF", {}),
    ".tiff": ("TIFF", {}),
}


def read_image(path: StrPath) -> Tensor:
    """Read a still picture as uint8 `[H, W, 3]`, RGB, turned the way its EXIF orientation says.

    Grey, palette and CMYK pictures become RGB; colour profiles are not applied. Transparency is dropped only where
    every pixel is opaque.

    Raises:
        MediaError: not a picture, damaged, animated, partly transparent, 16 bits per channel, or so large that it
            looks like an attack.
        BlockedError: Pillow is not installed, or the file may not be read.
    """
    file = input_file(path)
    with extra("pillow", "video"):
        from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata and of large pictures; a decompression bomb still raises
            Image.init()
            with Image.open(file, formats=[name for name in _READS if name in Image.OPEN]) as image:
                _refuse_more_than_one_picture_of_bytes(image, file)
                image.load()
                upright = ImageOps.exif_transpose(image)
                _refuse_transparency(upright, file)
                return torch.from_numpy(np.array(upright.convert("RGB")))
    except MediaError:
        raise
    except Exception as error:  # damaged files make Pillow raise nearly anything
        raise MediaError(
            "the picture cannot be read", where=file, expected=f"a whole file: {', '.join(_READS)}", found=error
        ) from error


def _refuse_more_than_one_picture_of_bytes(image: ImageFile, file: Path) -> None:
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # MPO: a photo, followed by its preview or its other eye
        fix = "extract the one you mean"
        raise MediaError("the file holds several pictures", where=file, expected="1", found=frames, fix=fix)
    if image.mode.startswith(("I", "F")) or ";16" in str(image.tile):
        raise MediaError(
            "the picture has more than 8 bits per channel",
            where=file,
            expected="8 bits per channel",
            found=f"mode {image.mode}",
            fix="convert it to 8 bits first; doing so here would silently drop the rest",
        )


def _refuse_transparency(image: Image, file: Path) -> None:
    if not image.has_transparency_data:
        return
    lowest, _ = image.convert("RGBA").getchannel("A").getextrema()
    if lowest != 255:
        raise MediaError(
            "the picture is partly transparent",
            where=file,
            expected="opaque pixels (alpha 255)",
            found=f"alpha down to {lowest}",
            fix="flatten it onto a background of your choice first",
        )


def write_image(path: StrPath, pixels: Tensor) -> None:
    """Write uint8 `[H, W, 3]` to `.png`, `.bmp`, `.tiff`, `.webp` (all lossless) or `.jpg` (quality 95, 4:4:4).

    Raises:
        InputError: `pixels` is not uint8 `[H, W, 3]`, or is empty.
        MediaError: another extension, a missing folder, or a size that the format cannot hold.
        BlockedError: Pillow is not installed, the disk is full, or the file may not be written.
    """
    if pixels.dtype != torch.uint8 or pixels.ndim != 3 or pixels.shape[-1] != 3 or not pixels.numel():
        found = f"{pixels.dtype} of shape {list(pixels.shape)}"
        raise InputError("this is not a picture", where=path, expected="uint8 of shape [H, W, 3]", found=found)
    target = Path(path)
    if target.suffix.lower() not in _WRITES:
        raise MediaError("pictures are not written in this format", where=target, expected=", ".join(_WRITES))
    with extra("pillow", "video"):
        from PIL import Image
    name, options = _WRITES[target.suffix.lower()]
    with atomic(target) as partial, writing(target, MediaError, ValueError):
        Image.fromarray(pixels.cpu().contiguous().numpy()).save(partial, format=name, **options)
