"""Files to latents and back: exact sizes and lengths, contracts that are honoured, and nothing adapted in silence."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.media.material import file_size_limit
from tests.narrow import drawn
from vaeport.errors import BlockedError, InputError, LatentFileError, MediaError
from vaeport.media import (
    AudioReader,
    AudioWriter,
    VideoReader,
    VideoWriter,
    read_image,
    read_latents,
    to_model,
    to_pixels,
    write_image,
)
from vaeport.runtime.files import clips, compare_files, decode_file, decoded_pieces, encode_file
from vaeport.vae import VAE

pytestmark = pytest.mark.usefixtures("nothing_is_left")


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


DTYPES = [torch.float32, torch.bfloat16, torch.float64]


class TestOverlapChangesNothing:
    """Files are those of a program that reads, runs and writes in turns, on the CPU, in float32."""

    @pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
    @pytest.mark.parametrize(
        ("dtype", "frames", "height", "width"),
        [
            (torch.float32, 1, 17, 26),
            (torch.float32, 23, 17, 26),
            (torch.bfloat16, 10, 16, 32),
            (torch.float64, 6, 17, 26),
        ],
    )
    def test_decoded_video(
        self,
        dtype: torch.dtype,
        frames: int,
        height: int,
        width: int,
        suffix: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """What the writer is given, since x264's threads make other bytes of it each time; what FFV1 makes of it."""
        vae, latents = drawn("wan").to(dtype), tmp_path / "z.safetensors"
        encode_file(vae, write_clip(tmp_path / "in.mkv", frames, height, width), latents)
        pieces = decoded_pieces(vae, *read_latents(latents), None)
        expected = torch.cat([to_pixels(piece[0].float().cpu().view(3, -1, height, width)) for piece in pieces])
        given: list[Tensor] = []
        write = VideoWriter.write
        monkeypatch.setattr(VideoWriter, "write", lambda self, x: (given.append(x.clone()), write(self, x)))
        decode_file(vae, latents, tmp_path / f"out{suffix}")
        assert torch.equal(torch.cat(given), expected)
        with VideoReader(tmp_path / f"out{suffix}") as video:
            assert video.rate == Fraction(30000, 1001)
            found = torch.stack(list(video))
        assert torch.equal(found, expected) if suffix == ".mkv" else found.shape == expected.shape

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("suffix", [".wav", ".flac"])
    def test_decoded_audio(self, dtype: torch.dtype, suffix: str, tmp_path: Path) -> None:
        vae, latents = drawn("oobleck").to(dtype), tmp_path / "z.safetensors"
        encode_file(vae, write_sound(tmp_path / "in.wav", 4111), latents)
        report = decode_file(vae, latents, tmp_path / f"found{suffix}")
        expected = tmp_path / f"expected{suffix}"
        with AudioWriter(expected, rate=44100, channels=2) as audio:
            for piece in decoded_pieces(vae, *read_latents(latents), None):
                audio.write(piece[0].float().cpu())
        with AudioReader(tmp_path / f"found{suffix}") as found, AudioReader(expected) as wanted:
            assert torch.equal(torch.cat(list(found.blocks(999)), 1), torch.cat(list(wanted.blocks(999)), 1))
        assert (f"{audio.clipped} samples" in str(report.notes)) == bool(audio.clipped)

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("name", ["autoencoder_kl", "wan"])
    def test_decoded_image(self, dtype: torch.dtype, name: str, tmp_path: Path) -> None:
        vae, latents = drawn(name).to(dtype), tmp_path / "z.safetensors"
        write_image(tmp_path / "in.png", pixels(17, 26))
        encode_file(vae, tmp_path / "in.png", latents)
        decode_file(vae, latents, tmp_path / "found.png")
        (image,) = decoded_pieces(vae, *read_latents(latents), None)
        expected = to_pixels(image[0].float().cpu().view(3, 17, 26))
        assert torch.equal(read_image(tmp_path / "found.png"), expected)

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_encoded_video(self, dtype: torch.dtype, tmp_path: Path) -> None:
        vae = drawn("wan").to(dtype)
        encode_file(vae, write_clip(tmp_path / "in.mkv", 21), tmp_path / "z.safetensors")
        x = F.pad(to_model(pixels(21, 17, 26), dtype=dtype)[None], [0, 6, 0, 7, 0, 0], mode="replicate")
        parts = vae.stream_encode(x[:, :, a:b] for a, b in pairwise([0, *range(1, 22, 4)]))
        expected = torch.cat([d.mode() for d in parts], 2)
        assert torch.equal(read_latents(tmp_path / "z.safetensors")[0], expected)

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_encoded_audio(self, dtype: torch.dtype, tmp_path: Path) -> None:
        vae = drawn("oobleck").to(dtype)
        encode_file(vae, write_sound(tmp_path / "in.wav", 4096), tmp_path / "z.safetensors")
        x = (torch.rand(2, 4096, generator=torch.Generator().manual_seed(0)) - 0.5)[None].to(dtype)
        expected = torch.cat([d.mode() for d in vae.stream_encode(x.split(16 * 8, 2))], 2)
        assert torch.equal(read_latents(tmp_path / "z.safetensors")[0], expected)


def test_what_comes_as_one_long_piece_becomes_pixels_in_short_ones() -> None:
    long, picture = torch.randn(1, 3, 40, 5, 7), torch.randn(1, 3, 5, 7)
    parts = list(clips(iter([long, long[:, :, :1]]), 5, 7))
    assert [part.shape[2] for part in parts] == [16, 16, 8, 1]
    assert torch.equal(torch.cat(parts, 2), torch.cat([long, long[:, :, :1]], 2))
    assert torch.equal(next(clips(iter([picture]), 5, 7)), picture[:, :, None])


class TestFailures:
    """Wherever it fails, the error is the one that was raised there, and nothing is left."""

    @pytest.mark.parametrize("name", ["out.mkv", "out.mp4", "out.flac", "out.wav"])
    def test_no_room_for_what_is_written(self, wan: VAE, oobleck: VAE, name: str, tmp_path: Path) -> None:
        video = name.startswith("out.m")
        vae, latents = wan if video else oobleck, tmp_path / "z.safetensors"
        source = write_clip(tmp_path / "in.mkv", 49, 32, 32) if video else write_sound(tmp_path / "in.wav", 100_000)
        encode_file(vae, source, latents)
        (tmp_path / name).write_bytes(b"old")
        with file_size_limit(20_000), pytest.raises(BlockedError, match="larger than the system allows") as caught:
            decode_file(vae, latents, tmp_path / name)
        assert caught.value.where == tmp_path / name
        assert (tmp_path / name).read_bytes() == b"old"

    def test_a_video_that_is_damaged_further_on(self, wan: VAE, tmp_path: Path) -> None:
        source = write_clip(tmp_path / "in.mp4", 41, 64, 96)
        whole = bytearray(source.read_bytes())
        middle = len(whole) // 2
        whole[middle : middle + 4000] = bytes(byte ^ 0xFF for byte in whole[middle : middle + 4000])
        source.write_bytes(whole)
        done: list[int] = []
        with pytest.raises(MediaError, match=r"damaged|cannot be read") as caught:
            encode_file(wan, source, tmp_path / "z.safetensors", progress=lambda n, _: done.append(n))
        assert str(source) in str(caught.value.where)
        assert done, "the beginning was encoded"
        assert not (tmp_path / "z.safetensors").exists()

    def test_a_recording_that_is_not_finite_further_on(self, oobleck: VAE, tmp_path: Path) -> None:
        import soundfile

        sound = torch.zeros(9000, 2)
        sound[8000] = float("nan")
        soundfile.write(tmp_path / "in.wav", sound.numpy(), 44100, "FLOAT")
        with pytest.raises(MediaError, match="NaN or infinite samples"):
            encode_file(oobleck, tmp_path / "in.wav", tmp_path / "z.safetensors")

    @pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
    @pytest.mark.parametrize("at", [1, 9])
    def test_who_stops_it_early(self, wan: VAE, error: type[BaseException], at: int, tmp_path: Path) -> None:
        def stop(done: int, total: int | None) -> None:
            if done >= at:
                raise error("stopped")

        source = write_clip(tmp_path / "in.mkv", 21)
        with pytest.raises(error, match="stopped"):
            encode_file(wan, source, tmp_path / "z.safetensors", progress=stop)
        assert not (tmp_path / "z.safetensors").exists()
        encode_file(wan, source, tmp_path / "z.safetensors")
        with pytest.raises(error, match="stopped"):
            decode_file(wan, tmp_path / "z.safetensors", tmp_path / "out.mkv", progress=stop)
        assert not (tmp_path / "out.mkv").exists()


def test_a_preset_is_for_h264(wan: VAE, oobleck: VAE, tmp_path: Path) -> None:
    encode_file(wan, write_clip(tmp_path / "in.mkv", 9, 32, 48), tmp_path / "z.safetensors")
    notes = {
        preset: decode_file(wan, tmp_path / "z.safetensors", tmp_path / f"{preset}.mp4", preset=preset).notes
        for preset in (None, "superfast", "ultrafast")
    }
    assert notes[None] == notes["superfast"] == ("H.264 (x264, preset superfast, crf 12), 4:2:0",)
    assert notes["ultrafast"] == ("H.264 (x264, preset ultrafast, crf 12), 4:2:0",)
    assert decode_file(wan, tmp_path / "z.safetensors", tmp_path / "out.mkv").notes == ("FFV1, every bit kept",)
    for target, preset in (("a.mp4", "quick"), ("a.mkv", "fast"), ("a.png", "fast"), ("a.wav", "fast")):
        with pytest.raises(InputError, match="no such preset"):
            decode_file(wan, tmp_path / "z.safetensors", tmp_path / target, preset=preset)
        assert not (tmp_path / target).exists()


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
