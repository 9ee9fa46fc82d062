"""The latent contract, executed: shapes, ranges, lengths that break the rule, containers, normalisation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.layers.laws import STREAMED, difference, normal
from tests.narrow import IN_DIFFUSERS, MEDIA, MODELS, both, decoded, decoder, latent, media, native, on_meta
from vaeport.configs import CeilAxisRule
from vaeport.errors import InputError
from vaeport.layers import TIME, StoredNormalizer
from vaeport.models.autoencoder_kl import AutoencoderKL
from vaeport.models.gamecraft import GameCraft
from vaeport.models.hunyuan_video import HunyuanVideo
from vaeport.models.oobleck import Oobleck
from vaeport.models.wan import Wan
from vaeport.models.wan2_2 import Wan22
from vaeport.vae import VAE, DecoderOutput, EncoderOutput

PUBLISHED = [
    (model, name) for model in (AutoencoderKL, Wan, Wan22, HunyuanVideo, GameCraft, Oobleck) for name in model.variants
]
SHAPES = {
    "kl": [(1, 3, 8, 8), (1, 3, 68, 71), (3, 3, 15, 16)],
    "kl16": [(1, 3, 23, 9)],
    "magvit": [(1, 3, 5, 24, 16)],
    "wan": [(1, 3, 2, 20, 23), (2, 3, 5, 8, 15), *((1, 3, t, 8, 8) for t in range(1, 14))],
    "wan2_2": [(2, 3, 5, 16, 32), *((1, 3, t, 16, 16) for t in (1, 2, 4, 6))],
    "hunyuan_video": [(1, 3, 2, 20, 23), (1, 3, 1, 1, 1), *((1, 3, t, 7, 9) for t in (3, 5, 8))],
    "gamecraft": [(1, 3, 6, 9, 8)],
    "gamecraft_open": [(1, 3, t, 9, 7) for t in (1, 3, 4, 5, 9)],
    "ltx": [(1, 3, t, 32, 32) for t in (1, 2, 8, 9, 10, 16)],
    "ltx1": [(1, 3, 7, 32, 64)],
    "ltx5": [(1, 3, 1, 64, 32), (1, 3, 9, 32, 32)],
    "ltx2": [(1, 3, 1, 64, 96), (1, 3, 9, 64, 64)],
    "ltx23": [(1, 3, 1, 32, 32), (1, 3, 25, 32, 32)],
    "oobleck": [(1, 2, 2048), (1, 2, 6145), (1, 2, 8191)],
    "oobleck8": [(2, 2, n) for n in range(8, 26)],
}
CASES = [(name, shape) for name in MODELS for shape in (MEDIA[name], *SHAPES[name])]


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_shapes_are_those_of_the_contract(name: str, shape: tuple[int, ...]) -> None:
    vae = native(name)
    z = vae.encode(media(name, shape)).latent_dist.mode()
    assert z.shape == vae.contract.latent_shape(shape)
    sample = decoded(vae, z)
    assert sample.shape == vae.contract.decoded_shape(tuple(z.shape))
    assert all(n >= 1 for n in sample.shape)


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_what_breaks_the_rule_is_dropped_or_counts(name: str, shape: tuple[int, ...]) -> None:
    """At most one step is lost, or added, and frames that are lost change no latent that stays."""
    vae, x = native(name), media(name, shape)
    legal = vae.contract.decoded_shape(vae.contract.latent_shape(shape))[2:]
    for n, given, rule in zip(legal, shape[2:], vae.contract.axes, strict=True):
        assert given <= n < given + rule.multiple if isinstance(rule, CeilAxisRule) else n <= given < n + rule.multiple
        assert rule.crops or n == given
    # a norm over all frames sees those that are over the last legal length too
    if vae.contract.modality == "video" and vae.encoder.needs((0, 1), TIME) is not None:
        cropped = x[:, :, : legal[0]]
        assert difference(moments(vae, cropped), moments(vae, x)) <= STREAMED


@pytest.mark.parametrize("name", MODELS)
def test_padded_is_the_next_legal_length(name: str) -> None:
    for rule in native(name).contract.axes:
        legal = [n for n in range(rule.padded(1), 4 * rule.multiple) if (n - rule.offset) % rule.multiple == 0]
        for n in range(1, legal[-1] + 1):
            assert rule.padded(n) == min(length for length in legal if length >= n)
            assert rule.decoded(rule.latents(rule.padded(n))) == rule.padded(n)


@pytest.mark.parametrize("name", MODELS)
def test_one_less_than_the_shortest_is_refused(name: str) -> None:
    vae = native(name)
    least = [rule.least for rule in vae.contract.axes]
    assert vae.encode(media(name, (1, vae.contract.channels, *least))).latent_dist.mode().shape[2:] == (1,) * len(least)
    for i, rule in enumerate(vae.contract.axes):
        shape = [1, vae.contract.channels, *least]
        shape[2 + i] -= 1
        with pytest.raises(InputError) as refused:
            vae.encode(torch.zeros(shape, dtype=torch.float64))
        assert refused.value.where == f"axis {rule.name}"
        assert refused.value.expected == f"at least {least[i]}"
        assert refused.value.found == least[i] - 1


@pytest.mark.parametrize("name", MODELS)
def test_clamp(name: str) -> None:
    vae, z = native(name), 4 * latent(name)
    raw, sample = decoder(name)(z), decoded(vae, z)
    clamp = vae.contract.clamp
    assert difference(sample, raw if clamp is None else raw.clamp(*clamp)) <= STREAMED
    if name in ("wan", "wan2_2"):
        assert raw.abs().max() > 1.2 > 1.0 == sample.abs().max()
    else:
        assert clamp is None


@pytest.mark.parametrize("name", MODELS)
def test_containers(name: str) -> None:
    vae, x = native(name), media(name)
    encoded = vae.encode(x)
    assert isinstance(encoded, EncoderOutput)
    (posterior,) = vae.encode(x, return_dict=False)
    assert torch.equal(posterior.mode(), encoded.latent_dist.mode())
    one, two = (torch.Generator().manual_seed(5) for _ in range(2))
    output = vae.decode(posterior.mode(), generator=one)
    assert isinstance(output, DecoderOutput)
    (sample,) = vae.decode(posterior.mode(), return_dict=False, generator=two)
    assert torch.equal(sample, output.sample)


@pytest.mark.parametrize("name", MODELS)
def test_forward_is_the_round_trip(name: str) -> None:
    vae, x = native(name), media(name)[:1]
    posterior = vae.encode(x).latent_dist

    def seeded(run: Callable[[], DecoderOutput]) -> torch.Tensor:
        torch.manual_seed(3)  # of the noise that a decoder adds
        return run().sample

    mode = seeded(lambda: vae(x))
    assert torch.equal(mode, seeded(lambda: vae.decode(posterior.mode())))
    one, two = (torch.Generator().manual_seed(5) for _ in range(2))
    sampled = posterior.sample(one)
    expected = seeded(lambda: vae.decode(sampled))
    assert torch.equal(seeded(lambda: vae(x, sample_posterior=True, generator=two)), expected)
    assert difference(mode, expected) > 1e-6


@pytest.mark.parametrize("name", MODELS)
def test_a_call_does_not_change_the_next(name: str) -> None:
    vae, a, b = native(name), media(name)[:1], media(name, seed=1)
    first = moments(vae, a), decoded(vae, latent(name)[:1])
    moments(vae, b)
    decoded(vae, latent(name, seed=1))
    again = moments(vae, a), decoded(vae, latent(name)[:1])
    assert all(torch.equal(x, y) for x, y in zip(first, again, strict=True))


@pytest.mark.parametrize("name", IN_DIFFUSERS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_posterior_is_that_of_diffusers(name: str, dtype: torch.dtype) -> None:
    """The kind that the contract names: on the same moments, every number is Diffusers' own."""
    vae, (_, theirs) = native(name), both(name, torch.float32)
    expected = theirs.encode(media(name).float()).latent_dist
    values = expected.parameters.to(dtype)
    expected = type(expected)(values)
    found = vae._posterior(values)
    for figure in ("mean", "std", "var", "logvar"):
        assert torch.equal(getattr(found, figure), getattr(expected, figure)), figure
    one, two = (torch.Generator().manual_seed(5) for _ in range(2))
    assert torch.equal(found.sample(one), expected.sample(two))
    assert torch.equal(found.mode(), expected.mode())


@pytest.mark.parametrize(("model", "variant"), PUBLISHED)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_normalize_is_the_pipelines_formula(model: type[VAE], variant: str, dtype: torch.dtype) -> None:
    """With the arithmetic of Diffusers' pipelines, at the published numbers."""
    arch: Any = model.variants[variant]
    vae = on_meta(model, arch)
    z = normal(2, vae.contract.latent_channels, *(2,) * len(vae.contract.axes)).to(dtype)
    if model in (Wan, Wan22):
        mean, std = (torch.tensor(v, dtype=dtype).view(1, -1, 1, 1, 1) for v in (arch.latents_mean, arch.latents_std))
        there, back = (z - mean) * (1.0 / std), z / (1.0 / std) + mean
    elif model is AutoencoderKL and arch.shift_factor is not None:
        there, back = (z - arch.shift_factor) * arch.scaling_factor, z / arch.scaling_factor + arch.shift_factor
    elif model is not Oobleck:
        there, back = arch.scaling_factor * z, z / arch.scaling_factor
    else:
        there, back = z, z
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(vae.normalize(z), there, rtol=4 * eps, atol=4 * eps)
    torch.testing.assert_close(vae.denormalize(z), back, rtol=4 * eps, atol=4 * eps)
    torch.testing.assert_close(vae.denormalize(vae.normalize(z)), z, rtol=8 * eps, atol=8 * eps)


@pytest.mark.parametrize(
    ("model", "variant", "shift", "scale"),
    [
        (AutoencoderKL, "sd1", 0.0, 0.18215),
        (AutoencoderKL, "sd2", 0.0, 0.18215),
        (AutoencoderKL, "sdxl", 0.0, 0.13025),
        (AutoencoderKL, "sd3", 0.0609, 1.5305),
        (AutoencoderKL, "flux1", 0.1159, 0.3611),
        (HunyuanVideo, "hunyuan_video", 0.0, 0.476986),
        (GameCraft, "gamecraft", 0.0, 0.476986),
        (Oobleck, "stable-audio-open-1.0", 0.0, 1.0),
    ],
)
def test_published_numbers(model: type[VAE], variant: str, shift: float, scale: float) -> None:
    contract = model.contract_of(model.variants[variant])
    assert (contract.shift, contract.scale) == (shift, scale)


@pytest.mark.parametrize("name", ["ltx", "ltx5", "ltx2"])
def test_statistics_in_the_checkpoint_are_the_pipelines(name: str) -> None:
    """With the arithmetic of Diffusers' pipelines, on the buffers of its class."""
    ours, theirs = both(name, torch.float64)
    assert isinstance(ours.normalizer, StoredNormalizer)
    z = normal(2, 4, 2, 2, 2)
    mean, std = (t.view(1, -1, 1, 1, 1) for t in (theirs.latents_mean, theirs.latents_std))
    assert mean.abs().min() > 0.01
    assert difference(ours.normalize(z), (z - mean) * theirs.config.scaling_factor / std) < 1e-14
    assert difference(ours.denormalize(z), z * std / theirs.config.scaling_factor + mean) < 1e-14
    assert (ours.contract.shift, ours.contract.scale) == (None, None)


def test_statistics_per_channel_come_before_the_scale() -> None:
    """Playground 2.5: (z - mean) / std * scaling_factor."""
    means, stds = (1.0, 2.0, 3.0, 4.0), (2.0, 4.0, 5.0, 8.0)
    arch = AutoencoderKL.variants["sdxl"].replace(latents_mean=means, latents_std=stds, scaling_factor=0.5)
    vae, z = on_meta(AutoencoderKL, arch), normal(1, 4, 2, 2)
    mean, std = (torch.tensor(v, dtype=torch.float64).view(1, 4, 1, 1) for v in (means, stds))
    assert difference(vae.normalize(z), (z - mean) / std * 0.5) < 1e-15
    assert difference(vae.denormalize(z), z * std / 0.5 + mean) < 1e-14


def test_contract_as_plain_data() -> None:
    found = native("wan").contract.to_json()
    assert found["axes"][0] == {"name": "time", "multiple": 4, "offset": 1}
    assert found["clamp"] == [-1.0, 1.0]
    assert found["scale"] == pytest.approx([1 / 1.5, 1 / 0.7, 0.5, 1.0])
    assert native("oobleck").contract.to_json()["sample_rate"] == 44100


def moments(vae: VAE, x: torch.Tensor) -> torch.Tensor:
    return vae.encode(x).latent_dist.parameters
