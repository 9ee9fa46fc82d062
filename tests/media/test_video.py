from __future__ import annotations

import random
import re
from collections import Counter
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.stream import Disposition
from torch import Tensor

from tests.media.material import moving_picture
from vaeport.errors import InputError, MediaError
from vaeport.media import VideoReader, VideoWriter


def write(path: Path, frames: Tensor, rate: Fraction | int = 24) -> Path:
    with VideoWriter(path, rate=rate, width=frames.shape[2], height=frames.shape[1]) as writer:
        writer.write(frames)
    return path


def read(path: Path) -> Tensor:
    with VideoReader(path) as reader:
        return torch.stack(list(reader))


def mean_error(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return float((a.int() - b.int()).abs().float().mean())


@pytest.mark.parametrize("frames", [1, 2, 7])
@pytest.mark.parametrize("size", [(48, 64), (47, 63), (1, 1), (2, 3), (33, 2)])
def test_mkv_keeps_every_bit(tmp_path: Path, frames: int, size: tuple[int, int]) -> None:
    noise = torch.randint(0, 256, (frames, *size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(read(write(tmp_path / "a.mkv", noise)), noise)


@pytest.mark.parametrize("frames", [1, 2, 3, 50])
@pytest.mark.parametrize("size", [(48, 64), (47, 64), (48, 63), (47, 63)])
def test_mp4_keeps_count_size_and_look(tmp_path: Path, frames: int, size: tuple[int, int]) -> None:
    clip = moving_picture(frames, *size)
    with VideoReader(write(tmp_path / "a.mp4", clip)) as reader:
        assert (reader.frames, reader.height, reader.width) == (frames, *size)
        back = torch.stack(list(reader))
    assert len(back) == frames
    for shown, written in zip(back, clip, strict=True):  # in display order: a neighbour is 8 levels off
        assert mean_error(shown, written) < 3


@pytest.mark.parametrize("size", [(2, 2), (16, 1), (1, 1)])
def test_the_smallest_mp4(tmp_path: Path, size: tuple[int, int]) -> None:
    assert read(write(tmp_path / "a.mp4", torch.full((2, *size, 3), 200, dtype=torch.uint8))).shape == (2, *size, 3)


def test_presets(tmp_path: Path) -> None:
    clip, sizes = moving_picture(40, 96, 128), {}
    for preset in (None, "medium", "ultrafast"):
        with VideoWriter(tmp_path / "a.mp4", rate=24, width=128, height=96, preset=preset) as writer:
            writer.write(clip)
        sizes[preset] = (tmp_path / "a.mp4").stat().st_size
        assert f"preset {preset or 'superfast'}, crf 12" in writer.encoding
        assert mean_error(read(tmp_path / "a.mp4"), clip) < 3
    assert sizes["ultrafast"] > 1.1 * sizes[None]
    with pytest.raises(InputError, match=r"no such preset(.|\n)*ultrafast(.|\n)*quick"):
        VideoWriter(tmp_path / "a.mp4", rate=24, width=128, height=96, preset="quick")
    with pytest.raises(InputError, match=r"no preset, or a file that ends in \.mp4"):
        VideoWriter(tmp_path / "a.mkv", rate=24, width=128, height=96, preset="fast")


@pytest.mark.parametrize("even", [True, False])
def test_colours_survive_mp4(tmp_path: Path, even: bool) -> None:
    """A chart of flat patches: a wrong matrix moves them by up to 20 levels, a wrong range by 16."""
    levels = torch.tensor([0, 64, 128, 192, 255], dtype=torch.uint8)
    chart = torch.cartesian_prod(levels, levels, levels).view(5, 25, 3)
    clip = chart.repeat_interleave(16, 0).repeat_interleave(16, 1)[None].repeat(3, 1, 1, 1)
    back = read(write(tmp_path / "a.mp4", clip if even else clip[:, 1:, 1:]))
    centres = back[:, 8::16, 8::16][:, :5, :25]
    assert (centres.int() - chart.int()).abs().max() <= 3
    assert (centres.float() - chart).mean((0, 1, 2)).abs().max() < 0.5


def test_the_file_says_what_its_colours_mean(tmp_path: Path) -> None:
    """Values by BT.709, limited range, from its definition; tags 1 are BT.709, range 1 is limited."""
    red = torch.tensor([255, 0, 0], dtype=torch.uint8).expand(1, 32, 32, 3)
    with av.open(write(tmp_path / "a.mp4", red)) as container:
        frame = next(container.decode(video=0))
    planes = frame.to_ndarray().astype(int)  # 32 rows of luma, then a quarter as much of each colour difference
    assert abs(planes[:32] - (16 + 219 * 0.2126)).max() <= 1
    assert abs(planes[32:40] - (128 - 224 * 0.2126 / 1.8556)).max() <= 1
    assert abs(planes[40:] - (128 + 224 * 0.5)).max() <= 1
    assert (frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range) == (1, 1, 1, 1)


@pytest.mark.parametrize(("height", "width", "matrix"), [(48, 64, 5), (578, 16, 1), (16, 1280, 1)])
@pytest.mark.parametrize("full_range", [False, True])
def test_foreign_colours_are_read_by_tag_or_by_size(
    tmp_path: Path, height: int, width: int, matrix: int, full_range: bool
) -> None:
    """One flat colour encoded by the formula of each matrix, with no matrix tag."""
    weights = {1: (0.2126, 0.0722), 5: (0.299, 0.114)}[matrix]
    colour = np.array([200.0, 60.0, 120.0]) / 255
    luma = weights[0] * colour[0] + (1 - sum(weights)) * colour[1] + weights[1] * colour[2]
    chroma = [(colour[2] - luma) / (2 - 2 * weights[1]), (colour[0] - luma) / (2 - 2 * weights[0])]
    span, base, chroma_span = (255, 0, 255) if full_range else (219, 16, 224)
    planes = [base + span * luma, *(128 + chroma_span * value for value in chroma)]
    with av.open(tmp_path / "a.mkv", "w") as container:
        stream = container.add_stream("ffv1", rate=24)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv444p"
        stream.codec_context.color_range = 2 if full_range else 1
        array = np.stack([np.full((height, width), round(value), np.uint8) for value in planes])
        frame = av.VideoFrame.from_ndarray(array, format="yuv444p")
        frame.color_range = 2 if full_range else 1
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert (read(tmp_path / "a.mkv")[0, 3, 3].int() - torch.tensor([200, 60, 120])).abs().max() <= 2


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("rate", [Fraction(24), Fraction(30000, 1001), Fraction(15, 2), Fraction(60), Fraction(1, 3)])
def test_rate_and_count_are_exact(tmp_path: Path, suffix: str, rate: Fraction) -> None:
    with VideoReader(write(tmp_path / f"a{suffix}", moving_picture(5, 16, 16), rate)) as reader:
        assert reader.rate == rate
        assert len(list(reader)) == 5


def foreign(path: Path, pixel_format: str, shown: list[int], transfer: int = 1) -> Path:
    """Grey frames of a pixel format, shown at these milliseconds."""
    with av.open(path, "w") as container:
        stream = container.add_stream("ffv1", rate=1000)
        stream.width, stream.height, stream.pix_fmt, stream.codec_context.color_trc = 32, 16, pixel_format, transfer
        for pts in shown:
            frame = av.VideoFrame.from_ndarray(np.full((16, 32, 3), 128, np.uint8), format="rgb24")
            frame = frame.reformat(format=pixel_format)
            frame.pts, frame.time_base, frame.color_trc = pts, Fraction(1, 1000), transfer
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_frames_of_unequal_length_are_kept_and_noted(tmp_path: Path) -> None:
    with VideoReader(foreign(tmp_path / "a.mkv", "yuv420p", [0, 40, 80, 200, 240])) as reader:
        assert len(list(reader)) == 5
        (note,) = reader.notes
    assert re.fullmatch(r"frames last 40 to 120 ms; all are kept, as if at \d+(\.\d+)? a second", note)
    with VideoReader(foreign(tmp_path / "b.mkv", "yuv420p", [0, 42, 83, 125, 167])) as reader:  # 24 in whole ms
        assert (len(list(reader)), reader.notes) == (5, [])


def test_ten_bits_are_rounded_to_eight_and_noted(tmp_path: Path) -> None:
    with VideoReader(foreign(tmp_path / "a.mkv", "yuv420p10le", [0, 40])) as reader:
        assert mean_error(torch.stack(list(reader)), torch.full((2, 16, 32, 3), 128, dtype=torch.uint8)) <= 1
        assert reader.notes == ["10 bits a channel, read as 8"]


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_hdr_is_refused_rather_than_read_as_sdr(tmp_path: Path, transfer: int, name: str) -> None:
    with pytest.raises(MediaError, match=rf"graded for HDR(.|\n)*{name}(.|\n)*tone-map"):
        VideoReader(foreign(tmp_path / "a.mkv", "yuv420p10le", [0, 40], transfer))


@pytest.mark.parametrize(
    ("first", "size", "lengths"), [(1, 4, [1, 4, 4, 2]), (5, 3, [5, 3, 3]), (11, 1, [11]), (40, 8, [11])]
)
def test_chunks(tmp_path: Path, first: int, size: int, lengths: list[int]) -> None:
    clip = moving_picture(11, 16, 24)
    with VideoReader(write(tmp_path / "a.mkv", clip)) as reader:
        chunks = list(reader.chunks(first, size))
    assert [len(chunk) for chunk in chunks] == lengths
    assert torch.equal(torch.cat(chunks), clip)
    for wrong in ((0, 4), (1, 0)):
        with VideoReader(tmp_path / "a.mkv") as reader, pytest.raises(InputError):
            next(reader.chunks(*wrong))


def test_written_in_pieces_is_written_whole(tmp_path: Path) -> None:
    clip = moving_picture(9, 16, 24)
    with VideoWriter(tmp_path / "a.mkv", rate=8, width=24, height=16) as writer:
        for piece in (clip[:1], clip[1:1], clip[1:6], clip[6:].flip(2).flip(2)):
            writer.write(piece)
        assert writer.frames == 9
    assert torch.equal(read(tmp_path / "a.mkv"), clip)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [(False, False), (True, False), (False, True)])
def test_rotation_metadata_is_applied(tmp_path: Path, degrees: int, mirrored: tuple[bool, bool]) -> None:
    stored = torch.zeros(48, 64, 3, dtype=torch.uint8)
    stored[:16, :24] = 255
    with av.open(tmp_path / "a.mp4", "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.set_display_rotation(degrees, *mirrored)  # counter-clockwise, then left-right, then up-down
        container.mux(stream.encode(av.VideoFrame.from_ndarray(stored.numpy())))
        container.mux(stream.encode(None))
    upright = torch.rot90(stored, degrees // 90).flip(
        [axis for axis, flip in zip((1, 0), mirrored, strict=True) if flip]
    )
    with VideoReader(tmp_path / "a.mp4") as reader:
        assert (reader.height, reader.width) == upright.shape[:2]
        assert mean_error(next(iter(reader)), upright) < 2


def test_a_turn_by_an_odd_angle_is_refused(tmp_path: Path) -> None:
    with av.open(tmp_path / "a.mp4", "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.set_display_rotation(30)
        container.mux(stream.encode(av.VideoFrame(64, 48, "yuv420p")))
        container.mux(stream.encode(None))
    with pytest.raises(MediaError, match="odd angle"):
        VideoReader(tmp_path / "a.mp4")


@pytest.mark.parametrize("alpha", [255, 254])
def test_transparency_is_dropped_only_when_there_is_none(tmp_path: Path, alpha: int) -> None:
    pixels = np.full((16, 16, 4), 90, np.uint8)
    pixels[..., 3] = 255
    pixels[5, 7, 3] = alpha
    with av.open(tmp_path / "a.mkv", "w") as container:
        stream = container.add_stream("ffv1", rate=24)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "bgra"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgba").reformat(format="bgra")))
        container.mux(stream.encode(None))
    if alpha == 255:
        assert torch.equal(read(tmp_path / "a.mkv"), torch.full((1, 16, 16, 3), 90, dtype=torch.uint8))
    else:
        with pytest.raises(MediaError, match="transparent"):
            VideoReader(tmp_path / "a.mkv")


@pytest.mark.parametrize("cover", [False, True])
def test_a_recording_is_no_video_with_or_without_a_cover(tmp_path: Path, cover: bool) -> None:
    with av.open(tmp_path / "a.mp4", "w") as container:
        sound = container.add_stream("aac", rate=44100)
        if cover:
            picture = container.add_stream("mjpeg", rate=1)
            picture.width, picture.height, picture.pix_fmt = 32, 32, "yuvj420p"
            picture.disposition = Disposition.attached_pic
            container.mux(picture.encode(av.VideoFrame(32, 32, "yuvj420p")))
            container.mux(picture.encode(None))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    with av.open(tmp_path / "a.mp4") as container:
        assert len(container.streams.video) == cover
    with pytest.raises(MediaError, match="holds no video"):
        VideoReader(tmp_path / "a.mp4")


def test_a_video_without_a_frame_is_refused(tmp_path: Path) -> None:
    with av.open(tmp_path / "a.mp4", "w", options={"movflags": "empty_moov+frag_keyframe"}) as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    with av.open(tmp_path / "a.mp4") as container:
        assert len(container.streams.video) == 1
    with pytest.raises(MediaError, match="holds no frame"):
        VideoReader(tmp_path / "a.mp4")


def whole_file(path: Path, fast_start: bool = False) -> bytes:
    clip = moving_picture(40, 64, 96)
    if not fast_start:
        return write(path, clip).read_bytes()
    with av.open(path, "w", options={"movflags": "+faststart"}) as container:  # the index first, as on the web
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for pixels in clip.numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        container.mux(stream.encode(None))
    return path.read_bytes()


@pytest.mark.parametrize(("suffix", "fast_start"), [(".mp4", False), (".mp4", True), (".mkv", False)])
@pytest.mark.parametrize("part", [0.01, 0.3, 0.5, 0.9, 0.99, "all but one byte"])
def test_a_cut_file_is_refused_at_once(tmp_path: Path, suffix: str, fast_start: bool, part: float | str) -> None:
    file = tmp_path / f"a{suffix}"
    whole = whole_file(file, fast_start)
    assert len(read(file)) == 40
    file.write_bytes(whole[: int(len(whole) * part)] if isinstance(part, float) else whole[:-1])
    with pytest.raises(MediaError, match="cut short") as caught:
        VideoReader(file)
    expected, found = (int(re.search(r"\d+", str(said))[0]) for said in (caught.value.expected, caught.value.found))
    assert found == file.stat().st_size < expected <= len(whole)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_damage_never_escapes_as_another_error(tmp_path: Path, suffix: str) -> None:
    file, dice, outcomes = tmp_path / f"a{suffix}", random.Random(7), Counter[str]()
    whole = whole_file(file)
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(4):
            damaged[dice.randrange(len(damaged) if dice.random() < 0.6 else 400)] ^= 1 << dice.randrange(8)
        file.write_bytes(damaged)
        try:
            read(file)
            outcomes["read"] += 1
        except MediaError:
            outcomes["refused"] += 1
    assert outcomes["refused"] > 10


def test_h264_with_a_damaged_frame_is_refused_rather_than_patched_up(tmp_path: Path) -> None:
    whole = bytearray(whole_file(tmp_path / "a.mp4"))
    with av.open(tmp_path / "a.mp4") as container:
        size, start = max((entry.size, entry.pos) for entry in container.streams.video[0].index_entries)
    latter = slice(start + size * 6 // 10, start + size)  # the encoder's own notes come first
    whole[latter] = bytes(byte ^ 0xFF for byte in whole[latter])
    (tmp_path / "a.mp4").write_bytes(whole)
    with pytest.raises(MediaError, match=r"damaged|cannot be read"):
        read(tmp_path / "a.mp4")


def test_what_no_video_holds_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"\.mp4, \.mkv"):
        VideoWriter(tmp_path / "a.avi", rate=24, width=16, height=16)
    for rate, width, height in ((0, 16, 16), (-1, 16, 16), (24, 0, 16), (24, 16, -2), (100_000, 16, 16)):
        with pytest.raises(InputError):
            VideoWriter(tmp_path / "a.mp4", rate=rate, width=width, height=height)
    good = moving_picture(2, 16, 24)
    for wrong in (good.float(), good[0], good[:, :8], good.transpose(1, 2), good[..., :1]):
        with pytest.raises(InputError), VideoWriter(tmp_path / "a.mp4", rate=24, width=24, height=16) as writer:
            writer.write(wrong)
    with pytest.raises(MediaError), VideoWriter(tmp_path / "a.mp4", rate=24, width=40_000, height=2) as writer:
        writer.write(torch.zeros(1, 2, 40_000, 3, dtype=torch.uint8))
    assert not list(tmp_path.iterdir())
