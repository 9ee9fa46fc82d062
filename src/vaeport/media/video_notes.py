"""What the frames of a video do not show by themselves, gathered while they are read."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from vaeport.errors import MediaError

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

_HDR = {16: "PQ (SMPTE ST 2084)", 18: "HLG (ARIB STD-B67)"}
_UNEQUAL = Fraction(5, 4)  # containers with times in whole milliseconds show 24 frames a second as 41 and 42


class VideoNotes:
    """More than 8 bits a channel, and frames of unequal length; a clip that is graded for HDR screens is refused."""

    def __init__(self, path: Path) -> None:
        self._path, self._bits = path, 8
        self._shown: Fraction | None = None
        self._shortest = self._longest = Fraction(0)

    def see(self, frame: VideoFrame) -> None:
        """Takes the next frame; MediaError if it is graded for HDR screens."""
        if frame.color_trc in _HDR:
            raise MediaError(
                "the video is graded for HDR screens",
                where=self._path,
                expected="SDR: BT.709, BT.601, sRGB or no tag",
                found=_HDR[frame.color_trc],
                fix="tone-map it to SDR first; read as it is, it would look flat and grey",
            )
        self._bits = max(self._bits, *(component.bits for component in frame.format.components))
        if frame.pts is None or frame.time_base is None:
            return
        shown = frame.pts * frame.time_base
        if self._shown is not None:
            lasts = shown - self._shown
            self._shortest = min(lasts, self._shortest or lasts)
            self._longest = max(lasts, self._longest)
        self._shown = shown

    def lines(self, rate: Fraction) -> list[str]:
        """The notes on the frames seen so far, of a clip of this average rate."""
        notes = [f"{self._bits} bits a channel, read as 8"] if self._bits > 8 else []
        if self._longest > self._shortest * _UNEQUAL:
            shortest, longest = (f"{float(1000 * lasts):.4g}" for lasts in (self._shortest, self._longest))
            notes.append(f"frames last {shortest} to {longest} ms; all are kept, as if at {float(rate):.4g} a second")
        return notes
