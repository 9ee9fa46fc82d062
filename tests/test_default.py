"""The VAE that comes with the package: small, Wan's class on both sides, and its pictures can be recognised."""

from __future__ import annotations

from pathlib import Path

import diffusers
import pytest
import torch
from skimage.data import chelsea
from torch import Tensor

import vaeport
from tests.cli.run import here
from training.evaluate import pan, psnr, seen
from vaeport.media import read_image, write_image
from vaeport.runtime.load import DEFAULT
from vaeport.vae import VAE


@pytest.fixture(scope="module")
def vae() -> VAE:
    return vaeport.load()


@pytest.fixture(scope="module")
def cat() -> Tensor:
    """A photo that it was not trained on: uint8 [3, H, W]."""
    whole = torch.from_numpy(chelsea()).movedim(-1, 0)
    return whole[:, : whole.shape[1] // 8 * 8, : whole.shape[2] // 8 * 8]


def test_it_is_small_and_a_wan(vae: VAE) -> None:
    assert sum(file.stat().st_size for file in DEFAULT.iterdir()) < 6_000_000
    assert type(vae).__name__ == "Wan"
    assert vae.dtype == torch.float32
    assert vae.contract.latent_shape((1, 3, 17, 64, 96)) == (1, 16, 5, 8, 12)
    assert vaeport.load(dtype="bfloat16", load_encoder=False).dtype == torch.bfloat16


def test_pictures_can_be_recognised(vae: VAE, cat: Tensor) -> None:
    """Worse by far would be other weights, channels or values; the figures are in docs/default.md."""
    assert psnr(seen(vae, cat[:, None])[0], cat[:, None]) > 29
    clip = pan(cat)[:, :9, :128, :128]
    assert psnr(seen(vae, clip)[0], clip) > 22


def test_latents_are_normalised_by_its_numbers(vae: VAE, cat: Tensor) -> None:
    z = vae.normalize(vae.encode(cat[None, :, None] / 127.5 - 1).latent_dist.mode())
    assert 0.5 < z.std() < 1.5  # of one photo; over all it is 1
    assert z.mean().abs() < 0.3


def test_diffusers_loads_the_same_folder(vae: VAE, cat: Tensor) -> None:
    theirs = diffusers.AutoencoderKLWan.from_pretrained(DEFAULT, torch_dtype=torch.float32, local_files_only=True)
    z = vae.encode(cat[None, :, None, :64, :96] / 127.5 - 1).latent_dist.mode()
    with torch.no_grad():
        torch.testing.assert_close(vae.decode(z).sample, theirs.decode(z).sample, rtol=0, atol=1e-4)


def test_the_command_line_needs_nothing_but_a_photo(cat: Tensor, tmp_path: Path) -> None:
    write_image(tmp_path / "photo.png", cat[:, :101, :150].movedim(0, -1))
    encoded = here("encode", "photo.png", "--check", cwd=tmp_path)
    assert (encoded.code, encoded.stderr.strip()) == (
        0,
        "no --vae is given: this is the small VAE that comes with vaeport",
    )
    assert "signal_to_noise_db" in encoded.stdout
    decoded = here("decode", "photo.safetensors", cwd=tmp_path)
    assert decoded.code == 0, decoded.stderr
    back = read_image(tmp_path / "photo-decoded.png")
    assert psnr(back, read_image(tmp_path / "photo.png")) > 24
