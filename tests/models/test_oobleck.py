"""Oobleck: Diffusers' class at narrow width, its published reach, and its config."""

from __future__ import annotations

import pytest
import torch

from tests.layers.laws import assert_needs, normal
from tests.narrow import OOBLECK8, both, latent, media, native, on_meta, relative_errors
from vaeport.errors import ConfigError
from vaeport.layers import SAMPLES
from vaeport.models.oobleck import EntryClass, Oobleck, OobleckArchConfig

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-4, torch.bfloat16: 0.1}
"""relative to the rms"""


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", ["oobleck", "oobleck8"])
def test_is_diffusers(name: str, dtype: torch.dtype) -> None:
    ours, theirs = both(name, dtype)
    x, z = media(name)[..., :-3].to(dtype), latent(name).to(dtype)
    assert max(relative_errors(ours, theirs, x, z)) <= TOLERANCE[dtype]


def test_encoder_reach() -> None:
    """One latent depends on samples -14885..+16932 from its start: measured, and stated by `needs`."""
    vae, k = native("oobleck"), 8
    x = media("oobleck", (1, 2, 17 * 2048)).requires_grad_()
    (slope,) = torch.autograd.grad(weighted(vae.encoder(x)[:, :, k]), x)
    seen = slope.abs().amax((0, 1)).nonzero().flatten()
    assert (int(seen[0]) - k * 2048, int(seen[-1]) - k * 2048) == (-14885, 16932)
    assert vae.encoder.needs((k, k + 1), SAMPLES) == (k * 2048 - 14885, k * 2048 + 16932 + 1)


def test_decoder_reach() -> None:
    """Some output sample of a latent depends on 10 latents before it, some on 10 after: measured, and stated."""
    vae, k = native("oobleck"), 11
    z = normal(1, 8, 23).requires_grad_()
    (slope,) = torch.autograd.grad(weighted(vae.decoder(z)[:, :, k * 2048 : (k + 1) * 2048]), z)
    seen = slope.abs().amax((0, 1)).nonzero().flatten()
    assert (int(seen[0]) - k, int(seen[-1]) - k) == (-10, 10)
    assert vae.decoder.needs((k * 2048, (k + 1) * 2048), SAMPLES) == (k - 10, k + 11)
    singles = [vae.decoder.needs((i, i + 1), SAMPLES) for i in range(k * 2048, (k + 1) * 2048)]
    assert max(stop - start for start, stop in singles) == 20, "no single sample sees both ends"
    assert (min(singles)[0], max(stop for _, stop in singles)) == (k - 10, k + 11)


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_needs(half: str) -> None:
    vae = native("oobleck8")
    x = media("oobleck8", (1, 2, 64)) if half == "encoder" else normal(1, 8, 6)
    assert_needs(getattr(vae, half), x, SAMPLES)


def test_odd_strides_are_refused() -> None:
    """They lose a sample each, so that a latent no longer stands for the product of the strides."""
    with pytest.raises(ConfigError, match="downsampling_ratios must be even"):
        OOBLECK8.replace(downsampling_ratios=(3, 2))


def test_shapes_in_the_docstring() -> None:
    vae = on_meta(Oobleck, OobleckArchConfig())
    with torch.device("meta"):
        z = vae.encoder(torch.empty(1, 2, 2 * 2048))
        assert z.shape == (1, 128, 2)
        assert vae.decoder(z[:, :64]).shape == (1, 2, 2 * 2048)
    assert sum(p.numel() for p in vae.encoder.parameters()) == 77_989_888
    assert sum(p.numel() for p in vae.decoder.parameters()) == 78_122_626
    assert len(vae.state_dict()) == 365


def test_last_convolution_has_no_bias() -> None:
    assert native("oobleck").decoder.conv_out.bias is None
    assert sum(name.endswith("conv_out.bias") for name in native("oobleck").state_dict()) == 1


def test_contradictions_are_refused() -> None:
    with pytest.raises(ConfigError, match="differ in length") as refused:
        OobleckArchConfig(downsampling_ratios=(2, 4), channel_multiples=(1, 2, 4))
    assert (refused.value.expected, refused.value.found) == (2, 3)
    with pytest.raises(ConfigError, match="twice as wide as the latent") as refused:
        OobleckArchConfig(decoder_input_channels=32)
    assert (refused.value.expected, refused.value.found) == ("encoder_hidden_size 64", 128)


def test_entry_class() -> None:
    assert EntryClass is Oobleck
    assert Oobleck.variants["stable-audio-open-1.0"] == OobleckArchConfig()


def weighted(y: torch.Tensor) -> torch.Tensor:
    """A sum in which nothing cancels by symmetry."""
    return (y * normal(*y.shape, seed=9)).sum()
