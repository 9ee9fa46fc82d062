"""Media files as pieces that a VAE takes: the right type, layout and channels, padded to a legal size and length.

Video and audio are read in a thread of their own, ahead of the encoder. What is read goes to the device as it is, from
pinned memory where that is a GPU, and is scaled and converted there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from vaeport.closing import Closing
from vaeport.errors import MediaError
from vaeport.media import AudioReader, Source, VideoReader, read_image, resampled_length, to_model
from vaeport.media import resample as resampled
from vaeport.runtime.overlap import Ahead
from vaeport.vae import VAE

IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
AUDIO = (".wav", ".flac", ".ogg", ".mp3", ".aiff")
AHEAD = 4
"""chunks that are read before they are asked for"""


class Input(Closing):
    """A file as input of a VAE; a context manager that closes it.

    streams     pieces follow each other along axis 2
    total       positions in all, if the file says
    notes       what was adapted
    """

    streams: bool = True
    total: int | None = None

    def __init__(self, vae: VAE, path: Path) -> None:
        self.vae, self.path = vae, path
        self.notes: list[str] = []
        self.pad: dict[str, list[int]] = {}
        self._pin = vae.device.type == "cuda"
        self._threads: list[Ahead[Any]] = []

    def pieces(self) -> Iterator[Tensor]:
        """Tensors [1, C, ...] in the VAE's type and on its device, padded to a legal size; may be read once."""
        raise NotImplementedError

    def unpadded(self) -> Iterator[Tensor]:
        """The same without padding; may be read once."""
        raise NotImplementedError

    def source(self) -> Source:
        """What the latent file says of the media; complete when all pieces are read."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the file, after the thread that reads it."""
        while self._threads:
            self._threads.pop().close()
        self._release()

    def _release(self) -> None:
        pass

    def _ahead(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        self._threads.append(Ahead(chunks, AHEAD))
        return self._threads[-1]

    def _padded_to(self, name: str, n: int) -> int:
        """The legal length of the axis; notes the padding."""
        rule = next(a for a in self.vae.contract.axes if a.name == name)
        target = rule.padded(n)
        if target != n:
            self.pad[{"time": "frames"}.get(name, name)] = [0, target - n]
            self.notes.append(f"{name} {n} padded to {target} ({rule.multiple}k + {rule.offset}); decoding cuts it off")
        return target


def open_input(vae: VAE, path: Path, *, resample: bool, upmix: bool) -> Input:
    """The file as input of `vae`; MediaError if it is of another kind."""
    modality = vae.contract.modality
    suffix = path.suffix.lower()
    kind = "image" if suffix in IMAGES else "audio" if suffix in AUDIO else "video"
    if kind != modality and (kind, modality) != ("image", "video"):
        raise MediaError(
            f"{type(vae).__name__} takes {modality} files", where=path, expected=modality, found=f"{kind} ({suffix})"
        )
    if kind == "audio":
        return AudioInput(vae, path, resample, upmix)
    return ImageInput(vae, path) if kind == "image" else VideoInput(vae, path)


class _Pictures(Input):
    """Pictures [H, W, 3] or [n, H, W, 3], padded by repeating the last row and column."""

    height: int
    width: int

    def _spatial(self) -> list[int]:
        down, right = (
            self._padded_to("height", self.height) - self.height,
            self._padded_to("width", self.width) - self.width,
        )
        return [0, right, 0, down]

    def _model(self, pixels: Tensor) -> Tensor:
        return to_model(pixels.to(self.vae.device, non_blocking=True), dtype=self.vae.dtype)[None]


class ImageInput(_Pictures):
    """One picture, for an image VAE or, as a clip of one frame, for a video VAE; `pixels` if it is read already."""

    def __init__(self, vae: VAE, path: Path, pixels: Tensor | None = None) -> None:
        super().__init__(vae, path)
        self.pixels = read_image(path) if pixels is None else pixels
        self.height, self.width = self.pixels.shape[:2]
        self.streams = vae.contract.modality == "video"
        self.total = 1

    def pieces(self) -> Iterator[Tensor]:
        """See `Input`."""
        x = F.pad(self._model(self.pixels), self._spatial(), mode="replicate")
        yield x.unsqueeze(2) if self.streams else x

    def unpadded(self) -> Iterator[Tensor]:
        """See `Input`."""
        x = self._model(self.pixels)
        yield x.unsqueeze(2) if self.streams else x

    def source(self) -> Source:
        """See `Input`."""
        return Source(modality="image", height=self.height, width=self.width, frames=1, pad=self.pad)


class VideoInput(_Pictures):
    """A clip, read while it is encoded; the last frame is repeated up to a legal length.

    reader  of the frames, or what behaves like one; None: of the file
    """

    def __init__(self, vae: VAE, path: Path, reader: Any = None) -> None:
        super().__init__(vae, path)
        self.reader = reader or VideoReader(path)
        self.height, self.width, self.total = self.reader.height, self.reader.width, self.reader.frames
        self.frames = 0

    def pieces(self) -> Iterator[Tensor]:
        """See `Input`."""
        spatial = self._spatial()
        x = None
        for x in self.unpadded():
            yield F.pad(x, [*spatial, 0, 0], mode="replicate")
        if x is not None and (more := self._padded_to("time", self.frames) - self.frames):
            yield F.pad(x[:, :, -1:], [*spatial, 0, more - 1], mode="replicate")

    def unpadded(self) -> Iterator[Tensor]:
        """See `Input`."""
        for chunk in self._ahead(self.reader.chunks(*(self.vae.encode_pieces or (1, 4)), pin=self._pin)):
            self.frames += len(chunk)
            yield self._model(chunk)
        self.notes += self.reader.notes

    def source(self) -> Source:
        """See `Input`."""
        size = Source(modality="video", frames=self.frames, height=self.height, width=self.width, pad=self.pad)
        return size | Source(rate=str(self.reader.rate))

    def _release(self) -> None:
        self.reader.close()


class AudioInput(Input):
    """A recording, read while it is encoded; zeros follow up to a legal length.

    reader  of the samples, or what behaves like one; None: of the file
    """

    def __init__(self, vae: VAE, path: Path, resample: bool, upmix: bool, reader: Any = None) -> None:
        super().__init__(vae, path)
        self.reader = reader or AudioReader(path)
        contract, rate = vae.contract, self.reader.rate
        assert contract.sample_rate is not None
        self.rate = contract.sample_rate
        self.samples = 0
        self.upmix = upmix and self.reader.channels == 1
        if self.reader.channels != contract.channels and not self.upmix:
            fix = (
                "--upmix uses a mono recording for every channel" if self.reader.channels == 1 else "mix it down first"
            )
            self.reader.close()
            raise MediaError(
                "another number of channels",
                where=path,
                expected=contract.channels,
                found=self.reader.channels,
                fix=fix,
            )
        if rate != self.rate and not resample:
            self.reader.close()
            fix = "--resample converts it"
            raise MediaError("another sample rate", where=path, expected=f"{self.rate} Hz", found=f"{rate} Hz", fix=fix)
        self.total = resampled_length(self.reader.frames, rate, self.rate)
        self.notes += [f"mono used for {contract.channels} channels"] if self.upmix else []
        self.notes += [f"resampled from {rate} to {self.rate} Hz"] if rate != self.rate else []

    def pieces(self) -> Iterator[Tensor]:
        """See `Input`."""
        x = None
        for x in self.unpadded():
            yield x
        if x is not None and (more := self._padded_to("samples", self.samples) - self.samples):
            yield x.new_zeros(1, self.vae.contract.channels, more)

    def unpadded(self) -> Iterator[Tensor]:
        """See `Input`."""
        blocks: Iterable[Tensor] = self.reader.blocks(16 * self.vae.contract.axes[0].multiple)
        if self.reader.rate != self.rate:
            blocks = resampled(blocks, self.reader.rate, self.rate)
        for block in self._ahead(block.pin_memory() if self._pin else block for block in blocks):
            if block.shape[1]:
                self.samples += block.shape[1]
                wide = block[None].to(self.vae.device, non_blocking=True).to(self.vae.dtype)
                yield wide.expand(-1, self.vae.contract.channels, -1) if self.upmix else wide

    def source(self) -> Source:
        """See `Input`."""
        return Source(modality="audio", samples=self.samples, sample_rate=self.rate, pad=self.pad)

    def _release(self) -> None:
        self.reader.close()
