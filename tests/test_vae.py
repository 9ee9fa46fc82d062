"""What the base class refuses, with its words, and what it says of itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.layers.laws import STREAMED, difference, filled, normal
from tests.narrow import KL, LTX1, LTX5, WAN, decoded, latent, media, native
from vaeport.configs import ImageVAEConfig, VideoVAEConfig
from vaeport.errors import InputError
from vaeport.layers import DiagonalGaussian, NormalizedGaussian
from vaeport.models.autoencoder_kl import AutoencoderKL
from vaeport.models.ltx_video import LTXVideo
from vaeport.models.wan import Wan
from vaeport.vae import VAE

DOUBLE = torch.float64
REFUSED: list[tuple[str, str, torch.Tensor, dict[str, Any]]] = [
    (
        "kl",
        "encode",
        torch.zeros(3, 16, 16, dtype=DOUBLE),
        {"what": "AutoencoderKL takes B C H W", "expected": "4 axes", "found": [3, 16, 16]},
    ),
    (
        "wan",
        "encode",
        torch.zeros(1, 3, 16, 16, dtype=DOUBLE),
        {"what": "Wan takes B C T H W", "expected": "5 axes", "found": [1, 3, 16, 16]},
    ),
    (
        "oobleck",
        "decode",
        torch.zeros(1, 8, 2, 2, dtype=DOUBLE),
        {"what": "Oobleck takes B C S", "expected": "3 axes", "found": [1, 8, 2, 2]},
    ),
    (
        "kl",
        "encode",
        torch.zeros(1, 3, 16, 16, dtype=torch.uint8),
        {
            "what": "AutoencoderKL takes floating-point tensors",
            "expected": DOUBLE,
            "found": torch.uint8,
            "fix": "scale it to [-1, 1] and convert it to torch.float64",
        },
    ),
    (
        "kl",
        "decode",
        torch.zeros(1, 4, 2, 2, dtype=torch.float32),
        {
            "what": "input and weights differ in type",
            "expected": DOUBLE,
            "found": torch.float32,
            "fix": "x.to(vae.dtype)",
        },
    ),
    (
        "kl",
        "encode",
        torch.zeros(1, 3, 16, 16, dtype=DOUBLE, device="meta"),
        {
            "what": "input and weights are on different devices",
            "expected": torch.device("cpu"),
            "found": torch.device("meta"),
        },
    ),
    (
        "oobleck",
        "encode",
        torch.zeros(1, 1, 4096, dtype=DOUBLE),
        {"what": "Oobleck takes B C S", "where": "axis C", "expected": 2, "found": [1, 1, 4096]},
    ),
    (
        "wan",
        "decode",
        torch.zeros(1, 16, 1, 2, 2, dtype=DOUBLE),
        {"what": "Wan takes B C T H W", "where": "axis C", "expected": 4, "found": [1, 16, 1, 2, 2]},
    ),
    (
        "kl",
        "encode",
        torch.zeros(0, 3, 16, 16, dtype=DOUBLE),
        {"what": "AutoencoderKL takes B C H W", "where": "axis batch", "expected": "at least 1", "found": 0},
    ),
    (
        "wan",
        "encode",
        torch.zeros(1, 3, 0, 16, 16, dtype=DOUBLE),
        {"what": "Wan: the input is too short", "where": "axis time", "expected": "at least 1", "found": 0},
    ),
    (
        "wan",
        "encode",
        torch.zeros(1, 3, 1, 16, 7, dtype=DOUBLE),
        {"what": "Wan: the input is too short", "where": "axis width", "expected": "at least 8", "found": 7},
    ),
    (
        "oobleck",
        "encode",
        torch.zeros(1, 2, 2047, dtype=DOUBLE),
        {
            "what": "Oobleck: the input is too short",
            "where": "axis samples",
            "expected": "at least 2048",
            "found": 2047,
        },
    ),
    (
        "kl",
        "decode",
        torch.zeros(1, 4, 0, 2, dtype=DOUBLE),
        {"what": "AutoencoderKL: the input is too short", "where": "axis height", "expected": "at least 1", "found": 0},
    ),
]


@pytest.mark.parametrize(("name", "call", "x", "told"), REFUSED)
def test_refused(name: str, call: str, x: torch.Tensor, told: dict[str, Any]) -> None:
    with pytest.raises(InputError) as refused:
        getattr(native(name), call)(x)
    error = refused.value
    assert {key: getattr(error, key) for key in ("what", "where", "expected", "found", "fix")} == {
        **dict.fromkeys(("where", "expected", "found", "fix")),
        **told,
    }
    assert str(error).splitlines()[0] == told["what"]


@pytest.mark.parametrize(("name", "call", "x", "told"), [case for case in REFUSED if case[0] != "kl"])
def test_refused_in_a_stream(name: str, call: str, x: torch.Tensor, told: dict[str, Any]) -> None:
    with pytest.raises(InputError) as refused:
        list(getattr(native(name), f"stream_{call}")([x]))
    assert (refused.value.what, refused.value.found) == (told["what"], told["found"])


def test_refused_before_the_first_output() -> None:
    """A bad piece is refused when it comes, and what came before it is out by then."""
    vae, x = native("wan"), media("wan")
    stream = vae.stream_encode([x[:, :, :5], x[:, :, 5:].float()])
    assert sum(posterior.mean.shape[2] for posterior in [next(stream)]) == 2
    with pytest.raises(InputError, match="differ in type"):
        next(stream)


def test_halves_that_are_not_loaded() -> None:
    decoder = AutoencoderKL(KL, ImageVAEConfig(load_encoder=False)).double()
    assert decoder.encoder is None
    assert not any(key.startswith("encoder.") for key in decoder.state_dict())
    assert decoder.decode(latent("kl")).sample.shape == (2, 3, 40, 24)
    with pytest.raises(InputError, match="this VAE was loaded without its encoder") as refused:
        decoder.encode(media("kl"))
    assert refused.value.fix == "load it with load_encoder=True"
    encoder = Wan(WAN, VideoVAEConfig(load_decoder=False)).double()
    assert encoder.decoder is None
    with pytest.raises(InputError, match="this VAE was loaded without its decoder"):
        encoder.decode(latent("wan"))
    with pytest.raises(InputError, match="this VAE was loaded without its decoder"):
        encoder.stream_decode([latent("wan")])


def test_dtype_and_device() -> None:
    vae = AutoencoderKL(KL).to(torch.bfloat16)
    assert (vae.dtype, vae.device) == (torch.bfloat16, torch.device("cpu"))
    assert vae.encode(media("kl").bfloat16()).latent_dist.mode().dtype == torch.bfloat16
    assert vae.decode(latent("kl").bfloat16()).sample.dtype == torch.bfloat16


# Halves of different types.


def in_two_types(model: type[VAE], arch: Any, **config: Any) -> VAE:
    """The encoder in float64, the decoder in float32."""
    vae = filled(model(arch, model.config_class(**config)))
    assert vae.decoder is not None
    vae.decoder.float()
    return vae


def test_each_half_has_its_type() -> None:
    """It computes what it computes in a VAE that is of its type as a whole."""
    vae, x, z = in_two_types(AutoencoderKL, KL), media("kl"), latent("kl").float()
    assert (vae.dtype, vae.half_dtype("encoder"), vae.half_dtype("decoder")) == (DOUBLE, DOUBLE, torch.float32)
    wide = filled(AutoencoderKL(KL))
    assert torch.equal(vae.encode(x).latent_dist.parameters, wide.encode(x).latent_dist.parameters)
    assert torch.equal(vae.decode(z).sample, wide.float().decode(z).sample)
    for call, given, expected, fix in (
        (vae.encode, x.float(), DOUBLE, "x.to(vae.dtype)"),
        (vae.decode, z.double(), torch.float32, "x.to(torch.float32)"),
        (vae.decode, z.int(), torch.float32, "scale it to [-1, 1] and convert it to torch.float32"),
    ):
        with pytest.raises(InputError) as refused:
            call(given)
        assert (refused.value.expected, refused.value.fix) == (expected, fix)


@pytest.mark.parametrize("sampled", [False, True])
def test_the_round_trip_changes_the_type(sampled: bool) -> None:
    vae, x = in_two_types(AutoencoderKL, KL), media("kl")
    one, two = (torch.Generator().manual_seed(3) for _ in range(2))
    posterior = vae.encode(x).latent_dist
    z = posterior.sample(one) if sampled else posterior.mode()
    assert torch.equal(vae(x, sampled, two).sample, vae.decode(z.float()).sample)


def test_streams_of_halves_of_different_types() -> None:
    vae, x, z = in_two_types(Wan, WAN), media("wan")[:1], latent("wan")[:1].float()
    found = torch.cat([posterior.mode() for posterior in vae.stream_encode(x.split(2, 2))], 2)
    assert difference(found, vae.encode(x).latent_dist.mode()) <= STREAMED
    pieces = torch.cat(list(vae.stream_decode(z.split(2, 2))), 2)
    assert pieces.dtype == torch.float32
    assert difference(pieces, vae.decode(z).sample) < 1e-4
    with pytest.raises(InputError, match="differ in type"):
        list(vae.stream_decode([z.double()]))
    with pytest.raises(InputError, match="differ in type"):
        list(vae.stream_encode([x.float()]))


@pytest.mark.parametrize("latents", ["raw", "normalized"])
def test_conditions_and_statistics_take_the_type_of_the_half(latents: str) -> None:
    """LTX: a timestep that the decoder knows, and statistics that belong to neither half."""
    vae, x, z = in_two_types(LTXVideo, LTX5, latents=latents), media("ltx5")[:1], latent("ltx5")[:1, :, :2].float()
    assert vae.normalizer.mean.dtype == DOUBLE
    wide = filled(LTXVideo(LTX5, LTXVideo.config_class(latents=latents)))
    mode = vae.encode(x).latent_dist.mode()
    assert torch.equal(mode, wide.encode(x).latent_dist.mode())
    assert torch.equal(vae.normalize(mode), wide.normalize(mode))
    assert vae.denormalize(z).dtype == torch.float32
    assert vae.decode(z).sample.dtype == torch.float32
    expected = wide.decode(z.double(), timestep=0.351).sample
    assert wide.encoder is not None
    wide.encoder.bfloat16()
    assert torch.equal(wide.decode(z.double(), timestep=0.351).sample, expected), "the timestep was rounded"


def test_weights_hash_sees_everything() -> None:
    """One bit of one weight, a name, a shape, a type."""
    torch.manual_seed(0)
    vae = AutoencoderKL(KL).requires_grad_(False)
    before = vae.weights_hash()
    assert before == vae.weights_hash()
    assert len(before) == 64
    weight = vae.decoder.conv_out.weight
    old = weight[0, 0, 0, 0].clone()
    weight[0, 0, 0, 0] = torch.nextafter(old, torch.tensor(9.0))
    assert vae.weights_hash() != before
    weight[0, 0, 0, 0] = old
    assert vae.weights_hash() == before
    for parameter in vae.parameters():
        parameter.zero_()
    assert vae.half().weights_hash() != vae.bfloat16().weights_hash(), "the same bytes, of another type"


def test_gradients_flow_through_both_halves() -> None:
    vae = native("wan")
    x = media("wan", (1, 3, 5, 8, 8)).requires_grad_()
    vae.decode(vae.encode(x).latent_dist.mode()).sample.sum().backward()
    assert x.grad.abs().amax((0, 1, 3, 4)).min() > 0


# Conditions of decoding.


def test_a_decoder_without_conditions_is_itself() -> None:
    vae = native("wan")
    assert vae.decoder_at() is vae.decoder
    assert vae.decoder_at(generator=torch.Generator().manual_seed(1)) is vae.decoder


@pytest.mark.parametrize("call", ["decode", "stream_decode", "decoder_at"])
def test_a_timestep_for_a_decoder_that_knows_none(call: str) -> None:
    vae, z = native("wan"), latent("wan")
    given: dict[str, tuple[Any, ...]] = {"decode": (z,), "stream_decode": ([z],), "decoder_at": ()}
    with pytest.raises(InputError, match="Wan's decoder knows no timestep") as refused:
        getattr(vae, call)(*given[call], timestep=0.05)
    assert (refused.value.found, refused.value.fix) == (0.05, "leave it out")


@pytest.mark.parametrize("timestep", [0.3, torch.tensor(0.3).double(), torch.tensor([0.3, 0.3]).double()])
def test_a_timestep_as_number_or_one_per_sample(timestep: float | torch.Tensor) -> None:
    vae, z = native("ltx5"), latent("ltx5")[:, :, :1]
    expected = vae.decode(z, timestep=torch.full((2, 1), 0.3)).sample
    assert difference(vae.decode(z, timestep=timestep).sample, expected) < 1e-4
    assert difference(vae.decode(z).sample, expected) > 1e-3


def test_streams_are_told_too() -> None:
    vae, z = native("ltx1"), latent("ltx1")[:, :, :2]
    one, two, other = (torch.Generator().manual_seed(seed) for seed in (5, 5, 6))
    whole = vae.decode(z, timestep=0.3, generator=one).sample
    pieces = torch.cat(list(vae.stream_decode(z.split(1, 2), timestep=0.3, generator=two)), 2)
    assert difference(pieces, whole) <= STREAMED
    assert difference(vae.decode(z, timestep=0.3, generator=other).sample, whole) > 1e-3


def test_noise_without_a_generator_follows_the_seed() -> None:
    vae, z = native("ltx1"), latent("ltx1")[:1, :, :1]
    samples = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        samples.append(vae.decode(z).sample)
    assert torch.equal(samples[0], samples[1])
    assert difference(samples[0], samples[2]) > 1e-3


# Noise that a decoder expects in its latents.


def inside(model: type[VAE], arch: Any) -> VAE:
    """With latents as the diffusion model sees them."""
    return filled(model(arch, VideoVAEConfig(latents="normalized")))


def test_official_noise_comes_before_the_statistics() -> None:
    vae, z, noise = native("ltx5"), latent("ltx5"), normal(*latent("ltx5").shape, seed=9)
    mean, std = (t.view(1, -1, 1, 1, 1) for t in (vae.normalizer.mean, vae.normalizer.std))
    found = vae.with_decode_noise(z, noise=noise)
    assert difference(found, (0.975 * z + 0.025 * noise) * std + mean) < 1e-14
    assert torch.equal(vae.with_decode_noise(z, noise=noise, order="official"), found)


def test_diffusers_noise_comes_after_them() -> None:
    vae, z, noise = native("ltx5"), latent("ltx5"), normal(*latent("ltx5").shape, seed=9)
    found = vae.with_decode_noise(z, noise=noise, order="diffusers")
    assert difference(found, 0.975 * vae.denormalize(z) + 0.025 * noise) < 1e-14
    assert difference(found, vae.with_decode_noise(z, noise=noise)) > 1e-3


def test_both_orders_agree_where_nothing_is_normalised() -> None:
    vae = LTXVideo(LTX5).double()
    z, noise = latent("ltx5"), normal(*latent("ltx5").shape, seed=9)
    found = [vae.with_decode_noise(z, noise=noise, order=order) for order in ("official", "diffusers")]  # type: ignore[arg-type]
    assert difference(*found) < 1e-15


def test_decode_noise_is_drawn_with_the_generator_at_any_scale() -> None:
    vae, z = native("ltx5"), latent("ltx5")
    one, two = (torch.Generator().manual_seed(5) for _ in range(2))
    drawn = torch.randn(z.shape, generator=one, dtype=torch.float64)
    assert torch.equal(vae.with_decode_noise(z, two), vae.with_decode_noise(z, noise=drawn))
    assert torch.equal(vae.with_decode_noise(z, noise=drawn, scale=0.0), vae.denormalize(z))
    assert difference(vae.with_decode_noise(z, noise=drawn, scale=1.0), vae.denormalize(drawn)) < 1e-15


def test_decode_noise_where_none_is_expected() -> None:
    vae, z = native("wan"), latent("wan")
    with pytest.raises(InputError, match="Wan's decoder expects no noise") as refused:
        vae.with_decode_noise(z)
    assert refused.value.fix == "use denormalize, or give a scale"
    noise = normal(*z.shape)
    assert difference(vae.with_decode_noise(z, noise=noise, scale=0.5), vae.denormalize(0.5 * z + 0.5 * noise)) < 1e-15


def test_noise_after_the_statistics_needs_raw_latents() -> None:
    vae, z = inside(LTXVideo, LTX5), latent("ltx5")
    noise = normal(*z.shape)
    with pytest.raises(InputError, match="noise cannot follow the normaliser where `decode` applies it") as refused:
        vae.with_decode_noise(z, order="diffusers")
    assert 'latents="raw"' in str(refused.value.fix)
    assert difference(vae.with_decode_noise(z, noise=noise), 0.975 * z + 0.025 * noise) < 1e-15


# Both conventions of latents.


@pytest.mark.parametrize(("name", "model", "arch"), [("wan", Wan, WAN), ("ltx1", LTXVideo, LTX1)])
def test_normalized_latents(name: str, model: type[VAE], arch: Any) -> None:
    """Encode gives, and decode takes, what the diffusion model sees; the networks compute the same."""
    raw, vae, x, z = native(name), inside(model, arch), media(name)[:1], latent(name)[:1]
    one, other = (v.encode(x).latent_dist for v in (raw, vae))
    assert type(one) is DiagonalGaussian
    assert isinstance(other, NormalizedGaussian)
    assert torch.equal(one.parameters, other.parameters)
    assert difference(other.mode(), raw.normalize(one.mode())) <= STREAMED
    assert difference(decoded(vae, z), decoded(raw, raw.denormalize(z))) <= STREAMED
    assert torch.equal(vae.normalize(z), z)
    assert torch.equal(vae.denormalize(z), z)


def test_normalized_latents_in_a_stream() -> None:
    vae, x, z = inside(Wan, WAN), media("wan")[:1], latent("wan")[:1]
    found = torch.cat([posterior.mode() for posterior in vae.stream_encode(x.split(2, 2))], 2)
    assert difference(found, vae.encode(x).latent_dist.mode()) <= STREAMED
    assert difference(torch.cat(list(vae.stream_decode(z.split(2, 2))), 2), vae.decode(z).sample) <= STREAMED


def test_where_nothing_is_normalised_both_are_the_same() -> None:
    oobleck = native("oobleck8")
    assert torch.equal(oobleck.normalize(latent("oobleck8")), latent("oobleck8"))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("kl", "-"),
        ("oobleck8", "exact"),
        ("wan2_2", "exact"),
        ("ltx1", "exact"),
        ("hunyuan_video", "layer-synchronous"),
    ],
)
def test_how_it_runs_along_time(name: str, told: str) -> None:
    assert native(name).streaming == told
