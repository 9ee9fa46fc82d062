"""What the base class refuses, with its words, and what it says of itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.narrow import KL, WAN, latent, media, native
from vaeport.configs import ImageVAEConfig, VideoVAEConfig
from vaeport.errors import InputError
from vaeport.models.autoencoder_kl import AutoencoderKL
from vaeport.models.wan import Wan

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
