"""Keys, shapes and configs that do not fit: every one is named, and nothing is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import vaeport
from tests.narrow import MODELS
from tests.runtime.made import NAMES, beside, component, official_state, their_state, write_config
from vaeport.errors import ConfigError, CorruptFileError, KeyMismatchError, UnknownModelError, VaeportError
from vaeport.weights.autoencoder_kl import LDM

State = dict[str, Tensor]
BELONG = "check that config.json and the weights belong together"


def lacking(state: State, key: str) -> str:
    del state[key]
    return f"1 missing: {key}"


def with_more(state: State, key: str) -> str:
    state[f"{key}_more"] = torch.ones(2)
    return f"1 unexpected: {key}_more"


def misshapen(state: State, key: str) -> str:
    shape = list(state[key].shape)
    state[key] = torch.ones(*shape[:-1], shape[-1] + 1)
    return f"1 wrong shape: {key} {[*shape[:-1], shape[-1] + 1]} instead of {shape}"


def transposed(state: State, key: str) -> str:
    """As many values in another shape."""
    shape = list(state[key].shape)
    state[key] = state[key].reshape(1, *shape)
    return f"1 wrong shape: {key} {[1, *shape]} instead of {shape}"


FAULTS: list[Callable[[State, str], str]] = [lacking, with_more, misshapen, transposed]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", NAMES)
def test_one_key(tmp_path: Path, name: str, fault: Callable[[State, str], str]) -> None:
    state = their_state(name)
    key = sorted(key for key in state if key.startswith("decoder") and key.endswith(".bias"))[3]
    expected = fault(state, key)
    with pytest.raises(KeyMismatchError) as refused:
        vaeport.load(component(tmp_path, name, state))
    assert refused.value.what == "the weights do not fit the model"
    assert str(refused.value.where).startswith(f"{tmp_path}, read as ")
    assert refused.value.expected == "layout 'diffusers'"
    assert refused.value.found == expected
    assert refused.value.fix == BELONG
    assert refused.value.exit_code == 2


@pytest.mark.parametrize("half", ["encoder", "decoder"])
@pytest.mark.parametrize("fault", FAULTS)
def test_the_half_that_is_not_read_is_held_to_it_too(
    tmp_path: Path, half: str, fault: Callable[[State, str], str]
) -> None:
    state = their_state("kl")
    expected = fault(state, "encoder.conv_out.bias")
    with pytest.raises(KeyMismatchError) as refused:
        vaeport.load(component(tmp_path, "kl", state), load_encoder=half == "encoder", load_decoder=half == "decoder")
    assert refused.value.found == expected


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    state = their_state("kl")
    keys = [f"decoder.up_blocks.{i}.resnets.0.norm1.weight" for i in range(4)]
    gone, more, wrong, turned = (fault(state, key) for fault, key in zip(FAULTS, keys, strict=True))
    with pytest.raises(KeyMismatchError) as refused:
        vaeport.load(component(tmp_path, "kl", state))
    both = f"2 wrong shape: {wrong.removeprefix('1 wrong shape: ')}, {turned.removeprefix('1 wrong shape: ')}"
    assert refused.value.found == f"{gone}; {more}; {both}"


CONTRADICTIONS: list[tuple[str, dict[str, Any], str]] = [
    ("kl", {"latent_channels": 8}, "wrong shape"),
    ("kl", {"block_out_channels": [16, 16, 32, 64]}, "wrong shape"),
    ("kl", {"block_out_channels": [16, 16, 32], "down_block_types": ..., "up_block_types": ...}, "unexpected"),
    ("kl", {"layers_per_block": 3}, "missing"),
    ("kl", {"use_quant_conv": False}, "2 unexpected: quant_conv.bias, quant_conv.weight"),
    ("kl", {"mid_block_add_attention": False}, "20 unexpected: decoder.mid_block.attentions"),
    ("kl16", {"use_post_quant_conv": True}, "2 missing: post_quant_conv.weight, post_quant_conv.bias"),
    ("wan", {"base_dim": 16}, "wrong shape"),
    ("wan", {"temperal_downsample": [False, False, True]}, "unexpected"),
    ("oobleck", {"downsampling_ratios": [2, 4, 4, 8, 4]}, "wrong shape"),
    ("oobleck", {"audio_channels": 1}, "wrong shape"),
]


@pytest.mark.parametrize(("name", "changes", "found"), CONTRADICTIONS)
def test_a_config_that_contradicts_the_weights(tmp_path: Path, name: str, changes: dict[str, Any], found: str) -> None:
    with pytest.raises(KeyMismatchError) as refused:
        vaeport.load(component(tmp_path, name, **changes))
    assert found in str(refused.value.found)
    assert refused.value.fix == BELONG


def test_a_config_without_a_class(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        vaeport.load(component(tmp_path, "kl", _class_name=...))
    assert refused.value.what == "config.json does not say which model it configures"
    assert refused.value.where == tmp_path / "config.json"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("AutoencoderKLwan", "AutoencoderKLWan"),
        ("AutoEncoderKL", "AutoencoderKL"),
        ("AutoencoderOoblek", "AutoencoderOobleck"),
    ],
)
def test_an_unknown_class(tmp_path: Path, name: str, nearest: str) -> None:
    with pytest.raises(UnknownModelError) as refused:
        vaeport.load(component(tmp_path, "kl", _class_name=name))
    assert refused.value.what == f"no model is registered for `{name}`"
    assert refused.value.where == tmp_path / "config.json"
    assert str(refused.value.fix).startswith(f"did you mean {nearest}")
    assert all(known in str(refused.value.expected) for known in ("AutoencoderKL,", "AutoencoderKLWan,", "OobleckVAE"))


def test_nothing_near(tmp_path: Path) -> None:
    with pytest.raises(UnknownModelError) as refused:
        vaeport.load(component(tmp_path, "kl", _class_name="UNet2DConditionModel"))
    assert refused.value.fix == "port it, or install its package"


def test_a_known_class_name_with_another_architectures_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        vaeport.load(component(tmp_path, "wan", _class_name="AutoencoderKLMagvit", ch_mult=[1, 2]))
    what = "`AutoencoderKLMagvit` with this configuration is an architecture that is not in the library"
    assert refused.value.what == what
    assert refused.value.where == tmp_path / "config.json"
    assert refused.value.found == "not magvit: ch_mult: this is a configuration of EasyAnimate's own class"


def test_weights_of_wan_2_1_with_a_config_of_wan_2_2(tmp_path: Path) -> None:
    """One class name, two architectures: the config says which, and the weights say that it is wrong."""
    config = {"is_residual": True, "patch_size": 2, "in_channels": 12, "out_channels": 12}
    with pytest.raises(KeyMismatchError, match=r"(?s)wan2_2.*wan") as refused:
        vaeport.load(component(tmp_path, "wan", **config))
    assert "wan2_2" in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"act_fn": "gelu"}, "`act_fn` has a value that this architecture does not have"),
        ({"latent_channels": "4"}, "`latent_channels` has a value of the wrong type"),
        ({"norm_num_groups": 0}, "`norm_num_groups` must be positive"),
        ({"latents_mean": [0.0]}, "latents_mean must have one value per latent channel"),
    ],
)
def test_a_config_that_is_not_supported(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        vaeport.load(component(tmp_path, "kl", **changes))


def test_a_model_that_the_config_does_not_name(tmp_path: Path) -> None:
    folder = component(tmp_path, "kl")
    assert type(vaeport.load(folder, model="AutoencoderKL")).__name__ == "AutoencoderKL"
    with pytest.raises(ConfigError, match=r"config\.json is another model's") as refused:
        vaeport.load(folder, model="wan")
    assert (refused.value.expected, refused.value.found) == ("wan", "autoencoder_kl")


def test_official_keys_are_named_as_they_stand_in_the_file(tmp_path: Path) -> None:
    state = official_state("kl", LDM, "first_stage_model.")
    key = "first_stage_model.decoder.up.0.block.1.conv2.bias"
    expected = lacking(state, key)
    with pytest.raises(KeyMismatchError) as refused:
        vaeport.load(beside(tmp_path, "kl", "sd.safetensors", state))
    assert (refused.value.found, refused.value.expected) == (expected, "layout 'ldm'")


def truncated(folder: Path) -> None:
    file = folder / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def huge(folder: Path) -> None:
    file = folder / "diffusion_pytorch_model.safetensors"
    file.write_bytes(b"\xff" * 7 + b"\x7f" + file.read_bytes()[8:])


def cut_config(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(MODELS["kl"][1].to_published())[:-5])


def outside(folder: Path) -> None:
    (folder / "diffusion_pytorch_model.safetensors").rename(folder.parent / "w.safetensors")
    index = {"weight_map": dict.fromkeys(their_state("kl"), "../w.safetensors")}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))


def without_shard(folder: Path) -> None:
    state = their_state("kl")
    save_file(
        {k: t for k, t in state.items() if k[0] == "e"}, folder / "diffusion_pytorch_model-00001-of-00002.safetensors"
    )
    names = {k: f"diffusion_pytorch_model-0000{1 if k[0] == 'e' else 2}-of-00002.safetensors" for k in state}
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


@pytest.mark.parametrize(
    ("break_it", "error"),
    [
        (truncated, CorruptFileError),
        (huge, CorruptFileError),
        (cut_config, ConfigError),
        (outside, CorruptFileError),
        (without_shard, VaeportError),
    ],
)
def test_broken_folders(tmp_path: Path, break_it: Callable[[Path], None], error: type[VaeportError]) -> None:
    folder = component(tmp_path / "vae", "kl")
    break_it(folder)
    with pytest.raises(error) as refused:
        vaeport.load(folder)
    assert refused.value.exit_code == 2
    assert refused.value.where is not None


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(VaeportError, match="no such file or folder"):
        vaeport.load(tmp_path / "vae")
    with pytest.raises(VaeportError, match="no weights under a known name"):
        vaeport.load(write_config(tmp_path, MODELS["kl"][1].to_published()))
