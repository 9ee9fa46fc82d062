"""An item's file as `Head`, then tensors, then notes: what a reader process does with it, and nothing of the VAE."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from vaeport.dataset.items import Item
from vaeport.errors import BlockedError, MediaError
from vaeport.media import AudioReader, VideoReader, read_image
from vaeport.media.files import input_file, writing
from vaeport.runtime.inputs import AUDIO, IMAGES

if TYPE_CHECKING:
    from vaeport.dataset.settings import Settings


_BLOCK = 1 << 20


@dataclass(frozen=True)
class Head:
    """What is known of an item before its content comes.

    kind        "image" or "video": uint8 [n, H, W, 3] follows; "audio": float32 [C, n] follows
    height, width
                of the pictures that come; `original` is the size in the file
    rate        frames or samples per second
    total       frames or samples, if the file says so and all are taken
    """

    kind: str
    height: int = 0
    width: int = 0
    rate: Fraction = Fraction(1)
    channels: int = 0
    total: int | None = None
    original: tuple[int, int] | None = None


@dataclass(frozen=True)
class Notes:
    """The last that comes of an item: what was noticed while it was read."""

    lines: tuple[str, ...] = ()


Part = Head | Tensor | Notes


@dataclass(frozen=True)
class Reading:
    """Reads items; picklable, since it is sent to the processes that do.

    first, size     frames or samples in the first tensor and in every other
    """

    modality: str
    first: int
    size: int
    crop: tuple[int, int] | None = None
    frames: int | None = None
    fps: Fraction | None = None

    @classmethod
    def of(cls, settings: Settings, modality: str, pieces: tuple[int, int]) -> Reading:
        """As the settings have it, in pieces as the VAE runs in."""
        return cls(modality, *pieces, settings.size, settings.frames, settings.rate)

    def __call__(self, item: Item) -> Iterator[Part]:
        """The parts of one item; MediaError with the item's place, BlockedError for what is no fault of the item."""
        try:
            with _file(item) as path:
                yield from self._parts(path, Path(item.name).suffix.lower())
        except MediaError as error:
            raise MediaError(
                error.what, where=item.place, expected=error.expected, found=error.found, fix=error.fix
            ) from error

    def _parts(self, path: Path, suffix: str) -> Iterator[Part]:
        kind = "image" if suffix in IMAGES else "audio" if suffix in AUDIO else "video"
        if kind != self.modality and (kind, self.modality) != ("image", "video"):
            raise MediaError("the item is of another kind", expected=self.modality, found=f"{kind} ({suffix})")
        yield from {"image": self._image, "video": self._video, "audio": self._audio}[kind](path)

    def _image(self, path: Path) -> Iterator[Part]:
        pixels = read_image(path)[None]
        original = (pixels.shape[1], pixels.shape[2])
        pixels = self._cropped(pixels)
        yield Head("image", pixels.shape[1], pixels.shape[2], total=1, original=original)
        yield pixels
        yield Notes()

    def _video(self, path: Path) -> Iterator[Part]:
        with VideoReader(path) as reader:
            height, width = self.crop or (reader.height, reader.width)
            total = reader.frames if self.frames is None and self.fps is None else self.frames
            yield Head("video", height, width, self.fps or reader.rate, 0, total, (reader.height, reader.width))
            taken = 0
            for chunk in _chunked(self._taken(iter(reader), reader.rate), self.first, self.size):
                taken += len(chunk)
                yield self._cropped(chunk)
            if self.frames is not None and taken < self.frames:
                raise MediaError("the clip is too short", expected=f"{self.frames} frames", found=f"{taken} frames")
            yield Notes(tuple(reader.notes))

    def _audio(self, path: Path) -> Iterator[Part]:
        with AudioReader(path) as reader:
            yield Head("audio", rate=Fraction(reader.rate), channels=reader.channels, total=reader.frames)
            yield from reader.blocks(self.size)
            yield Notes()

    def _taken(self, frames: Iterator[Tensor], rate: Fraction) -> Iterator[Tensor]:
        """The frames that are on screen at the times that are asked for, as long as any are."""
        step = Fraction(1) if self.fps is None else rate / self.fps
        taken = 0
        for index, frame in enumerate(frames):
            while taken * step < index + 1:
                if taken == self.frames:
                    return
                yield frame
                taken += 1

    def _cropped(self, pixels: Tensor) -> Tensor:
        """[n, H, W, 3] scaled until it covers the size, and cropped to its middle."""
        if self.crop is None or tuple(pixels.shape[1:3]) == self.crop:
            return pixels
        (height, width), (h, w) = pixels.shape[1:3], self.crop
        scale = max(h / height, w / width)
        size = (max(h, round(height * scale)), max(w, round(width * scale)))
        scaled = F.interpolate(pixels.movedim(-1, 1), size, mode="bicubic", antialias=True)
        top, left = (size[0] - h) // 2, (size[1] - w) // 2
        return scaled[:, :, top : top + h, left : left + w].movedim(1, -1).contiguous()


@contextmanager
def _file(item: Item) -> Iterator[Path]:
    """The path of an item; a member of a tar is copied to a file without a name, which goes with the process."""
    if item.member is None:
        try:
            file = input_file(item.file)
        except BlockedError as error:
            raise MediaError(error.what, found=error.found) from error
        yield file
        return
    with writing(Path(os.environ.get("TMPDIR") or "/tmp"), MediaError), tempfile.TemporaryFile() as copy:
        for block in _blocks(item.file, *item.member):
            copy.write(block)
        copy.flush()
        try:
            yield Path(f"/proc/self/fd/{copy.fileno()}")
        except OSError as error:
            raise MediaError("the item cannot be read", found=error.strerror or error) from error


def _blocks(file: Path, offset: int, size: int) -> Iterator[bytes]:
    left = size
    try:
        with file.open("rb") as tar:
            tar.seek(offset)
            while left and (block := tar.read(min(left, _BLOCK))):
                left -= len(block)
                yield block
    except OSError as error:
        raise MediaError("the item cannot be read", found=error.strerror or error) from error
    if left:
        raise MediaError("the tar is cut short", expected=f"{size} bytes", found=f"{left} missing")


def _chunked(frames: Iterator[Tensor], first: int, size: int) -> Iterator[Tensor]:
    held: list[Tensor] = []
    wanted = first
    for frame in frames:
        held.append(frame)
        if len(held) == wanted:
            yield torch.stack(held)
            held, wanted = [], size
    if held:
        yield torch.stack(held)
