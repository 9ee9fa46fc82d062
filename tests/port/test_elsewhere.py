"""Native modules of other trees, seen as VAEs: Diffusers' classes stand for such a tree."""

from __future__ import annotations

import pytest
import torch

from tests.narrow import KL16, OOBLECK8, reference
from vaeport.errors import ProofError
from vaeport.mapping import plan
from vaeport.port.elsewhere import native_at
from vaeport.proof.sides import NativeSide
from vaeport.vae import VAE


def arguments() -> dict[str, object]:
    return {key: value for key, value in KL16.to_published().items() if key != "_class_name"}


def test_a_module_becomes_a_vae_with_its_probed_contract() -> None:
    registration = native_at("diffusers:AutoencoderKL", arguments())
    model = registration.model
    (arch,) = model.variants.values()
    vae = model(arch)
    assert isinstance(vae, VAE)
    assert vae.contract.latent_channels == 16
    assert [a.multiple for a in vae.contract.axes] == [8, 8]
    assert vae.contract.scale == pytest.approx((0.3611,) * 16)
    assert vae.contract.shift == pytest.approx((0.1159,) * 16)
    assert model.__name__ == "AutoencoderKL"


def test_it_runs_the_modules_own_code() -> None:
    registration = native_at("diffusers:AutoencoderKL", arguments())
    (arch,) = registration.model.variants.values()
    vae, theirs = registration.model(arch).eval(), reference(KL16)
    vae.load_state_dict({f"inner.{key}": value for key, value in theirs.state_dict().items()})
    x, z = torch.rand(1, 3, 16, 24) * 2 - 1, torch.randn(1, 16, 2, 3)
    assert torch.equal(vae.encode(x).latent_dist.parameters, theirs.encode(x).latent_dist.parameters)
    assert torch.equal(vae.decode(z).sample, theirs.decode(z).sample)
    torch.testing.assert_close(vae.denormalize(vae.normalize(z)), z)


def test_its_files_have_its_own_names() -> None:
    registration = native_at("diffusers:AutoencoderOobleck", OOBLECK8.to_published())
    (arch,) = registration.model.variants.values()
    vae = registration.model(arch)
    native = {key: tuple(value.shape) for key, value in vae.state_dict().items()}
    stored = {key.removeprefix("inner."): shape for key, shape in native.items()}
    assert all(key.startswith("inner.") for key in native)
    assert plan(registration.layouts[0], native, stored).fits
    files = NativeSide("there", lambda: vae, lambda path: vae).describe()["files"]
    assert any(name.endswith("autoencoder_oobleck.py") for name in files)


def test_a_class_of_the_library_is_taken_as_it_is() -> None:
    registration = native_at("vaeport.models.wan:Wan", {})
    assert registration.model.__module__ == "vaeport.models.wan"


def test_a_module_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(ProofError, match="no call of encode and decode succeeds"):
        native_at("torch.nn:Identity", {})
