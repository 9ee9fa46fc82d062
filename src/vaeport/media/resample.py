"""Change the sample rate of audio that arrives in chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vaeport.errors import InputError
from vaeport.media.files import extra

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.resampler import AudioResampler


def resampled_length(samples: int, from_rate: int, to_rate: int) -> int:
    """How many samples `resample` makes of `samples`: `round(samples * to_rate / from_rate)`, in exact arithmetic."""
    return round(Fraction(samples * to_rate, from_rate))


def resample(chunks: Iterable[Tensor], from_rate: int, to_rate: int) -> Iterator[Tensor]:
    """Yield the audio of `chunks` at `to_rate`; float32 `[C, n]` in and out, `resampled_length` samples in all.

    The result does not depend on how the audio is cut into chunks. It is aligned with the input: sample k stands for
    the time k / rate on both sides. A band-limited filter (libswresample) is used; silence is assumed after the end.

    Raises:
        InputError: a rate is not positive, or the chunks are not float32 `[C, n]` of one C.
        BlockedError: PyAV is not installed.
    """
    if from_rate < 1 or to_rate < 1:
        raise InputError("a sample rate is positive", expected=">= 1 Hz", found=f"{from_rate} to {to_rate} Hz")
    channels: list[_Channel] = []
    taken = given = 0
    for chunk in chunks:
        if chunk.dtype != torch.float32 or chunk.ndim != 2 or not 0 < len(chunk) == len(channels or chunk):
            raise InputError(
                "this is not the next chunk of the audio",
                expected=f"float32 of shape [{len(channels) or 'C'}, n]",
                found=f"{chunk.dtype} of shape {list(chunk.shape)}",
            )
        if from_rate == to_rate:
            yield chunk
            continue
        channels = channels or [_Channel(from_rate, to_rate) for _ in chunk]
        taken += chunk.shape[1]
        ready = torch.stack([channel.push(row) for channel, row in zip(channels, chunk, strict=True)])
        given += ready.shape[1]
        if ready.shape[1]:
            yield ready
    missing = resampled_length(taken, from_rate, to_rate) - given
    if missing > 0:
        yield torch.stack([channel.end()[:missing] for channel in channels])


class _Channel:
    """One channel: libav's own multi-channel audio ends at eight."""

    def __init__(self, from_rate: int, to_rate: int) -> None:
        with extra("av", "video"):
            from av.audio.resampler import AudioResampler

        self._from_rate = from_rate
        self._tail = 64 + 64 * from_rate // to_rate  # longer than the filter, so that its last output is complete
        self._resampler: AudioResampler = AudioResampler(format="fltp", layout="mono", rate=to_rate)

    def push(self, samples: Tensor) -> Tensor:
        """`[n]` in, `[m]` out: all that can be known by now."""
        from av.audio.frame import AudioFrame

        if not len(samples):
            return samples.new_empty(0)
        frame = AudioFrame.from_ndarray(samples.contiguous().numpy()[None], format="fltp", layout="mono")
        frame.sample_rate = self._from_rate
        return self._join(self._resampler.resample(frame))

    def end(self) -> Tensor:
        """What is held back, followed by more than the audio has."""
        silence = self.push(torch.zeros(self._tail))
        return torch.cat([silence, self._join(self._resampler.resample(None))])

    @staticmethod
    def _join(frames: list[AudioFrame]) -> Tensor:
        return torch.cat([torch.empty(0), *(torch.from_numpy(frame.to_ndarray()[0]) for frame in frames)])
