"""Blocks of samples to an audio file, as a stream."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from vaeport.errors import InputError, MediaError
from vaeport.media.atomic import AtomicWriter
from vaeport.media.files import StrPath, extra, writing

# Container, encoding.
_FORMATS = {".wav": ("WAV", "FLOAT"), ".flac": ("FLAC", "PCM_24")}
_WAV_LIMIT = (1 << 32) - 4096  # the format counts its bytes in 32 bits


class AudioWriter(AtomicWriter):
    """Write samples to `.wav` (32-bit float, nothing is clipped) or `.flac` (24 bits), in a `with` block.

    Attributes:
        frames: samples per channel written so far.
        clipped: how many values outside [-1, 1] were clipped to it; always 0 for `.wav`.

    Raises:
        InputError: samples that do not fit or are not finite.
        MediaError: another extension, a missing folder, a rate or channel count that the format cannot hold, a `.wav`
            beyond 4 GiB, or no sample at the end.
        BlockedError: soundfile is not installed, the disk is full, or the file may not be written.
    """

    def __init__(self, path: StrPath, *, rate: int, channels: int) -> None:
        super().__init__(path)
        if self.path.suffix.lower() not in _FORMATS:
            raise MediaError("audio is not written in this format", where=self.path, expected=", ".join(_FORMATS))
        self.rate, self.channels, self.frames, self.clipped = rate, channels, 0, 0

    def write(self, samples: Tensor) -> None:
        """Append float32 `[C, n]`; n may be 0."""
        if samples.dtype != torch.float32 or samples.ndim != 2 or len(samples) != self.channels:
            raise InputError(
                "these samples do not fit the recording",
                where=self.path,
                expected=f"float32 of shape [{self.channels}, n]",
                found=f"{samples.dtype} of shape {list(samples.shape)}",
            )
        self.frames += samples.shape[1]
        if self._format == "WAV" and self.frames * self.channels * 4 > _WAV_LIMIT:
            raise MediaError("a wav file holds at most 4 GiB", where=self.path, fix="write .flac")
        if not torch.isfinite(samples).all():
            fix = "the model overflowed or its weights are damaged: try float32, and check the checkpoint"
            raise InputError("the samples are not finite", where=self.path, found="NaN or infinity", fix=fix)
        if self._format == "FLAC":  # clipped by soundfile, which does not count
            self.clipped += int((samples.abs() > 1).sum())
        try:
            self._file.write(samples.cpu().T.contiguous().numpy())
        except self._failure as error:
            self._refused(error)

    def _open(self, partial: Path) -> None:
        with extra("soundfile", "audio"):
            import soundfile

        self._failure: type[Exception] = soundfile.SoundFileError
        self._partial = partial
        self._format, subtype = _FORMATS[self.path.suffix.lower()]
        try:
            self._file = soundfile.SoundFile(partial, "w", self.rate, self.channels, subtype, format=self._format)
        except (self._failure, ValueError, OverflowError) as error:
            what = f"{self.path.suffix} cannot hold this audio"
            found = f"{self.rate} Hz, {self.channels} channels: {error}"
            raise MediaError(what, where=self.path, found=found) from error

    def _finish(self) -> None:
        if not self.frames:
            raise MediaError("no sample was written, so there is no recording", where=self.path)
        try:
            self._file.close()
        except self._failure as error:
            self._refused(error)

    def _refused(self, error: Exception) -> None:
        # libsndfile forgets why it failed; a plain write to the same file asks the system again.
        with writing(self.path, MediaError), self._partial.open("ab") as probe:
            probe.write(bytes(1 << 16))
        raise MediaError("the file cannot be written", where=self.path, found=error) from error

    def _release(self) -> None:
        self._file.close()
