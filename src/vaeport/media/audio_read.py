"""Audio files as a stream of blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from vaeport.closing import Closing
from vaeport.errors import InputError, MediaError
from vaeport.media.files import StrPath, extra, input_file


class AudioReader(Closing):
    """Samples of a recording, as float32 blocks `[C, n]`; nothing is resampled, mixed or clipped.

    Integer files fill [-1, 1]; a floating-point file may go beyond. `.wav`, `.flac`, `.ogg`, `.mp3`, `.aiff` and
    whatever else libsndfile reads.

    Attributes:
        rate: samples per second.
        channels: 1 for mono, 2 for stereo, ...
        frames: samples per channel.

    Raises:
        MediaError: not audio, cut short, damaged, without a sample, or not finite; at once or while reading.
        BlockedError: soundfile is not installed, or the file may not be read.
    """

    def __init__(self, path: StrPath) -> None:
        self.path = input_file(path)
        with extra("soundfile", "audio"):
            import soundfile

        self._failures = (soundfile.SoundFileError, TypeError, ValueError)  # the latter two: headerless formats
        with self._reporting():
            self._file = soundfile.SoundFile(self.path)
        try:
            self.rate: int = self._file.samplerate
            self.channels: int = self._file.channels
            self.frames: int = self._file.frames
            self._refuse_cut_short()
            if not self.frames:
                raise MediaError("the recording is empty", where=self.path, expected="at least 1 sample", found="0")
            if self.frames > 1 << 62:  # what libsndfile makes of a FLAC that was written to a pipe
                raise MediaError("the recording does not say how long it is", where=self.path, fix="re-encode it")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def blocks(self, size: int) -> Iterator[Tensor]:
        """Yield float32 `[C, n]` from the start, `size` samples at a time; the last block may be shorter.

        Raises:
            InputError: `size` is less than 1.
        """
        if size < 1:
            raise InputError("a block holds at least one sample", expected=">= 1", found=size)
        with self._reporting():
            self._file.seek(0)
        read = 0
        while True:
            with self._reporting():
                block = torch.from_numpy(self._file.read(size, dtype="float32", always_2d=True)).T.contiguous()
            if not block.shape[1]:
                break
            if not torch.isfinite(block).all():
                where = f"{self.path}, within samples {read} to {read + block.shape[1] - 1}"
                raise MediaError("the recording holds NaN or infinite samples", where=where)
            read += block.shape[1]
            yield block
        if read != self.frames:
            raise self._cut_short(f"{self.frames} samples", f"{read} samples")

    def _refuse_cut_short(self) -> None:
        """libsndfile reads what is there and only its log tells that more was announced."""
        log: str = self._file.extra_info
        announced = re.search(r"^data : (\d+) \(should be (\d+)\)", log, re.MULTILINE)
        if announced and int(announced[2]) < int(announced[1]) < 0x7FFF_0000:  # beyond: a stream of unknown length
            raise self._cut_short(f"{announced[1]} bytes of samples", f"{announced[2]}")
        if "lacks an end-of-stream bit" in log or "Junk after the last page" in log:
            raise self._cut_short("whole pages up to an end-of-stream mark", "an Ogg stream that breaks off")

    def _cut_short(self, expected: str, found: str) -> MediaError:
        fix = "fetch or copy the file again"
        return MediaError("the recording is cut short", where=self.path, expected=expected, found=found, fix=fix)

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except self._failures as error:
            expected = "a whole audio file: wav, flac, ogg, mp3, aiff"
            raise MediaError("the recording cannot be read", where=self.path, expected=expected, found=error) from error
