"""Published tilings against the exact result."""

from __future__ import annotations

import math

import pytest
import torch

from tests.layers.laws import normal
from tests.narrow import native
from vaeport.runtime.compare import compare, difference
from vaeport.runtime.tiling import tiled


def test_every_tiling_is_measured() -> None:
    vae, z = native("kl"), normal(1, 4, 8, 12)
    plan = vae.plan(tuple(z.shape), budget="1GiB")
    (found,) = compare(vae, z, "decoder", plan)
    exact, ours = vae.decode(z).sample, tiled(vae, "diffusers").decode(z).sample
    error, peak = ours - exact, float(exact.max() - exact.min())
    assert found.tiling == "diffusers"
    assert found.psnr == pytest.approx(10 * math.log10(peak**2 / float(error.square().mean())))
    assert found.largest == pytest.approx(float(error.abs().max()) / peak)
    assert "approximate, PSNR" in found.line


def test_what_is_not_cut_is_the_same() -> None:
    vae, z = native("kl"), normal(1, 4, 2, 3)
    (found,) = compare(vae, z, "decoder", vae.plan(tuple(z.shape), budget="1GiB"))
    assert (found.psnr, found.largest) == (None, None)
    assert "nothing is cut" in found.line


def test_media_are_compared_as_moments() -> None:
    vae, x = native("wan"), normal(1, 3, 5, 64, 32).tanh()
    found = list(compare(vae, x, "encoder", vae.plan(tuple(x.shape), "encoder", budget="1GiB")))
    assert [d.tiling for d in found] == ["diffusers"]
    assert found[0].to_json().keys() == {"tiling", "largest", "psnr", "refused"}


def test_audio_has_none() -> None:
    vae, z = native("oobleck8"), normal(1, 8, 9)
    assert list(compare(vae, z, "decoder", vae.plan(tuple(z.shape), budget="1GiB"))) == []


def test_equal_and_not() -> None:
    x = torch.tensor([0.0, 1.0, 2.0])
    assert difference("a", x, x).psnr is None
    assert difference("a", x + torch.tensor([0.0, 0.2, 0.0]), x).largest == pytest.approx(0.1)
