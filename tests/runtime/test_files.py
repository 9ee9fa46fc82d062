"""Files to latents and back: exact sizes and lengths, contracts that are honoured, and nothing adapted in silence."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.narrow import drawn
from vaeport.errors import LatentFileError, MediaError
from vaeport.media import (
    AudioReader,
    AudioWriter,
    VideoReader,
    VideoWriter,
    read_image,
    read_latents,
    to_model,
    write_image,
)
from vaeport.runtime.files import compare_files, decode_file, decoded_pieces, encode_file
from vaeport.vae import VAE


@pytest.fixture(scope="module")
def kl() -> VAE:
    return drawn("autoencoder_kl")


@pytest.fixture(scope="module")
def wan() -> VAE:
    return drawn("wan")


@pytest.fixture(scope="module")
def oobleck() -> VAE:
    return drawn("oobleck")


def pixels(*shape: int) -> Tensor:
    return torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def write_clip(path: Path, frames: int, height: int = 17, width: int = 26) -> Path:
    with VideoWriter(path, rate=Fraction(30000, 1001), width=width, height=height) as video:
        video.write(pixels(frames, height, width))
    return path


def write_sound(path: Path, samples: int, rate: int = 44100, channels: int = 2) -> Path:
    with AudioWriter(path, rate=rate, channels=channels) as audio:
        audio.write(torch.rand(channels, samples, generator=torch.Generator().manual_seed(0)) - 0.5)
    return path


@pytest.mark.parametrize(("height", "width"), [(16, 24), (21, 30), (4, 4), (1, 7)])
def test_images_keep_their_size(kl: VAE, tmp_path: Path, height: int, width: int) -> None:
    source = tmp_path / "in.png"
    write_image(source, pixels(height, width))
    report = encode_file(kl, source, tmp_path / "z.safetensors")
    assert bool(report.notes) == bool(height % 4 or width % 4)
    decode_file(kl, tmp_path / "z.safetensors", tmp_path / "out.png")
    assert read_image(tmp_path / "out.png").shape == (height, width, 3)


def test_an_image_file_gives_what_the_tensor_gives(kl: VAE, tmp_path: Path) -> None:
    write_image(tmp_path / "in.png", pixels(16, 24))
    encode_file(kl, tmp_path / "in.png", tmp_path / "z.safetensors", normalize=True)
    latents, header = read_latents(tmp_path / "z.safetensors")
    expected = kl.normalize(kl.encode(to_model(pixels(16, 24))[None]).latent_dist.mode())
    assert torch.equal(latents, expected)
    assert header.normalized
    assert header.weights_hash == kl.weights_hash("encoder")


@pytest.mark.parametrize("frames", [1, 2, 5, 8])
def test_videos_keep_size_length_and_rate(wan: VAE, tmp_path: Path, frames: int) -> None:
    source = write_clip(tmp_path / "in.mkv", frames)
    report = encode_file(wan, source, tmp_path / "z.safetensors")
    assert report.shape == (1, 4, 1 + -(-(frames - 1) // 4), 3, 4)
    decode_file(wan, tmp_path / "z.safetensors", tmp_path / "out.mkv")
    with VideoReader(tmp_path / "out.mkv") as video:
        assert (sum(1 for _ in video), video.height, video.width, video.rate) == (frames, 17, 26, Fraction(30000, 1001))


def test_a_streamed_file_gives_what_the_whole_tensor_gives(wan: VAE, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mkv", 9, 16, 24)
    encode_file(wan, source, tmp_path / "z.safetensors")
    latents, _ = read_latents(tmp_path / "z.safetensors")
    whole = wan.encode(to_model(pixels(9, 16, 24))[None]).latent_dist.mode()
    assert (latents - whole).abs().max() <= 1e-5 * whole.abs().max()


def test_a_picture_is_a_clip_of_one_frame(wan: VAE, tmp_path: Path) -> None:
    write_image(tmp_path / "in.png", pixels(16, 24))
    assert encode_file(wan, tmp_path / "in.png", tmp_path / "z.safetensors").shape == (1, 4, 1, 2, 3)
    decode_file(wan, tmp_path / "z.safetensors", tmp_path / "out.png")
    assert read_image(tmp_path / "out.png").shape == (16, 24, 3)


def test_both_conventions_of_latents_write_and_read_the_same_files(wan: VAE, tmp_path: Path) -> None:
    """A VAE that gives normalised latents says so in the file; one that takes raw ones reads it, and the reverse."""
    inside = copy(wan)
    inside.config = replace(wan.config, latents="normalized")
    write_clip(tmp_path / "in.mp4", 5, 16, 16)
    files = {}
    for name, vae in (("raw", wan), ("inside", inside)):
        encode_file(vae, tmp_path / "in.mp4", tmp_path / f"{name}.safetensors")
        files[name] = read_latents(tmp_path / f"{name}.safetensors")
    assert [header.normalized for _, header in files.values()] == [False, True]
    assert torch.allclose(wan.normalize(files["raw"][0]), files["inside"][0])
    assert not torch.allclose(files["raw"][0], files["inside"][0])
    z = files["raw"][0]
    expected = wan.decode(z).sample
    for vae in (wan, inside):
        for latents, header in files.values():
            found = torch.cat(list(decoded_pieces(vae, latents, header, None)), 2)
            assert torch.allclose(found, expected[..., :16, :16], atol=1e-5)


@pytest.mark.parametrize("samples", [1, 8, 4111])
def test_audio_keeps_its_length(oobleck: VAE, tmp_path: Path, samples: int) -> None:
    source = write_sound(tmp_path / "in.wav", samples)
    encode_file(oobleck, source, tmp_path / "z.safetensors")
    decode_file(oobleck, tmp_path / "z.safetensors", tmp_path / "out.wav")
    with AudioReader(tmp_path / "out.wav") as audio:
        assert (audio.frames, audio.channels, audio.rate) == (samples, 2, 44100)


def test_check_compares_every_position(oobleck: VAE, wan: VAE, kl: VAE, tmp_path: Path) -> None:
    write_image(tmp_path / "in.png", pixels(18, 24))
    cases = (
        (oobleck, write_sound(tmp_path / "in.wav", 4111), 4111),
        (wan, write_clip(tmp_path / "in.mkv", 6), 6),
        (kl, tmp_path / "in.png", 1),
    )
    for vae, source, positions in cases:
        encode_file(vae, source, tmp_path / "z.safetensors")
        found = compare_files(vae, source, tmp_path / "z.safetensors")
        assert found["complete"]
        assert found["positions"] == found["expected"] == positions
        assert isinstance(found["signal_to_noise_db"], float)


def test_a_sample_has_a_seed(kl: VAE, tmp_path: Path) -> None:
    write_image(tmp_path / "in.png", pixels(16, 24))
    found = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        encode_file(kl, tmp_path / "in.png", tmp_path / f"{name}.safetensors", seed=seed)
        found.append(read_latents(tmp_path / f"{name}.safetensors")[0])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


class TestRefusals:
    """What is never adapted in silence."""

    def test_another_sample_rate(self, oobleck: VAE, tmp_path: Path) -> None:
        source = write_sound(tmp_path / "in.wav", 4800, rate=48000)
        with pytest.raises(MediaError, match=r"another sample rate(.|\n)*44100 Hz(.|\n)*48000 Hz(.|\n)*--resample"):
            encode_file(oobleck, source, tmp_path / "z.safetensors")
        report = encode_file(oobleck, source, tmp_path / "z.safetensors", resample=True)
        assert "resampled from 48000 to 44100 Hz" in report.notes
        decode_file(oobleck, tmp_path / "z.safetensors", tmp_path / "out.wav")
        with AudioReader(tmp_path / "out.wav") as audio:
            assert audio.frames == 4410

    def test_mono_for_stereo(self, oobleck: VAE, tmp_path: Path) -> None:
        source = write_sound(tmp_path / "in.wav", 800, channels=1)
        with pytest.raises(MediaError, match=r"another number of channels(.|\n)*--upmix"):
            encode_file(oobleck, source, tmp_path / "z.safetensors")
        assert encode_file(oobleck, source, tmp_path / "z.safetensors", upmix=True).shape == (1, 8, 100)

    def test_a_file_of_another_kind(self, kl: VAE, oobleck: VAE, tmp_path: Path) -> None:
        with pytest.raises(MediaError, match="AutoencoderKL takes image files"):
            encode_file(kl, write_clip(tmp_path / "in.mkv", 1), tmp_path / "z.safetensors")
        with pytest.raises(MediaError, match="Oobleck takes audio files"):
            encode_file(oobleck, tmp_path / "in.mkv", tmp_path / "z.safetensors")
        assert not (tmp_path / "z.safetensors").exists()

    def test_latents_of_another_model(self, kl: VAE, wan: VAE, tmp_path: Path) -> None:
        write_image(tmp_path / "in.png", pixels(16, 24))
        encode_file(kl, tmp_path / "in.png", tmp_path / "z.safetensors")
        with pytest.raises(LatentFileError, match="another model or another contract"):
            decode_file(wan, tmp_path / "z.safetensors", tmp_path / "out.mkv")
        assert not (tmp_path / "out.mkv").exists()

    def test_a_clip_does_not_fit_into_an_image(self, wan: VAE, tmp_path: Path) -> None:
        encode_file(wan, write_clip(tmp_path / "in.mkv", 5), tmp_path / "z.safetensors")
        with pytest.raises(MediaError, match="a clip does not fit into an image"):
            decode_file(wan, tmp_path / "z.safetensors", tmp_path / "out.png")
