from __future__ import annotations

import hashlib
from itertools import islice

import pytest
import torch

from vaeport.errors import InputError
from vaeport.media import AudioReader
from vaeport.media.samples import _clip, clip, photo, recording


def test_the_recording_is_the_one_its_readme_describes() -> None:
    readme = recording().with_name("README.md").read_text("utf-8")
    assert hashlib.sha256(recording().read_bytes()).hexdigest() in readme
    assert recording().stat().st_size <= 400_000
    with AudioReader(recording()) as reader:
        assert (reader.rate, reader.channels) == (44100, 2)
        assert 5 < reader.frames / reader.rate < 10
        left, right = torch.cat(list(reader.blocks(1 << 16)), 1)
    assert 0.3 < max(left.abs().max(), right.abs().max()) <= 1
    assert (left - right).square().mean() > 0.1 * left.square().mean()  # stereo, not one side twice


def test_the_photo_is_a_photo() -> None:
    pixels = photo()
    assert (pixels.dtype, pixels.shape) == (torch.uint8, (512, 512, 3))
    assert pixels.float().std() > 40
    pixels.zero_()
    assert photo().any()


def test_the_clip_is_deterministic_and_moves_by_fractions_of_a_pixel() -> None:
    frames = torch.stack(list(clip(9, 96, 128)))
    assert (frames.dtype, frames.shape) == (torch.uint8, (9, 96, 128, 3))
    assert torch.equal(frames, torch.stack(list(clip(9, 96, 128))))
    steps = (frames[1:].float() - frames[:-1].float()).abs().mean((1, 2, 3))
    assert steps.min() > 2
    ends = (frames[-1].float() - frames[0].float()).abs().mean()
    assert ends > steps.max()
    slow = torch.stack(list(islice(clip(200, 96, 128), 2)))
    assert 0 < (slow[1].float() - slow[0].float()).abs().mean() < steps.min() / 3


def test_the_camera_pans_and_closes_in() -> None:
    """Over a scene whose first channel is the column and whose second is the row, both from -1 to 1."""
    across = torch.linspace(-1, 1, 512)
    scene = torch.stack([across.expand(512, 512), across[:, None].expand(512, 512), torch.zeros(512, 512)])[None]
    first, last = [frame.float() for frame in (list(_clip(scene, 5, 128, 128))[k] for k in (0, 4))]
    for channel, axis in ((0, 1), (1, 0)):
        spans = [frame[..., channel].select(axis, -1) - frame[..., channel].select(axis, 0) for frame in (first, last)]
        assert float(spans[1].mean() / spans[0].mean()) == pytest.approx(0.6, abs=0.02)
        assert (first[..., channel].mean() - last[..., channel].mean()).abs() > 10


@pytest.mark.parametrize("size", [(64, 64), (256, 256), (480, 832), (7, 300), (33, 5)])
def test_any_size_shows_the_photo_without_its_edge(size: tuple[int, int]) -> None:
    for frame in clip(3, *size):
        assert frame.shape == (*size, 3)
        assert frame.float().std() > 20
    assert len(list(clip(1, *size))) == 1


def test_nonsense_is_refused_at_the_call() -> None:
    for arguments in ((0, 8, 8), (1, 0, 8), (1, 8, -1)):
        with pytest.raises(InputError):
            clip(*arguments)
