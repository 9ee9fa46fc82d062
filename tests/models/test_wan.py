"""Wan 2.1: Diffusers' class at narrow width, what each latent depends on, and its config."""

from __future__ import annotations

import pytest
import torch

from tests.layers.laws import STREAMED, assert_needs, difference, filled, normal
from tests.narrow import WAN, both, latent, media, native, on_meta, relative_errors
from vaeport.errors import ConfigError
from vaeport.layers import HEIGHT, TIME, SelfAttention
from vaeport.models.wan import EntryClass, Wan, WanArchConfig

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-5, torch.bfloat16: 0.1}
"""relative to the rms; in float64, the reference rounds to float32 where it upsamples"""


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("frames", [1, 5, 6, 9])
def test_is_diffusers(frames: int, dtype: torch.dtype) -> None:
    ours, theirs = both("wan", dtype)
    x, z = media("wan", (2, 3, frames, 20, 24)).to(dtype), latent("wan")[:, :, : (frames + 3) // 4].to(dtype)
    assert max(relative_errors(ours, theirs, x, z)) <= TOLERANCE[dtype]


def test_six_frames_have_the_values_of_five() -> None:
    vae, x = native("wan"), media("wan", (1, 3, 6, 8, 8))
    assert difference(moments(vae, x), moments(vae, x[:, :, :5])) <= STREAMED


def test_a_latent_sees_no_later_frame() -> None:
    """Latent n depends on frames 0..4n at most, and on frame 4n."""
    vae = native("wan")
    for n in range(4):
        assert vae.encoder.needs((n, n + 1), TIME)[1] == 4 * n + 1
    x = media("wan", (1, 3, 13, 8, 8)).requires_grad_()
    y = vae.encoder(x)
    for n in range(4):
        (slope,) = torch.autograd.grad(weighted(y[:, :, n]), x, retain_graph=True)
        assert seen(slope)[-1] == 4 * n


def test_a_frame_sees_no_later_latent() -> None:
    """Frame 0 depends on latent 0 alone, frames 4n-3..4n on latents up to n and on n."""
    vae = native("wan")
    z = normal(1, 4, 4, 1, 1).requires_grad_()
    y = vae.decoder(z)
    for frame in range(13):
        (slope,) = torch.autograd.grad(weighted(y[:, :, frame]), z, retain_graph=True)
        latents = seen(slope)
        assert latents[-1] == (frame + 3) // 4
        needed = vae.decoder.needs((frame, frame + 1), TIME)
        assert (max(needed[0], 0), needed[1]) == (latents[0], latents[-1] + 1)


def test_encoder_needs_what_it_says() -> None:
    vae, x = native("wan"), media("wan", (1, 3, 9, 8, 8))
    assert_needs(vae.encoder, x, TIME)


def test_attention_makes_bands_wait() -> None:
    assert native("wan").encoder.needs((0, 1), HEIGHT) is None
    assert native("wan").decoder.needs((0, 1), HEIGHT) is None


def test_frame_zero_is_an_image() -> None:
    vae, x = native("wan"), media("wan")
    assert difference(moments(vae, x)[:, :, :1], moments(vae, x[:, :, :1])) <= STREAMED
    z = latent("wan")
    assert difference(vae.decode(z).sample[:, :, :1], vae.decode(z[:, :, :1]).sample) <= STREAMED


def test_shapes_in_the_docstring() -> None:
    vae = on_meta(Wan, WanArchConfig())
    with torch.device("meta"):
        z = vae.encoder(torch.empty(1, 3, 5, 16, 24))
        assert z.shape == (1, 32, 2, 2, 3)
        assert vae.decoder(z[:, :16]).shape == (1, 3, 5, 16, 24)
    assert sum(p.numel() for p in vae.parameters()) == 126_892_531
    assert sum(p.numel() for p in vae.encoder.quant_conv.parameters()) == 1056
    assert sum(p.numel() for p in vae.decoder.post_quant_conv.parameters()) == 272
    assert len(vae.state_dict()) == 194


def test_decoder_of_another_width() -> None:
    arch = WAN.replace(decoder_base_dim=16)
    vae = filled(Wan(arch))
    assert vae.encoder.conv_in.weight.shape[0] == 8
    assert vae.decoder.conv_in.weight.shape[0] == 64
    assert vae.decode(latent("wan")[:, :, :2]).sample.shape == (2, 3, 5, 16, 24)


def test_one_attention_in_the_middle_of_each_half() -> None:
    found = [name for name, layer in native("wan").named_modules() if isinstance(layer, SelfAttention)]
    assert found == [f"{half}.middle.attention.layer.main.attention" for half in ("encoder", "decoder")]


def test_lists_of_the_wrong_length_are_refused() -> None:
    with pytest.raises(ConfigError, match="temperal_downsample must have one value fewer than dim_mult"):
        WanArchConfig(dim_mult=(1, 2, 4))
    with pytest.raises(ConfigError, match="latents_std must have one value per latent channel") as refused:
        WAN.replace(latents_std=(1.0, 2.0))
    assert (refused.value.expected, refused.value.found) == (4, 2)
    with pytest.raises(ConfigError, match="latents_std must be positive"):
        WAN.replace(latents_std=(1.0, 2.0, 0.0, 1.0))
    with pytest.raises(ConfigError, match="in_channels and out_channels differ"):
        WAN.replace(out_channels=4)


def test_residual_wan_is_another_model() -> None:
    assert "Wan 2.2" in WanArchConfig.misfit({"is_residual": True})
    assert WanArchConfig.misfit({"is_residual": False}) is WanArchConfig.misfit({}) is None


def test_entry_class() -> None:
    assert EntryClass is Wan
    assert Wan.variants["wan2.1"] == WanArchConfig()


def moments(vae: Wan, x: torch.Tensor) -> torch.Tensor:
    return vae.encode(x).latent_dist.parameters


def weighted(y: torch.Tensor) -> torch.Tensor:
    """A sum in which nothing cancels by symmetry."""
    return (y * normal(*y.shape, seed=9)).sum()


def seen(slope: torch.Tensor) -> list[int]:
    """Frames with any slope."""
    return slope.abs().amax((0, 1, 3, 4)).nonzero().flatten().tolist()
