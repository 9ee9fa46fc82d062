"""AutoencoderKL: Diffusers' class at narrow width, its variants, and its config."""

from __future__ import annotations

import pytest
import torch

from tests.layers.laws import assert_needs, filled, normal
from tests.narrow import KL, both, latent, media, on_meta, relative_errors
from vaeport.errors import ConfigError
from vaeport.layers import HEIGHT, WIDTH, SelfAttention
from vaeport.models.autoencoder_kl import (
    AutoencoderKL,
    AutoencoderKLArchConfig,
    EntryClass,
    downsample,
)

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.1}
"""relative to the rms"""


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", ["kl", "kl16"])
def test_is_diffusers(name: str, dtype: torch.dtype) -> None:
    ours, theirs = both(name, dtype)
    x, z = media(name, (2, 3, 23, 41)).to(dtype), latent(name).to(dtype)
    assert max(relative_errors(ours, theirs, x, z)) <= TOLERANCE[dtype]


@pytest.mark.parametrize("attention", [True, False])
def test_every_output_sees_the_whole_image(attention: bool) -> None:
    """Group norm alone sees to that, so bands run layer by layer."""
    vae = filled(AutoencoderKL(KL.replace(mid_block_add_attention=attention)))
    assert any(isinstance(layer, SelfAttention) for layer in vae.modules()) == attention
    for half, x in (("encoder", media("kl", (1, 3, 16, 8))), ("decoder", normal(1, 4, 2, 1))):
        for axis in (HEIGHT, WIDTH):
            assert getattr(vae, half).needs((0, 1), axis) is None
            assert_needs(getattr(vae, half), x, axis)


def test_downsampling_pads_right_and_bottom() -> None:
    """An image of zeros with one at the corner: only the window at the end lies partly outside."""
    layer = filled(downsample(1))
    layer.weight.fill_(1.0)
    layer.bias.fill_(0.0)
    ones = layer(torch.ones(1, 1, 4, 4).double())[0, 0]
    assert ones.tolist() == [[9.0, 6.0], [6.0, 4.0]]


@pytest.mark.parametrize(
    ("variant", "parameters", "tensors", "channels"),
    [
        ("sd1", 83_653_863, 248, 4),
        ("sd2", 83_653_863, 248, 4),
        ("sdxl", 83_653_863, 248, 4),
        ("sd3", 83_819_683, 244, 16),
        ("flux1", 83_819_683, 244, 16),
    ],
)
def test_shapes_in_the_docstring(variant: str, parameters: int, tensors: int, channels: int) -> None:
    vae = on_meta(AutoencoderKL, AutoencoderKL.variants[variant])
    with torch.device("meta"):
        z = vae.encoder(torch.empty(1, 3, 16, 24))
        assert z.shape == (1, 2 * channels, 2, 3)
        assert vae.decoder(z[:, :channels]).shape == (1, 3, 16, 24)
    assert sum(p.numel() for p in vae.parameters()) == parameters
    # queries, keys and values are one tensor here, in both halves
    assert len(vae.state_dict()) + 2 * 2 * 2 == tensors


def test_config_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"block_out_channels \(20\) is not a multiple of norm_num_groups \(8\)"):
        KL.replace(block_out_channels=(16, 20))
    with pytest.raises(ConfigError, match="latents_mean must have one value per latent channel") as refused:
        AutoencoderKLArchConfig(latents_mean=(1.0, 2.0), latents_std=(1.0, 2.0))
    assert (refused.value.expected, refused.value.found) == (4, 2)


def test_fewer_levels_compress_less() -> None:
    arch = KL.replace(block_out_channels=(16, 32))
    vae = filled(AutoencoderKL(arch))
    assert [rule.multiple for rule in vae.contract.axes] == [2, 2]
    assert vae.encode(media("kl", (1, 3, 9, 6))).latent_dist.mode().shape == (1, 4, 4, 3)


def test_entry_class() -> None:
    assert EntryClass is AutoencoderKL
    assert set(AutoencoderKL.variants) == {"sd1", "sd2", "sdxl", "sd3", "flux1"}
