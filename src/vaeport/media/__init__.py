"""Image, video, audio and latent files in and out. The libraries that read them load when a file is opened."""

from vaeport.media.audio import AudioReader, AudioWriter, resample, resampled_length
from vaeport.media.host import HostCopies
from vaeport.media.image import read_image, write_image
from vaeport.media.latents import LatentHeader, Source, read_latents, write_latents
from vaeport.media.values import to_model, to_pixels
from vaeport.media.video import VideoReader, VideoWriter, preset_of

__all__ = [
    "AudioReader",
    "AudioWriter",
    "HostCopies",
    "LatentHeader",
    "Source",
    "VideoReader",
    "VideoWriter",
    "preset_of",
    "read_image",
    "read_latents",
    "resample",
    "resampled_length",
    "to_model",
    "to_pixels",
    "write_image",
    "write_latents",
]
