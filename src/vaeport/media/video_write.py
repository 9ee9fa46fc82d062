"""Frames to a video file, as a stream."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from vaeport.errors import InputError, MediaError
from vaeport.media.atomic import AtomicWriter
from vaeport.media.color import ColorConverter
from vaeport.media.files import StrPath, extra, writing

if TYPE_CHECKING:
    from av.video.stream import VideoStream

CRF, PRESET = "12", "superfast"
PRESETS = ("ultrafast", PRESET, "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
# Container, codec, its options.
_FORMATS = {
    ".mp4": ("mp4", "libx264", {"crf": CRF}),
    ".mkv": ("matroska", "ffv1", {"level": "3", "slicecrc": "1"}),
}


def preset_of(path: StrPath, preset: str | None) -> str | None:
    """The preset of x264 for a file: the one that is given, "superfast" for other `.mp4`, None for other files.

    Raises:
        InputError: x264 has no such preset, or does not write this file.
    """
    written = Path(path).suffix.lower() == ".mp4"
    if preset is not None and not (written and preset in PRESETS):
        expected = f"one of {', '.join(PRESETS)}" if written else "no preset, or a file that ends in .mp4"
        raise InputError("this file has no such preset", where=path, expected=expected, found=preset)
    return preset or (PRESET if written else None)


class VideoWriter(AtomicWriter):
    """Write frames to `.mp4` (H.264, visually lossless) or `.mkv` (FFV1, every bit kept), in a `with` block.

    H.264 halves the resolution of colour (4:2:0) where both sides are even; an odd side needs 4:4:4 to keep its size.
    The file holds exactly the frames written, and appears only when the block ends cleanly. `preset` trades the time
    that H.264 takes for the size of the file; see `preset_of`. Threads: half as many as processors, each on its frame.

    Attributes:
        frames: how many have been written.
        encoding: codec and settings, in words.

    Raises:
        InputError: a size, rate or preset that no such video has; frames that do not fit.
        MediaError: another extension, a missing folder, a size that the codec cannot hold, or no frame at the end.
        BlockedError: PyAV is not installed, the disk is full, or the file may not be written.
    """

    def __init__(
        self, path: StrPath, *, rate: Fraction | int, width: int, height: int, preset: str | None = None
    ) -> None:
        super().__init__(path)
        if self.path.suffix.lower() not in _FORMATS:
            raise MediaError("videos are not written in this format", where=self.path, expected=", ".join(_FORMATS))
        self.rate = Fraction(rate).limit_denominator(1_000_000)
        if not (0 < self.rate <= 1000 and width > 0 and height > 0):
            raise InputError(
                "no video has this shape",
                where=self.path,
                expected="0 < rate <= 1000, width and height > 0",
                found=f"rate={rate}, width={width}, height={height}",
            )
        self.width, self.height, self.frames = width, height, 0
        self.preset = preset_of(self.path, preset)
        self._pixel_format = "bgr0" if self.preset is None else "yuv444p" if width % 2 or height % 2 else "yuv420p"
        sampling = "4:2:0" if self._pixel_format == "yuv420p" else "4:4:4"
        lossy = f"H.264 (x264, preset {self.preset}, crf {CRF}), {sampling}"
        self.encoding = "FFV1, every bit kept" if self.preset is None else lossy

    def write(self, frames: Tensor) -> None:
        """Append uint8 `[n, H, W, 3]`, RGB; n may be 0."""
        if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[1:] != (self.height, self.width, 3):
            raise InputError(
                "these frames do not fit the video",
                where=self.path,
                expected=f"uint8 of shape [n, {self.height}, {self.width}, 3]",
                found=f"{frames.dtype} of shape {list(frames.shape)}",
            )
        for pixels in frames.cpu().contiguous().numpy():
            with writing(self.path, MediaError, self._libav_error):
                frame = self._color.from_rgb(pixels, self._pixel_format)
                frame.pts, frame.time_base = self.frames, 1 / self.rate
                self._container.mux(self._stream.encode(frame))
            self.frames += 1

    def _open(self, partial: Path) -> None:
        with extra("av", "video"):
            import av

        self._libav_error: type[Exception] = av.FFmpegError
        self._color = ColorConverter()
        container, codec, options = _FORMATS[self.path.suffix.lower()]
        if self.preset is not None:
            options = {**options, "preset": self.preset}
        with writing(self.path, MediaError, self._libav_error):
            self._container = av.open(f"file:{partial}", "w", format=container)
            stream = self._container.add_stream(codec, rate=self.rate, options=options)
            self._stream = cast("VideoStream", stream)
            self._stream.width, self._stream.height, self._stream.pix_fmt = self.width, self.height, self._pixel_format
            if self.preset is not None:
                self._color.tag(self._stream.codec_context)
                self._stream.thread_type = "AUTO"  # x264 cuts a frame into slices otherwise, which is slower and larger
                # the other processors are left to what makes the frames: all threads of x264 slow a GPU's launches down
                self._stream.codec_context.thread_count = max(2, (os.cpu_count() or 2) // 2)

    def _finish(self) -> None:
        if not self.frames:
            raise MediaError("no frame was written, so there is no video", where=self.path)
        with writing(self.path, MediaError, self._libav_error):
            self._container.mux(self._stream.encode(None))
            self._container.close()

    def _release(self) -> None:
        self._container.close()
