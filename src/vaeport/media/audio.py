"""Audio files: blocks of samples in, blocks of samples out, and another sample rate when asked for."""

from vaeport.media.audio_read import AudioReader
from vaeport.media.audio_write import AudioWriter
from vaeport.media.resample import resample, resampled_length

__all__ = ["AudioReader", "AudioWriter", "resample", "resampled_length"]
