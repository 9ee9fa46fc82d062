from __future__ import annotations

import io
import random
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from vaeport.errors import InputError, MediaError
from vaeport.media import read_image, write_image


def picture(height: int = 37, width: int = 53) -> Tensor:
    return torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff", ".webp", ".PNG"])
@pytest.mark.parametrize("size", [(37, 53), (1, 1), (1, 64), (64, 64)])
def test_lossless_formats_keep_every_bit(tmp_path: Path, suffix: str, size: tuple[int, int]) -> None:
    write_image(tmp_path / f"a{suffix}", picture(*size))
    assert torch.equal(read_image(tmp_path / f"a{suffix}"), picture(*size))


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg"])
def test_jpeg_stays_close_in_all_three_channels(tmp_path: Path, suffix: str) -> None:
    ramp = torch.arange(64, dtype=torch.uint8) * 4
    pixels = torch.stack([ramp.expand(64, 64), ramp[:, None].expand(64, 64), ramp.flip(0).expand(64, 64)], -1)
    write_image(tmp_path / f"a{suffix}", pixels)
    assert (read_image(tmp_path / f"a{suffix}").int() - pixels.int()).abs().max() <= 4


def test_jpeg_keeps_colour_at_full_resolution(tmp_path: Path) -> None:
    stripes = torch.tensor([[200, 40, 40], [40, 40, 200]], dtype=torch.uint8).repeat(32, 1).expand(64, 64, 3)
    write_image(tmp_path / "a.jpg", stripes)
    assert (read_image(tmp_path / "a.jpg").int() - stripes.int()).abs().max() <= 12


def test_a_strided_view_is_written_as_it_looks(tmp_path: Path) -> None:
    view = picture().flip(0)[::2].transpose(0, 1)
    write_image(tmp_path / "a.png", view)
    assert torch.equal(read_image(tmp_path / "a.png"), view)


# What each EXIF orientation does to the stored picture, from the EXIF standard's table of where row 0 and column 0 are.
UPRIGHT = {
    1: lambda p: p,
    2: lambda p: p.flip(1),
    3: lambda p: p.flip(0, 1),
    4: lambda p: p.flip(0),
    5: lambda p: p.transpose(0, 1),
    6: lambda p: p.transpose(0, 1).flip(1),
    7: lambda p: p.transpose(0, 1).flip(0, 1),
    8: lambda p: p.transpose(0, 1).flip(0),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_honoured(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture().numpy()).save(tmp_path / "a.png", exif=exif)
    assert torch.equal(read_image(tmp_path / "a.png"), UPRIGHT[orientation](picture()))


def test_grey_palette_and_bilevel_become_rgb(tmp_path: Path) -> None:
    grey = picture()[..., 0]
    Image.fromarray(grey.numpy()).save(tmp_path / "grey.png")
    assert torch.equal(read_image(tmp_path / "grey.png"), grey[..., None].expand(-1, -1, 3))
    Image.fromarray(grey.numpy() > 127).save(tmp_path / "bilevel.png")
    assert torch.equal(read_image(tmp_path / "bilevel.png"), (grey > 127)[..., None].expand(-1, -1, 3) * 255)
    palette = Image.fromarray((grey % 4).numpy(), mode=None).convert("P")
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 8, 7])
    palette.putdata((grey % 4).flatten().tolist())
    colours = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 8, 7]], dtype=torch.uint8)
    for name in ("palette.png", "palette.gif"):
        palette.save(tmp_path / name)
        assert torch.equal(read_image(tmp_path / name), colours[(grey % 4).long()])


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    inks = {(0, 0, 0, 0): (255, 255, 255), (255, 0, 0, 0): (0, 255, 255), (0, 0, 0, 255): (0, 0, 0)}
    for ink, colour in inks.items():
        Image.new("CMYK", (8, 8), ink).save(tmp_path / "a.jpg", quality=100)
        assert (read_image(tmp_path / "a.jpg")[0, 0].int() - torch.tensor(colour)).abs().max() <= 2


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_dropped_only_when_there_is_none(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(picture().numpy()).convert(mode)
    image.save(tmp_path / "opaque.png")
    assert torch.equal(read_image(tmp_path / "opaque.png"), torch.from_numpy(np.array(image.convert("RGB"))))
    last = image.getpixel((52, 36))
    image.putpixel((52, 36), (*last[:-1], 254))
    image.save(tmp_path / "a.png")
    with pytest.raises(MediaError, match="alpha down to 254"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize(("key", "refused"), [((1, 2, 3), False), ((200, 100, 50), True)])
def test_a_transparent_colour_counts_where_it_occurs(tmp_path: Path, key: tuple[int, int, int], refused: bool) -> None:
    Image.new("RGB", (4, 4), (200, 100, 50)).save(tmp_path / "a.png", transparency=key)
    if refused:
        with pytest.raises(MediaError, match="transparent"):
            read_image(tmp_path / "a.png")
    else:
        assert read_image(tmp_path / "a.png")[0, 0].tolist() == [200, 100, 50]


def test_more_than_8_bits_are_refused_rather_than_cut(tmp_path: Path) -> None:
    deep = picture().numpy().astype(np.uint16) * 257
    (tmp_path / "rgb.png").write_bytes(_png(53, 37, 16, 2, deep.astype(">u2")))
    Image.fromarray(deep[..., 0]).save(tmp_path / "grey.png")
    Image.fromarray(deep[..., 0].astype(np.int32)).save(tmp_path / "int.tiff")
    Image.fromarray(deep[..., 0].astype(np.float32)).save(tmp_path / "float.tiff")
    for name in ("rgb.png", "grey.png", "int.tiff", "float.tiff"):
        with pytest.raises(MediaError, match="more than 8 bits"):
            read_image(tmp_path / name)


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tiff"])
def test_several_pictures_are_refused_and_one_is_not(tmp_path: Path, name: str) -> None:
    frames = [Image.new("RGB", (8, 8), (i * 80, 0, 255)) for i in range(3)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    with pytest.raises(MediaError, match="several") as caught:
        read_image(tmp_path / name)
    assert caught.value.found == 3
    frames[0].save(tmp_path / name, save_all=True, lossless=True)
    assert read_image(tmp_path / name)[0, 0].tolist() == [0, 0, 255]


def test_a_photo_with_an_embedded_second_view_is_its_first(tmp_path: Path) -> None:
    views = [Image.new("RGB", (8, 8), (i * 200, 0, 0)) for i in range(2)]
    views[0].save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=views[1:])
    assert read_image(tmp_path / "a.jpg").float().mean() < 3


def test_a_picture_that_claims_to_be_huge_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(_png(60_000, 60_000, 8, 2, np.zeros((1, 1), np.uint8)))
    with pytest.raises(MediaError, match="decompression bomb"):
        read_image(tmp_path / "bomb.png")


def test_postscript_is_never_handed_to_an_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interpreter = tmp_path / "gs"
    interpreter.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    interpreter.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (tmp_path / "a.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    )
    with pytest.raises(MediaError, match="cannot be read"):
        read_image(tmp_path / "a.png")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tiff", ".gif"])
def test_cut_and_damaged_files_raise_one_clear_error(tmp_path: Path, suffix: str) -> None:
    stream = io.BytesIO()
    Image.fromarray(picture().numpy()).save(stream, format={".jpg": "JPEG", ".tiff": "TIFF"}.get(suffix, suffix[1:]))
    whole, file, dice = stream.getvalue(), tmp_path / f"a{suffix}", random.Random(5)
    for part in (0.1, 0.5, 0.9):
        file.write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises(MediaError):
            read_image(file)
    for _ in range(200):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[dice.randrange(len(damaged) if dice.random() < 0.5 else 64)] = dice.randrange(256)
        file.write_bytes(damaged)
        with suppress(MediaError):
            assert read_image(file).dtype == torch.uint8


def test_what_cannot_be_written_is_refused_before_anything_is(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"\.png"):
        write_image(tmp_path / "a.xyz", picture())
    for wrong in (picture().float(), picture()[..., :2], picture()[None], picture(0, 4)):
        with pytest.raises(InputError):
            write_image(tmp_path / "a.png", wrong)
    with pytest.raises(MediaError, match="cannot be written"):
        write_image(tmp_path / "a.webp", torch.zeros(1, 20_000, 3, dtype=torch.uint8))
    assert not list(tmp_path.iterdir())


def _png(width: int, height: int, depth: int, colour: int, rows: np.ndarray) -> bytes:
    """A PNG by its specification, for what Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
