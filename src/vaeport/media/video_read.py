"""Video files as a stream of frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from vaeport.closing import Closing
from vaeport.errors import InputError, MediaError
from vaeport.media.color import ColorConverter
from vaeport.media.container import declared_length
from vaeport.media.files import StrPath, extra, input_file
from vaeport.media.orientation import Orientation
from vaeport.media.video_notes import VideoNotes

if TYPE_CHECKING:
    from av.buffer import Buffer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

# Fixed lists: libav would otherwise follow playlists to other files and hosts.
_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": "mov,matroska,webm,avi,mpegts,mpeg,ogg,flv,gif"}


class VideoReader(Closing):
    """Frames of a video in the order they are shown, upright, as uint8 `[H, W, 3]`, RGB; one at a time.

    Iterating reads the clip once, from its first frame. Colours: see `ColorConverter`. Damage is refused where libav
    reports it; inside FFV1 slices it does not, and patches them up.

    Attributes:
        width, height: of the upright frame, in pixels.
        rate: frames per second; the average where the rate varies.
        frames: the container's claim, None if it makes none. Only reading tells.
        notes: what the frames do not show: more than 8 bits, frames of unequal length. Complete when all are read.

    Raises:
        MediaError: not a video, cut short, damaged, without a frame, partly transparent, or graded for HDR screens; at
            once or while reading.
        BlockedError: PyAV is not installed, or the file may not be read.
    """

    def __init__(self, path: StrPath) -> None:
        self.path = input_file(path)
        with extra("av", "video"):
            import av

        self._libav_error: type[Exception] = av.FFmpegError
        self._color = ColorConverter()
        self._orientation = Orientation()
        self._size: tuple[int, int] | None = None
        self._notes = VideoNotes(self.path)
        self._refuse_cut_short()
        with self._reporting():
            self._container = av.open(f"file:{self.path.absolute()}", options=_OPTIONS, metadata_errors="replace")
        try:
            with self._reporting():
                self._stream = self._video_stream()
            self._upright = self._decode()
            self._first = next(self._upright, None)
            if self._first is None:
                raise MediaError("the video holds no frame", where=self.path, expected="at least 1", found="0 frames")
            rate = self._stream.average_rate or self._stream.guessed_rate
            if not rate:
                raise MediaError("the video states no frame rate", where=self.path, fix="re-encode it with one")
        except BaseException:
            self.close()
            raise
        self.height, self.width = self._first.shape[:2]
        self.rate: Fraction = rate
        self.frames: int | None = self._stream.frames or None

    def close(self) -> None:
        """Let go of the file."""
        self._container.close()

    def __iter__(self) -> Iterator[Tensor]:
        if self._first is not None:
            first, self._first = self._first, None
            yield first
        yield from self._upright

    def chunks(self, first: int, size: int, *, pin: bool = False) -> Iterator[Tensor]:
        """Yield uint8 `[n, H, W, 3]`: `first` frames, then `size` at a time; the last chunk may be shorter.

        pin     into pinned memory, from which copies to a GPU need not be waited for

        Raises:
            InputError: `first` or `size` is less than 1.
        """
        if first < 1 or size < 1:
            raise InputError("a chunk holds at least one frame", expected=">= 1", found=f"first={first}, size={size}")

        def empty(n: int) -> Tensor:
            return torch.empty(n, self.height, self.width, 3, dtype=torch.uint8, pin_memory=pin)

        chunk, filled = empty(first), 0
        for frame in self:
            if filled == len(chunk):
                yield chunk
                chunk, filled = empty(size), 0
            chunk.numpy()[filled] = frame.numpy()  # torch would wake all its threads for each of these small copies
            filled += 1
        if filled:
            yield chunk[:filled]

    def _video_stream(self) -> VideoStream:
        from av.codec.context import ThreadType
        from av.stream import Disposition

        stream = self._container.streams.best("video")
        if stream is None or stream.disposition & Disposition.attached_pic:  # the cover of a recording
            raise MediaError("the file holds no video", where=self.path, expected="a video stream", found="none")
        video = cast("VideoStream", stream)
        video.thread_type = ThreadType.AUTO
        return video

    def _refuse_cut_short(self) -> None:
        declared = declared_length(self.path)
        found = self.path.stat().st_size
        if declared is not None and found < declared:
            fix = "fetch or copy the file again"
            raise MediaError(
                "the video is cut short",
                where=self.path,
                expected=f"at least {declared} bytes",
                found=f"{found} bytes",
                fix=fix,
            )

    def _decode(self) -> Iterator[Tensor]:
        count = 0
        with self._reporting():
            for packet in self._container.demux(self._stream):
                frames = [] if packet.is_corrupt else packet.decode()
                if packet.is_corrupt or any(frame.is_corrupt for frame in frames):
                    fix = "fetch the file again, or re-encode it without the damaged part"
                    raise MediaError("the video is damaged", where=f"{self.path}, about frame {count}", fix=fix)
                for frame in frames:
                    self._notes.see(frame)
                    yield self._pixels(frame)
                    count += 1

    @property
    def notes(self) -> list[str]:
        """See the class."""
        return self._notes.lines(self.rate)

    def _pixels(self, frame: VideoFrame) -> Tensor:
        size = (frame.width, frame.height)
        if self._size is None:
            self._size = size
            side_data = cast("Mapping[str, Buffer]", frame.side_data)
            if "DISPLAYMATRIX" in side_data:
                self._orientation = Orientation.from_display_matrix(bytes(side_data["DISPLAYMATRIX"]))
        if size != self._size:
            raise MediaError(
                "the picture size changes within the video", where=self.path, expected=self._size, found=size
            )
        pixels = self._color.to_rgb(frame)
        if pixels.shape[-1] == 4 and pixels[..., 3].min() < 255:
            fix = "flatten it onto a background of your choice first"
            raise MediaError("the video is partly transparent", where=self.path, expected="opaque frames", fix=fix)
        return self._orientation.apply(torch.from_numpy(pixels[..., :3]))

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except self._libav_error as error:
            raise MediaError(
                "the video cannot be read",
                where=self.path,
                expected="a whole video file: mp4, mov, mkv, webm, avi, ts, flv, gif",
                found=getattr(error, "strerror", None) or error,
            ) from error
