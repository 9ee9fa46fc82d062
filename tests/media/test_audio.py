from __future__ import annotations

import os
import random
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.media.material import tone
from vaeport.errors import InputError, MediaError
from vaeport.media import AudioReader, AudioWriter, resample, resampled_length


def write(path: Path, samples: Tensor, rate: int = 44100) -> AudioWriter:
    with AudioWriter(path, rate=rate, channels=len(samples)) as writer:
        for piece in samples.split(1000, 1):
            writer.write(piece)
    return writer


def read(path: Path, size: int = 777) -> Tensor:
    with AudioReader(path) as reader:
        return torch.cat(list(reader.blocks(size)), 1)


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("samples", [1, 999, 12345])
def test_wav_keeps_every_bit_beyond_full_scale_too(tmp_path: Path, channels: int, samples: int) -> None:
    sound = 3 * torch.randn(channels, samples, generator=torch.Generator().manual_seed(0))
    assert write(tmp_path / "a.wav", sound).clipped == 0
    with AudioReader(tmp_path / "a.wav") as reader:
        assert (reader.rate, reader.channels, reader.frames) == (44100, channels, samples)
    assert torch.equal(read(tmp_path / "a.wav"), sound)


def test_flac_keeps_24_bits_and_counts_what_it_clips(tmp_path: Path) -> None:
    sound = 1.2 * torch.rand(2, 5000, generator=torch.Generator().manual_seed(0)) * torch.tensor([[1.0], [-1.0]])
    outside = int((sound.abs() > 1).sum())
    assert outside > 1000
    assert write(tmp_path / "a.flac", sound).clipped == outside
    assert (read(tmp_path / "a.flac") - sound.clamp(-1, 1)).abs().max() <= 2**-22


def test_full_scale_does_not_wrap_round(tmp_path: Path) -> None:
    edges = torch.tensor([[1.0, -1.0, 1 + 2**-23, -1 - 2**-23, 1e30, -1e30, 0.0, 2**-23]])
    assert write(tmp_path / "a.flac", edges).clipped == 4
    assert (read(tmp_path / "a.flac") - edges.clamp(-1, 1)).abs().max() <= 2**-22


@pytest.mark.parametrize(
    ("subtype", "kind", "lowest", "highest"),
    [("PCM_16", np.int16, -(2**15), 2**15 - 1), ("PCM_32", np.int32, -(2**31), 2**31 - 1)],
)
def test_integer_files_fill_minus_one_to_one(
    tmp_path: Path, subtype: str, kind: type, lowest: int, highest: int
) -> None:
    soundfile.write(tmp_path / "a.wav", np.array([lowest, highest, 0, 1], dtype=kind), 8000, subtype=subtype)
    with AudioReader(tmp_path / "a.wav") as reader:
        assert reader.channels == 1
        values = next(reader.blocks(10))
    assert values.tolist() == [[-1.0, np.float32(highest / -lowest), 0.0, np.float32(1 / -lowest)]]


@pytest.mark.parametrize("size", [1, 7, 100, 101, 5000])
def test_blocks_have_the_size_asked_for_and_start_over(tmp_path: Path, size: int) -> None:
    sound = tone(100, 2)
    write(tmp_path / "a.wav", sound)
    with AudioReader(tmp_path / "a.wav") as reader:
        for _ in range(2):
            blocks = list(reader.blocks(size))
            assert [block.shape[1] for block in blocks] == [size] * (100 // size) + [100 % size] * bool(100 % size)
            assert all(block.is_contiguous() and block.dtype == torch.float32 for block in blocks)
            assert torch.equal(torch.cat(blocks, 1), sound)
        with pytest.raises(InputError):
            next(reader.blocks(0))


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "none.wav", np.zeros((0, 2)), 44100)
    with pytest.raises(MediaError, match="empty"):
        AudioReader(tmp_path / "none.wav")
    soundfile.write(tmp_path / "nan.wav", np.array([0.0, 0.1, np.nan, 0.2]), 44100, subtype="FLOAT")
    with pytest.raises(MediaError, match="samples 2 to 3"):
        read(tmp_path / "nan.wav", 2)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "pcm16.wav"])
@pytest.mark.parametrize("part", [0.02, 0.5, 0.9])
def test_a_cut_file_is_refused(tmp_path: Path, name: str, part: float) -> None:
    subtype = {"a.wav": "FLOAT", "a.flac": "PCM_24", "a.ogg": "VORBIS"}.get(name, "PCM_16")
    noise = np.random.default_rng(0).uniform(-1, 1, (20_000, 2))
    soundfile.write(tmp_path / name, noise, 44100, subtype=subtype)
    assert read(tmp_path / name).shape == (2, 20_000)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(MediaError, match=r"cut short|cannot be read"):
        read(tmp_path / name)


@pytest.mark.parametrize(("announced", "said"), [(700, r"cut short|cannot be read"), (0, "how long")])
def test_a_flac_that_announces_another_length_is_refused(tmp_path: Path, announced: int, said: str) -> None:
    soundfile.write(tmp_path / "a.flac", np.full((500, 1), 0.25), 44100)
    raw = bytearray((tmp_path / "a.flac").read_bytes())
    assert raw[22:26] == struct.pack(">I", 500)
    raw[22:26] = struct.pack(">I", announced)
    (tmp_path / "a.flac").write_bytes(raw)
    with pytest.raises(MediaError, match=said):
        read(tmp_path / "a.flac")


def test_a_file_that_shrinks_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", tone(100_000, 1))
    with AudioReader(tmp_path / "a.wav") as reader:
        blocks = reader.blocks(1000)
        next(blocks)
        os.truncate(tmp_path / "a.wav", 200_000)
        with pytest.raises(MediaError, match="cut short"):
            list(blocks)


def test_a_wav_written_to_a_pipe_knows_no_length_and_is_read(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.full((500, 1), 0.25), 44100, subtype="PCM_16")
    raw = bytearray((tmp_path / "a.wav").read_bytes())
    at = raw.index(b"data") + 4
    raw[4:8] = raw[at : at + 4] = struct.pack("<I", 0xFFFFFFFF)
    (tmp_path / "a.wav").write_bytes(raw)
    assert read(tmp_path / "a.wav").shape == (1, 500)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg"])
def test_damage_never_escapes_as_another_error(tmp_path: Path, name: str) -> None:
    file, dice, refused = tmp_path / name, random.Random(11), 0
    soundfile.write(file, np.random.default_rng(0).uniform(-1, 1, (4000, 2)), 44100)
    whole = file.read_bytes()
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[dice.randrange(len(damaged) if dice.random() < 0.5 else 60)] = dice.randrange(256)
        file.write_bytes(damaged)
        try:
            read(file)
        except MediaError:
            refused += 1
    assert refused > 20


def test_what_does_not_fit_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"\.wav, \.flac"):
        AudioWriter(tmp_path / "a.mp3", rate=44100, channels=2)
    for rate, channels in ((44100, 9), (0, 2), (44100, 0), (10_000_000, 2)):
        with pytest.raises(MediaError), AudioWriter(tmp_path / "a.flac", rate=rate, channels=channels):
            pass
    bad = torch.zeros(2, 10)
    bad[1, 4] = float("nan")
    for wrong in (
        torch.zeros(1, 10),
        torch.zeros(10, 2),
        torch.zeros(2, 10, dtype=torch.float64),
        torch.zeros(20),
        bad,
    ):
        with pytest.raises(InputError), AudioWriter(tmp_path / "a.wav", rate=44100, channels=2) as writer:
            writer.write(wrong)
    assert not list(tmp_path.iterdir())


def test_a_wav_beyond_4_gib_is_refused_while_it_can_still_be_said(tmp_path: Path) -> None:
    piece = torch.zeros(1, 1).expand(1024, 1 << 20)  # 4 GiB that take no memory
    with pytest.raises(MediaError, match="flac"), AudioWriter(tmp_path / "a.wav", rate=44100, channels=1024) as writer:
        writer.write(piece)
    assert not list(tmp_path.iterdir())


RATES = st.sampled_from([8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000, 96000, 192000, 12345])


@settings(max_examples=60)
@given(RATES, RATES, st.lists(st.integers(0, 400), max_size=6), st.integers(1, 3))
def test_resampling_gives_the_exact_count_whatever_the_chunks(
    from_rate: int, to_rate: int, pieces: list[int], channels: int
) -> None:
    sound = torch.randn(channels, sum(pieces), generator=torch.Generator().manual_seed(1))
    chunks = list(resample(sound.split(pieces, 1), from_rate, to_rate))
    out = torch.cat([torch.zeros(channels, 0), *chunks], 1)
    assert out.shape[1] == resampled_length(sound.shape[1], from_rate, to_rate)
    assert out.shape[1] == round(sound.shape[1] * to_rate / from_rate)
    whole = list(resample([sound], from_rate, to_rate))
    assert torch.equal(out, torch.cat([torch.zeros(channels, 0), *whole], 1))


@pytest.mark.parametrize(("from_rate", "to_rate"), [(48000, 44100), (44100, 48000), (16000, 44100), (44100, 16000)])
def test_a_resampled_tone_is_the_same_tone_in_the_same_place(from_rate: int, to_rate: int) -> None:
    sound = tone(from_rate, 3, from_rate)
    out = torch.cat(list(resample(sound.split(1024, 1), from_rate, to_rate)), 1)
    assert (out - tone(to_rate, 3, to_rate))[:, 500:-500].abs().max() < 2e-5
    assert (out - tone(to_rate, 3, to_rate)).abs().max() < 0.2


def test_what_the_lower_rate_cannot_hold_is_filtered_out() -> None:
    high = tone(44100, 1, 44100, 15_000.0)
    assert torch.cat(list(resample([high], 44100, 16_000)), 1)[:, 100:-100].abs().max() < 1e-3


def test_the_same_rate_passes_through_and_nonsense_is_refused() -> None:
    sound = tone(100, 2)
    assert next(resample([sound], 44100, 44100)) is sound
    assert list(resample([], 44100, 48000)) == []
    with pytest.raises(InputError):
        next(resample([sound], 0, 48000))
    for second in (tone(100, 1), sound.double(), sound[0], torch.zeros(0, 5)):
        with pytest.raises(InputError):
            list(resample([sound, second], 44100, 48000))
