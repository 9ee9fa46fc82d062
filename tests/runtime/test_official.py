"""Official single files at narrow width, a config.json beside them, against what Diffusers' own converters read.

Oobleck has no such converter; the golden captures hold its official layout against the official class.
"""

from __future__ import annotations

import pickle
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import vaeport
from tests.runtime.made import assert_same, beside, official_state, their_class, write_config
from vaeport.errors import ConfigError, KeyMismatchError, UnsafePickleError
from vaeport.weights.autoencoder_kl import LDM
from vaeport.weights.oobleck import OFFICIAL as STABLE_AUDIO
from vaeport.weights.wan import OFFICIAL as WAN

DOUBLE = torch.float64
POSITIONS = {"cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None]}
SD = {
    **POSITIONS,
    "model.diffusion_model.input_blocks.0.0.weight": torch.ones(4, 3, 3, 3),
    "model_ema.decay": torch.tensor(0.9999),
    "model_ema.diffusion_modelinput_blocks00weight": torch.ones(4, 3, 3, 3),
    "alphas_cumprod": torch.ones(1000),
}
TRAINING = {
    "loss.logvar": torch.tensor(0.0),
    "loss.discriminator.main.3.num_batches_tracked": torch.tensor(7),
    "loss.perceptual_loss.net.slice1.0.weight": torch.ones(4, 3, 3, 3),
    "model_ema.num_updates": torch.tensor(7),
}
STABLE = {
    "model.model.preprocess_conv.weight": torch.ones(2, 2, 1),
    "conditioner.conditioners.seconds_total.embedder.embedding.0.weights": torch.ones(2),
}
FILES: list[Any] = [
    pytest.param("kl", "v1-5-pruned.safetensors", LDM, "first_stage_model.", SD, id="sd"),
    pytest.param("kl", "v1-5-pruned.ckpt", LDM, "first_stage_model.", SD, id="sd-ckpt"),
    pytest.param("kl", "vae-ft-mse-840000.ckpt", LDM, "", TRAINING, id="sd-vae-trained"),
    pytest.param("kl16", "ae.safetensors", LDM, "", {}, id="flux"),
    pytest.param(
        "kl16", "flux1-dev-all.safetensors", LDM, "vae.", {"model.diffusion_model.img_in.bias": torch.ones(8)}
    ),
    pytest.param("wan", "Wan2.1_VAE.pth", WAN, "", {}, id="wan"),
]


def saved(folder: Path, name: str, file: str, state: dict[str, Tensor]) -> Path:
    """The file, and for `.ckpt` the state under `state_dict`, as Lightning saves it."""
    if not file.endswith(".ckpt"):
        return beside(folder, name, file, state)
    path = beside(folder, name, file, {})
    torch.save({"state_dict": state, "epoch": 3, "global_step": 1000, "lr_schedulers": []}, path)
    return path


def reference(name: str, file: Path) -> Any:
    return their_class(name).from_single_file(str(file), config=str(file.parent), local_files_only=True)


@pytest.mark.parametrize(("name", "file", "layout", "prefix", "others"), FILES)
def test_official(tmp_path: Path, name: str, file: str, layout: Any, prefix: str, others: dict[str, Tensor]) -> None:
    path = saved(tmp_path, name, file, {**official_state(name, layout, prefix), **others})
    assert_same(vaeport.load(path, dtype=DOUBLE), reference(name, path), name)


@pytest.mark.parametrize(
    ("prefix", "others"),
    [("pretransform.model.", STABLE), ("autoencoder.", {"discriminator.w": torch.ones(1)}), ("", {})],
)
def test_stable_audio(tmp_path: Path, prefix: str, others: dict[str, Tensor]) -> None:
    """Two official forms and Diffusers' own folder give one VAE."""
    state = official_state("oobleck", STABLE_AUDIO, prefix)
    path = beside(tmp_path, "oobleck", "model.safetensors", {**state, **others})
    folder = tmp_path / "diffusers"
    vae = vaeport.load(path)
    vae.save(folder)
    assert_same(vae.double(), their_class("oobleck").from_pretrained(folder), "oobleck")


def test_bfloat16_flux(tmp_path: Path) -> None:
    """`ae.safetensors` is published in float32, and by others in bfloat16."""
    state = {key: tensor.bfloat16() for key, tensor in official_state("kl16", LDM).items()}
    path = beside(tmp_path, "kl16", "ae.safetensors", state)
    vae = vaeport.load(path)
    assert vae.dtype == torch.bfloat16
    assert_same(vae.double(), reference("kl16", path), "kl16")


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_half_of_a_pipeline(tmp_path: Path, half: str) -> None:
    path = saved(tmp_path, "kl", "v1-5-pruned.ckpt", {**official_state("kl", LDM, "first_stage_model."), **SD})
    whole = vaeport.load(path)
    vae = vaeport.load(path, load_encoder=half == "encoder", load_decoder=half == "decoder")
    expected = {key: t for key, t in whole.state_dict().items() if key.startswith(half)}
    assert vae.state_dict().keys() == expected.keys()
    assert all(torch.equal(t, expected[key]) for key, t in vae.state_dict().items())


def test_other_models_in_the_file_may_be_quantised(tmp_path: Path) -> None:
    """What is not the VAE's is neither read nor judged."""
    others = {"model.diffusion_model.double_blocks.0.weight": torch.ones(4).to(torch.float8_e4m3fn)}
    others["model.diffusion_model.broken"] = torch.full((4,), float("nan"))
    path = beside(tmp_path, "kl16", "flux1-dev-fp8.safetensors", {**official_state("kl16", LDM, "vae."), **others})
    assert vaeport.load(path).dtype == torch.float32


def test_a_key_too_many_within_the_prefix(tmp_path: Path) -> None:
    state = official_state("kl", LDM, "first_stage_model.")
    state["first_stage_model.encoder.down.0.attn.0.q.weight"] = torch.ones(16, 16, 1, 1)
    path = saved(tmp_path, "kl", "sd.ckpt", {**state, **SD})
    with pytest.raises(KeyMismatchError) as refused:
        vaeport.load(path)
    assert refused.value.found == "1 unexpected: first_stage_model.encoder.down.0.attn.0.q.weight"
    assert refused.value.expected == "layout 'ldm'"


class ModelCheckpoint:
    """Stands in for Lightning's callback, whose class the published `.ckpt` files name."""


def test_code_in_the_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first Stable Diffusion files hold Lightning's objects: they are named, and nothing of theirs is imported."""
    name = "pytorch_lightning.callbacks.model_checkpoint"
    lightning = types.ModuleType(name)
    lightning.ModelCheckpoint = ModelCheckpoint  # type: ignore[attr-defined]
    monkeypatch.setattr(ModelCheckpoint, "__module__", name)
    with monkeypatch.context() as patch:
        for parent in ("pytorch_lightning", "pytorch_lightning.callbacks"):
            patch.setitem(sys.modules, parent, types.ModuleType(parent))
        patch.setitem(sys.modules, name, lightning)
        path = beside(tmp_path, "kl", "sd-v1-4.ckpt", {})
        state = official_state("kl", LDM, "first_stage_model.")
        torch.save({"state_dict": state, "callbacks": {ModelCheckpoint: {"best": 1}}}, path)
    with pytest.raises(UnsafePickleError) as refused:
        vaeport.load(path)
    assert f"{name}.ModelCheckpoint" in str(refused.value.found)
    assert "safetensors" in str(refused.value.fix)
    assert name not in sys.modules


def test_code_that_would_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    path = beside(tmp_path, "kl", "bad.ckpt", {})
    path.write_bytes(pickle.dumps({"state_dict": {}, "x": Bomb()}))
    with pytest.raises(UnsafePickleError):
        vaeport.load(path)
    assert not (tmp_path / "ran").exists()


def test_another_models_config_beside_an_official_file(tmp_path: Path) -> None:
    """It does not count, and the narrow weights fit no published configuration; the error says what is not known."""
    path = beside(tmp_path, "wan", "Wan2.1_VAE.pth", official_state("wan", WAN))
    write_config(tmp_path, {"_class_name": "WanModel", "dim": 1536})
    with pytest.raises(ConfigError, match="fit wan, but no published configuration of it") as refused:
        vaeport.load(path)
    assert "latents_mean, latents_std" in str(refused.value.expected)
    assert "base_dim 8, dim_mult (1, 2, 4, 4)" in str(refused.value.found)
