"""The latent file: one tensor, and the contract it was made under, in safetensors."""

from __future__ import annotations

import re
import reprlib
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vaeport.errors import InputError, LatentFileError
from vaeport.media.atomic import atomic
from vaeport.media.files import StrPath, input_file, writing
from vaeport.media.latent_header import LatentHeader, Source

__all__ = ["LatentHeader", "Source", "read_latents", "write_latents"]

METADATA_KEY = "vaeport"
TENSOR = "latents"


def write_latents(path: StrPath, latents: Tensor, header: LatentHeader) -> None:
    """Write `latents` and their header as a safetensors file; it appears complete or not at all.

    Raises:
        InputError: `latents` is not of a floating type, or not of the dtype in the header.
        LatentFileError: the extension is not `.safetensors`, or the folder does not exist.
        BlockedError: the disk is full, or the file may not be written.
    """
    target = Path(path)
    if target.suffix != ".safetensors":
        raise LatentFileError("latents are written as safetensors", where=target, expected=".safetensors")
    dtype = str(latents.dtype).removeprefix("torch.")
    if not latents.is_floating_point() or dtype != header.dtype:
        raise InputError("the latents contradict their header", where=target, expected=header.dtype, found=dtype)
    with atomic(target, LatentFileError) as partial, writing(target, LatentFileError, SafetensorError):
        try:
            save_file({TENSOR: latents.detach().cpu().contiguous()}, partial, {METADATA_KEY: header.to_json()})
        except SafetensorError as error:
            refused = re.search(r"([^:]*) \(os error (\d+)\)", str(error))  # how it words what the system said
            if refused:
                raise OSError(int(refused[2]), refused[1].strip()) from error
            raise


def read_latents(path: StrPath) -> tuple[Tensor, LatentHeader]:
    """Read a latent file whole; the tensor does not depend on the file any more.

    Raises:
        LatentFileError: no such file, not safetensors, not a latent file, damaged, or newer than this vaeport.
        BlockedError: the file may not be read.
    """
    file = input_file(path, LatentFileError)
    try:
        with safe_open(file, framework="pt") as opened:
            metadata, names = opened.metadata() or {}, list(opened.keys())
            if METADATA_KEY not in metadata or names != [TENSOR]:
                raise LatentFileError(
                    "this is not a latent file",
                    where=file,
                    expected=f"one tensor `{TENSOR}` and the metadata `{METADATA_KEY}`",
                    found=f"tensors {reprlib.repr(names)}, metadata {reprlib.repr(sorted(metadata))}",
                    fix="vaeport encode writes latent files; vaeport inspect shows what a checkpoint holds",
                )
            header = LatentHeader.from_json(metadata[METADATA_KEY])
            latents: Tensor = opened.get_tensor(TENSOR).clone()
    except SafetensorError as error:
        expected = "a whole safetensors file"
        raise LatentFileError("the latent file cannot be read", where=file, expected=expected, found=error) from error
    except LatentFileError as error:
        raise LatentFileError(
            error.what, where=file, expected=error.expected, found=error.found, fix=error.fix
        ) from error
    dtype = str(latents.dtype).removeprefix("torch.")
    if dtype != header.dtype or not latents.is_floating_point():
        what = "the latent file contradicts its header"
        raise LatentFileError(what, where=file, expected=header.dtype, found=dtype)
    return latents, header
