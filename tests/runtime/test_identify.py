"""Which architecture a file without a config is, from the official keys and shapes at full width.

The files hold zeros that take no space on disk; their keys and shapes are those that were captured from the official
classes, under the prefixes and among the other models' keys that published files have.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

import vaeport
from tests.runtime.made import official, sparse, write_config
from tests.weights.laws import diffusers_shapes
from vaeport.checkpoint import open_checkpoint
from vaeport.errors import ConfigError, KeyMismatchError, UnknownModelError
from vaeport.models.autoencoder_kl import AutoencoderKL
from vaeport.models.wan import Wan, WanArchConfig
from vaeport.registry import ModelRegistry
from vaeport.runtime.identify import Candidate, identify

Shapes = Mapping[str, tuple[int, ...]]
CLIP = {"cond_stage_model.transformer.text_model.embeddings.position_ids": (1, 77)}
OPEN_CLIP = {"cond_stage_model.model.ln_final.weight": (1024,)}
XL = {
    "conditioner.embedders.0.transformer.text_model.embeddings.position_ids": (1, 77),
    "conditioner.embedders.1.model.ln_final.weight": (1280,),
}
MMDIT = {"model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight": (4, 4)}
UNET = {"model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3), "model_ema.decay": ()}
TRAINING = {"loss.logvar": (), "loss.discriminator.main.0.weight": (64, 3, 4, 4), "model_ema.num_updates": ()}
AUDIO = {"model.model.preprocess_conv.weight": (64, 64, 1), "conditioner.conditioners.prompt.proj.bias": (8,)}
Z4 = official("ldm_sd1", "")
Z16 = official("flux1", "")


def sd(prefix: str = "first_stage_model.") -> Shapes:
    return official("ldm_sd1", prefix)


def found(path: Path, entries: Shapes, dtype: torch.dtype = torch.float32, **options: str) -> Candidate:
    with open_checkpoint(sparse(path, entries, dict.fromkeys(entries, dtype))) as checkpoint:
        return identify(checkpoint, **options)


@pytest.mark.parametrize(
    ("name", "entries", "model", "variant"),
    [
        ("v1-5-pruned.safetensors", {**sd(), **CLIP, **UNET}, "autoencoder_kl", "sd1"),
        ("v2-1_768.safetensors", {**sd(), **OPEN_CLIP, **UNET}, "autoencoder_kl", "sd2"),
        ("sd_xl_base_1.0.safetensors", {**sd(), **XL, **UNET}, "autoencoder_kl", "sdxl"),
        ("sd3_medium.safetensors", {**official("flux1", "first_stage_model."), **MMDIT}, "autoencoder_kl", "sd3"),
        ("ae.safetensors", Z16, "autoencoder_kl", "flux1"),
        ("Wan2_1_VAE_bf16.safetensors", official("wan2_1", ""), "wan", "wan2.1"),
        ("diffusion_pytorch_model.safetensors", diffusers_shapes(WanArchConfig()), "wan", "wan2.1"),
        ("model.safetensors", {**official("stable_audio_2_0", "pretransform.model."), **AUDIO}, "oobleck", None),
        ("vae.safetensors", official("stable_audio_2_0", ""), "oobleck", None),
        ("trained.safetensors", official("stable_audio_2_0", "autoencoder."), "oobleck", None),
    ],
)
def test_published_files(tmp_path: Path, name: str, entries: Shapes, model: str, variant: str | None) -> None:
    candidate = found(tmp_path / name, entries)
    registration = candidate.registration
    assert registration.name == model
    assert candidate.variant == (variant or "stable-audio-open-1.0")
    assert candidate.arch == registration.model.variants[candidate.variant]
    used = {key for step in candidate.plan.steps for key in step.stored}
    prefix = candidate.plan.prefix
    assert used == {key for key in entries if key.startswith(prefix)}


AMBIGUOUS = [
    ("vae-ft-mse-840000-ema-pruned.safetensors", {**Z4, **TRAINING}, ["sd1", "sd2", "sdxl"]),
    ("sdxl_vae.safetensors", Z4, ["sd1", "sd2", "sdxl"]),
    ("first_stage_only.safetensors", {**sd(), **UNET}, ["sd1", "sd2", "sdxl"]),
    ("flux1-dev-all.safetensors", official("flux1", "vae."), ["flux1", "sd3"]),
    ("converted.safetensors", diffusers_shapes(AutoencoderKL.variants["sdxl"]), ["sd1", "sd2", "sdxl"]),
]


@pytest.mark.parametrize(("name", "entries", "variants"), AMBIGUOUS)
def test_constants_that_no_key_tells(tmp_path: Path, name: str, entries: Shapes, variants: list[str]) -> None:
    """Latents of the wrong scale would follow from a guess, so there is none; each of those offered is taken."""
    with pytest.raises(ConfigError, match="fit several published configurations") as refused:
        found(tmp_path / name, entries)
    assert refused.value.found == ", ".join(f"autoencoder_kl {variant}" for variant in variants)
    assert "model_variant=" in str(refused.value.fix)
    for variant in variants:
        candidate = found(tmp_path / name, entries, model_variant=variant)
        assert candidate.arch == AutoencoderKL.variants[variant]


def test_a_config_beside_the_file_tells(tmp_path: Path) -> None:
    write_config(tmp_path, AutoencoderKL.variants["sdxl"].to_published())
    candidate = found(tmp_path / "sdxl_vae.safetensors", Z4)
    assert candidate.arch.scaling_factor == 0.13025
    assert found(tmp_path / "sdxl_vae.safetensors", Z4, model_variant="sd1").arch.scaling_factor == 0.18215


def test_what_is_asked_for_overrules_marks(tmp_path: Path) -> None:
    candidate = found(tmp_path / "a.safetensors", {**sd(), **CLIP}, model_variant="sdxl")
    assert candidate.arch == AutoencoderKL.variants["sdxl"]


def test_what_is_asked_for_must_fit(tmp_path: Path) -> None:
    with pytest.raises(KeyMismatchError) as refused:
        found(tmp_path / "ae.safetensors", Z16, model_variant="sd1")
    assert refused.value.where == f"{tmp_path / 'ae.safetensors'}, read as autoencoder_kl sd1"
    assert "4 missing: quant_conv.weight" in str(refused.value.found)
    assert "3 wrong shape" in str(refused.value.found)
    assert "decoder.conv_in.weight [512, 16, 3, 3] instead of [512, 4, 3, 3]" in str(refused.value.found)
    with pytest.raises(KeyMismatchError, match="read as oobleck stable-audio-open"):
        found(tmp_path / "ae.safetensors", Z16, model="oobleck")


def test_names_that_nobody_knows(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no published configuration is called `sd15`") as refused:
        found(tmp_path / "a.safetensors", Z4, model_variant="sd15")
    known = [variant for one in ModelRegistry.registrations() for variant in one.model.variants]
    assert refused.value.expected == f"one of {', '.join(known)}"
    assert {"sd1", "wan2.1"} <= set(known)
    with pytest.raises(UnknownModelError) as unknown:
        found(tmp_path / "a.safetensors", Z4, model="autoencoderkl")
    assert str(unknown.value.fix).startswith("did you mean ")
    assert "autoencoder_kl" in str(unknown.value.fix)


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(UnknownModelError, match="no registered architecture has these keys") as refused:
        found(tmp_path / "lora.safetensors", {"lora_unet_down.lora_up.weight": (320, 4), "alpha": ()})
    assert refused.value.where == tmp_path / "lora.safetensors"
    assert "vaeport inspect" in str(refused.value.fix)


def test_half_a_file(tmp_path: Path) -> None:
    """The error tells what is missing of the architecture that is nearest."""
    some = dict(sorted(official("wan2_1", "").items())[:-1])
    with pytest.raises(KeyMismatchError) as refused:
        found(tmp_path / "Wan2.1_VAE.safetensors", some)
    assert refused.value.where == f"{tmp_path / 'Wan2.1_VAE.safetensors'}, read as wan wan2.1"
    assert refused.value.found == "1 missing: " + sorted(official("wan2_1", ""))[-1]


def test_the_transformers_config_beside_wans_file(tmp_path: Path) -> None:
    """In Wan 2.1's repository `config.json` is that of the transformer."""
    write_config(tmp_path, {"_class_name": "WanModel", "_diffusers_version": "0.30.0", "dim": 5120, "in_dim": 16})
    candidate = found(tmp_path / "Wan2.1_VAE.safetensors", official("wan2_1", ""))
    assert candidate.registration.model is Wan
    with pytest.raises(UnknownModelError, match="no model is registered for `WanModel`"):
        found(tmp_path / "diffusion_pytorch_model.safetensors", diffusers_shapes(WanArchConfig()))
    (tmp_path / "Wan2.1_VAE.safetensors").unlink()
    with pytest.raises(UnknownModelError, match="no model is registered for `WanModel`"):
        vaeport.load(tmp_path)


def test_a_folder_without_config(tmp_path: Path) -> None:
    file = sparse(tmp_path / "diffusion_pytorch_model.safetensors", diffusers_shapes(WanArchConfig()))
    for path, options in ((tmp_path, {"model": "wan"}), (tmp_path, {"model_variant": "wan2.1"}), (file, {})):
        with open_checkpoint(path) as checkpoint:
            assert identify(checkpoint, **options).registration.model is Wan
    with open_checkpoint(tmp_path) as checkpoint, pytest.raises(ConfigError) as refused:
        identify(checkpoint)
    assert refused.value.what == "the folder has no config.json"
    assert "model=" in str(refused.value.fix)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_stored_types_do_not_matter(tmp_path: Path, dtype: torch.dtype) -> None:
    assert found(tmp_path / "ae.safetensors", Z16, dtype).variant == "flux1"


def test_published_width_is_loaded(tmp_path: Path) -> None:
    """FLUX's file in bfloat16, without a config: the one name is enough."""
    file = sparse(tmp_path / "ae.safetensors", Z16, dict.fromkeys(Z16, torch.bfloat16))
    vae = vaeport.load(file, load_encoder=False)
    assert vae.arch == AutoencoderKL.variants["flux1"]
    assert vae.dtype == torch.bfloat16
    assert sum(p.numel() for p in vae.parameters()) == 49_545_475
    z = torch.ones(1, 16, 1, 1).bfloat16()
    assert vae.decode(vae.denormalize(z)).sample.shape == (1, 3, 8, 8)
