"""Video files: frames in, frames out, never a whole clip in memory."""

from vaeport.media.video_read import VideoReader
from vaeport.media.video_write import VideoWriter, preset_of

__all__ = ["VideoReader", "VideoWriter", "preset_of"]
