"""RGB to and from the pixel formats of video, in one place so that both directions agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame

_BT709, _UNTAGGED, _BT601 = 1, 2, 5
_LIMITED, _FULL = 1, 2
# libswscale: bilinear, chroma interpolated at full resolution, accurate rounding. The default is off by several levels.
_EXACT = 2 | 0x2000 | 0x4000 | 0x40000


class ColorConverter:
    """RGB bytes (full range) to and from libav frames.

    Frames are written as BT.709, limited range, and tagged so. Tags are honoured on reading; untagged frames are taken
    as BT.709 from 1280 columns or 577 lines on and as BT.601 below, as players do. Nothing is tone-mapped.
    """

    def __init__(self) -> None:
        from av.video.reformatter import VideoReformatter

        self._reformatter = VideoReformatter()

    def to_rgb(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """uint8 `[H, W, 3]`, or `[H, W, 4]` with alpha last if the pixel format has one."""
        transparent = any(component.is_alpha for component in frame.format.components)
        source: dict[str, Any] = {}
        if frame.colorspace == _UNTAGGED and not frame.format.is_rgb:
            source["src_colorspace"] = _BT709 if frame.width >= 1280 or frame.height > 576 else _BT601
        rgb = self._reformatter.reformat(
            frame,
            format="rgba" if transparent else "rgb24",
            interpolation=_EXACT,
            **source,
        )
        return cast("NDArray[np.uint8]", rgb.to_ndarray())

    def from_rgb(self, pixels: NDArray[np.uint8], pixel_format: str) -> VideoFrame:
        """A frame of `pixel_format` from uint8 `[H, W, 3]`; an RGB format keeps every bit."""
        from av.video.frame import VideoFrame

        frame = VideoFrame.from_ndarray(pixels, format="rgb24")
        if not pixel_format.startswith("yuv"):
            return self._reformatter.reformat(frame, format=pixel_format)
        return self._reformatter.reformat(
            frame,
            format=pixel_format,
            src_color_range=_FULL,
            dst_color_range=_LIMITED,
            dst_colorspace=_BT709,
            interpolation=_EXACT,
        )

    @staticmethod
    def tag(codec: VideoCodecContext) -> None:
        """Write into the stream that its YUV is what `from_rgb` makes."""
        codec.color_range = _LIMITED
        codec.colorspace = codec.color_primaries = codec.color_trc = _BT709
