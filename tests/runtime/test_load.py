"""Component folders that Diffusers wrote, in each of their forms, against what Diffusers reads from them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import vaeport
from tests.narrow import MODELS, weight_map
from tests.runtime.made import (
    NAMES,
    another,
    assert_same,
    beside,
    component,
    official_state,
    their_class,
    their_state,
    theirs,
)
from vaeport.errors import BlockedError, CheckpointError, ConfigError, InputError

DOUBLE = torch.float64
WEIGHTS = "diffusion_pytorch_model"


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A component folder of the KL model."""
    return component(tmp_path / "stored", "kl")


@pytest.mark.parametrize("name", NAMES)
def test_folder(tmp_path: Path, name: str) -> None:
    theirs(name).save_pretrained(tmp_path)
    assert_same(vaeport.load(tmp_path, dtype=DOUBLE), their_class(name).from_pretrained(tmp_path), name)


@pytest.mark.parametrize("name", NAMES)
def test_shards(tmp_path: Path, name: str) -> None:
    theirs(name).save_pretrained(tmp_path, max_shard_size="300KB")
    assert len(list(tmp_path.glob(f"{WEIGHTS}-*-of-*.safetensors"))) > 1
    reference = their_class(name).from_pretrained(tmp_path)
    assert_same(vaeport.load(tmp_path, dtype=DOUBLE), reference, name)
    assert_same(vaeport.load(tmp_path / f"{WEIGHTS}.safetensors.index.json", dtype=DOUBLE), reference, name)


@pytest.mark.parametrize("size", ["10GB", "300KB"], ids=["whole", "sharded"])
@pytest.mark.parametrize("name", NAMES)
def test_variant(tmp_path: Path, name: str, size: str) -> None:
    """Its weights are taken, and not those without a variant, which are others here."""
    theirs(name).save_pretrained(tmp_path)
    half = another(name).half()
    half.save_pretrained(tmp_path, variant="fp16", max_shard_size=size)
    vae = vaeport.load(tmp_path, variant="fp16")
    assert (vae.dtype, vae.config.variant) == (torch.float16, "fp16")
    assert_same(vae.double(), their_class(name).from_pretrained(tmp_path, variant="fp16"), name)
    assert vaeport.load(tmp_path).dtype == torch.float32


def test_a_variant_that_is_not_there(stored: Path) -> None:
    with pytest.raises(CheckpointError, match="the folder lacks this variant"):
        vaeport.load(stored, variant="fp16")


@pytest.mark.parametrize("name", NAMES)
def test_pipeline(tmp_path: Path, name: str) -> None:
    theirs(name).save_pretrained(tmp_path / "vae")
    (tmp_path / "model_index.json").write_text("{}")
    reference = their_class(name).from_pretrained(tmp_path, subfolder="vae")
    vae = vaeport.load(tmp_path, subfolder="vae", dtype=DOUBLE)
    assert_same(vae, reference, name)
    assert (vae.config.pretrained_path, vae.config.subfolder) == (str(tmp_path), "vae")
    with pytest.raises(CheckpointError) as refused:
        vaeport.load(tmp_path)
    assert refused.value.found == "component folders: vae"


@pytest.mark.parametrize("name", NAMES)
def test_the_weight_file_itself(tmp_path: Path, name: str) -> None:
    theirs(name).save_pretrained(tmp_path)
    reference = their_class(name).from_pretrained(tmp_path)
    assert_same(vaeport.load(tmp_path / f"{WEIGHTS}.safetensors", dtype=DOUBLE), reference, name)
    assert_same(vaeport.load(tmp_path, filename=f"{WEIGHTS}.safetensors", dtype=DOUBLE), reference, name)


@pytest.mark.parametrize("name", NAMES)
def test_pickled_folder(tmp_path: Path, name: str) -> None:
    theirs(name).save_pretrained(tmp_path, safe_serialization=False)
    assert (tmp_path / f"{WEIGHTS}.bin").exists()
    assert_same(vaeport.load(tmp_path, dtype=DOUBLE), their_class(name).from_pretrained(tmp_path), name)


@pytest.mark.parametrize("name", NAMES)
def test_what_comes_out(tmp_path: Path, name: str) -> None:
    vae = vaeport.load(component(tmp_path, name))
    model, arch = MODELS[name]
    assert type(vae) is model
    assert vae.arch == arch
    assert vae.dtype == torch.float32
    assert vae.device == torch.device("cpu")
    assert not any(module.training for module in vae.modules())
    assert not any(p.requires_grad or p.is_meta for p in vae.parameters())
    assert vae.state_dict().keys() == model(arch).state_dict().keys()


def test_keys_of_the_config_that_nobody_knows_are_kept(tmp_path: Path) -> None:
    vae = vaeport.load(component(tmp_path, "kl", _name_or_path="../vae", clip_output=True))
    assert vae.arch.extra == {"_name_or_path": "../vae", "clip_output": True}


@pytest.mark.parametrize(
    ("stored", "wanted", "found"),
    [
        (torch.float32, None, torch.float32),
        (torch.bfloat16, None, torch.bfloat16),
        (torch.float16, None, torch.float16),
        (DOUBLE, None, DOUBLE),
        (torch.float32, "bfloat16", torch.bfloat16),
        (torch.float32, torch.float16, torch.float16),
        (torch.bfloat16, torch.float32, torch.float32),
    ],
)
def test_dtype(tmp_path: Path, stored: torch.dtype, wanted: torch.dtype | str | None, found: torch.dtype) -> None:
    state = {key: tensor.to(stored) for key, tensor in their_state("kl").items()}
    vae = vaeport.load(component(tmp_path, "kl", state), dtype=wanted)
    assert {p.dtype for p in vae.parameters()} == {found}
    assert vae.config.dtype == (None if wanted is None else str(found).removeprefix("torch."))
    key = "encoder.conv_in.weight"
    assert torch.equal(vae.get_parameter(key), state[key].to(found))


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"encoder_dtype": "bfloat16"}, (torch.bfloat16, torch.float32)),
        ({"decoder_dtype": torch.bfloat16}, (torch.float32, torch.bfloat16)),
        ({"dtype": "float16", "decoder_dtype": "bfloat16"}, (torch.float16, torch.bfloat16)),
        ({"dtype": "bfloat16", "encoder_dtype": "float64"}, (DOUBLE, torch.bfloat16)),
    ],
)
def test_a_type_for_each_half(
    tmp_path: Path, given: dict[str, torch.dtype | str], found: tuple[torch.dtype, torch.dtype]
) -> None:
    """The weights are those of the file in these types, and the VAE computes with them."""
    vae = vaeport.load(component(tmp_path, "kl"), **given)  # type: ignore[arg-type]
    encoder, decoder = ({p.dtype for p in half.parameters()} for half in (vae.encoder, vae.decoder))  # type: ignore[union-attr]
    assert (encoder, decoder) == ({found[0]}, {found[1]})
    for half, dtype in zip(("encoder", "decoder"), found, strict=True):
        key = f"{half}.conv_in.weight"
        assert torch.equal(vae.get_parameter(key), their_state("kl")[key].to(dtype))
        name = getattr(vae.config, f"{half}_dtype")
        assert name == (str(dtype).removeprefix("torch.") if f"{half}_dtype" in given else None)
    assert vae.encode(torch.zeros(1, 3, 16, 16, dtype=found[0])).latent_dist.mode().dtype == found[0]
    assert vae(torch.zeros(1, 3, 16, 16, dtype=found[0])).sample.dtype == found[1]


def test_what_belongs_to_neither_half_holds_the_types_of_both(tmp_path: Path) -> None:
    """Statistics of latents, which an encoder in float32 would see rounded if they went with the decoder."""
    state = their_state("ltx1")
    state["latents_mean"] = torch.linspace(-1, 1, len(state["latents_mean"]))
    component(tmp_path, "ltx1", state)
    mean = state["latents_mean"]
    assert not torch.equal(mean, mean.bfloat16().float())
    both = vaeport.load(tmp_path, decoder_dtype="bfloat16")
    assert torch.equal(both.normalizer.mean, mean)  # type: ignore[union-attr]
    decoder = vaeport.load(tmp_path, decoder_dtype="bfloat16", load_encoder=False)
    assert torch.equal(decoder.normalizer.mean, mean.bfloat16())  # type: ignore[union-attr]


def test_weights_that_the_type_of_their_half_does_not_hold(tmp_path: Path) -> None:
    state = their_state("kl")
    state["decoder.conv_in.bias"][0] = 1e5
    folder = component(tmp_path, "kl", state)
    assert vaeport.load(folder, encoder_dtype="float16").half_dtype("encoder") == torch.float16
    with pytest.raises(CheckpointError, match=r"weights overflow in torch\.float16"):
        vaeport.load(folder, decoder_dtype="float16")


def test_a_type_of_a_half_that_no_vae_runs_in(stored: Path) -> None:
    with pytest.raises(ConfigError, match="a VAE does not run in this type") as refused:
        vaeport.load(stored, decoder_dtype="int8")
    assert refused.value.found == "int8"


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        (torch.float32, torch.bfloat16, torch.float32),
        (torch.float16, torch.bfloat16, torch.float32),
        (torch.float16, DOUBLE, DOUBLE),
    ],
)
def test_mixed_dtypes(tmp_path: Path, first: torch.dtype, second: torch.dtype, found: torch.dtype) -> None:
    """All weights get the least type that holds every one of them, so that nothing is rounded."""
    state = their_state("kl")
    state = {key: tensor.to(second if "norm" in key else first) for key, tensor in state.items()}
    vae = vaeport.load(component(tmp_path, "kl", state))
    assert {p.dtype for p in vae.parameters()} == {found}
    key = "decoder.conv_norm_out.weight"
    assert torch.equal(vae.get_parameter("decoder.norm_out.weight").double(), state[key].double())


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8, torch.int64])
@pytest.mark.parametrize("wanted", [None, "float32"])
def test_quantised_weights_are_refused(tmp_path: Path, dtype: torch.dtype, wanted: str | None) -> None:
    state = their_state("kl")
    state["decoder.conv_in.weight"] = state["decoder.conv_in.weight"].to(dtype)
    with pytest.raises(CheckpointError, match="stored in a type that a VAE does not run in") as refused:
        vaeport.load(component(tmp_path, "kl", state), dtype=wanted)
    assert refused.value.found == f"1 of {len(state)}: decoder.conv_in.weight {dtype}"


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "int8", torch.complex64, "load", "half precision"])
def test_a_type_that_no_vae_runs_in(stored: Path, dtype: torch.dtype | str) -> None:
    with pytest.raises(ConfigError, match="a VAE does not run in this type") as refused:
        vaeport.load(stored, dtype=dtype)
    assert refused.value.found == dtype


@pytest.mark.parametrize("sign", [1, -1])
def test_weights_that_float16_does_not_hold(tmp_path: Path, sign: int) -> None:
    state = their_state("kl")
    state["encoder.mid_block.attentions.0.to_k.weight"][3, 4] = sign * 1e5
    folder = component(tmp_path, "kl", state)
    assert vaeport.load(folder, dtype="bfloat16").dtype == torch.bfloat16
    with pytest.raises(CheckpointError, match=r"weights overflow in torch\.float16") as refused:
        vaeport.load(folder, dtype="float16")
    file = folder / f"{WEIGHTS}.safetensors"
    assert refused.value.where == f"{file}: encoder.mid_block.attentions.0.to_k.weight"
    assert f"{sign * 100000:g}" in str(refused.value.found)
    state["encoder.mid_block.attentions.0.to_k.weight"][3, 4] = sign * 65504
    assert vaeport.load(component(tmp_path, "kl", state), dtype="float16").dtype == torch.float16


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(
    "key", ["decoder.up_blocks.1.resnets.0.conv1.bias", "decoder.mid_block.attentions.0.to_v.bias"]
)
def test_weights_that_are_not_finite(tmp_path: Path, key: str, value: str) -> None:
    """The error names the file's own key, also where several make up one native weight, and the shard it is in."""
    state = their_state("kl")
    state[key][1] = float(value)
    with pytest.raises(CheckpointError, match="weights are not finite") as refused:
        vaeport.load(component(tmp_path, "kl", state))
    assert refused.value.where == f"{tmp_path / WEIGHTS}.safetensors: {key}"
    assert vaeport.load(tmp_path, load_decoder=False).decoder is None, "what is not read is not checked"


def test_device(stored: Path) -> None:
    assert vaeport.load(stored, device=torch.device("cpu")).device == torch.device("cpu")
    with pytest.raises(ConfigError, match="no such kind of device") as unknown:
        vaeport.load(stored, device="gpu")
    assert unknown.value.found == "'gpu'"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has what is asked for")
def test_a_device_that_is_not_there(tmp_path: Path) -> None:
    """It is tried out before anything is read."""
    with pytest.raises(BlockedError, match="the device cannot be used") as refused:
        vaeport.load(tmp_path / "missing", device="cuda")
    assert refused.value.exit_code == 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu(stored: Path) -> None:
    vae = vaeport.load(stored, device="cuda", dtype="bfloat16")
    assert {(p.device.type, p.dtype) for p in vae.parameters()} == {("cuda", torch.bfloat16)}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_half_loaded(tmp_path: Path, name: str, half: str) -> None:
    """It has the one half's weights and no others, and works like that half of the whole."""
    component(tmp_path, name)
    whole = vaeport.load(tmp_path)
    options = {"load_encoder": half == "encoder", "load_decoder": half == "decoder"}
    vae = vaeport.load(tmp_path, **options)
    assert getattr(vae, half) is not None
    wanted = {key: value for key, value in whole.state_dict().items() if key.startswith(half)}
    assert vae.state_dict().keys() == wanted.keys()
    assert all(torch.equal(vae.state_dict()[key], value) for key, value in wanted.items())
    count = sum(p.numel() for p in vae.parameters())
    assert count == sum(p.numel() for p in getattr(whole, half).parameters())
    assert 0 < count < 0.9 * sum(p.numel() for p in whole.parameters())
    assert (vae.config.load_encoder, vae.config.load_decoder) == (half == "encoder", half == "decoder")


def test_the_half_that_is_not_there_is_named(stored: Path) -> None:
    decoder = vaeport.load(stored, load_encoder=False)
    with pytest.raises(InputError, match="loaded without its encoder") as refused:
        decoder.encode(torch.zeros(1, 3, 16, 16))
    assert refused.value.fix == "load it with load_encoder=True"
    encoder = vaeport.load(stored, load_decoder=False)
    with pytest.raises(InputError, match="loaded without its decoder"):
        encoder.decode(torch.zeros(1, 4, 2, 2))
    with pytest.raises(InputError, match="loaded without its decoder"):
        encoder(torch.zeros(1, 3, 16, 16))
    with pytest.raises(ConfigError, match="both False"):
        vaeport.load(stored, load_encoder=False, load_decoder=False)


def test_a_file_may_lack_the_half_that_is_not_wanted(tmp_path: Path) -> None:
    """All of it, not some: a file with holes is refused whatever is wanted of it."""
    state = their_state("kl")
    decoder = {key: t for key, t in state.items() if key.startswith(("decoder.", "post_quant_conv."))}
    vae = vaeport.load(component(tmp_path, "kl", decoder), load_encoder=False)
    assert torch.equal(vae.get_parameter("decoder.conv_in.bias"), state["decoder.conv_in.bias"])
    with pytest.raises(CheckpointError, match="missing"):
        vaeport.load(tmp_path)
    del state["encoder.conv_in.bias"]
    with pytest.raises(CheckpointError, match=r"1 missing: encoder\.conv_in\.bias"):
        vaeport.load(component(tmp_path, "kl", state), load_encoder=False)


def test_old_attention_names(tmp_path: Path) -> None:
    """SD 1.5's own VAE has them, and Diffusers still reads them."""
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = their_state("kl")
    for new, old in names.items():
        state = {key.replace(f"attentions.0.{new}.", f"attentions.0.{old}."): t for key, t in state.items()}
    assert sum("attentions.0.query" in key for key in state) == 4
    component(tmp_path, "kl", state)
    assert_same(vaeport.load(tmp_path, dtype=DOUBLE), their_class("kl").from_pretrained(tmp_path), "kl")


def with_new_weight_norm() -> torch.nn.Module:
    """Diffusers' model with torch's present weight norm in the place of the former, whose keys torch reads in."""
    model = another("oobleck")
    for module in list(model.modules()):
        if hasattr(module, "weight_g"):
            torch.nn.utils.remove_weight_norm(module)
            torch.nn.utils.parametrizations.weight_norm(module)
    model.load_state_dict(their_state("oobleck"))
    return model


@pytest.mark.parametrize("layout", ["diffusers", "stable-audio-tools"])
def test_new_weight_norm_names(tmp_path: Path, layout: str) -> None:
    """What torch itself calls the parts of a weight norm nowadays."""
    state = dict(with_new_weight_norm().state_dict())
    assert sum(key.endswith("parametrizations.weight.original1") for key in state) == 74
    if layout != "diffusers":
        named = official_state("oobleck", weight_map(MODELS["oobleck"][0]).OFFICIAL)
        pairs = {".weight_g": ".parametrizations.weight.original0", ".weight_v": ".parametrizations.weight.original1"}
        for old, new in pairs.items():
            named = {key.removesuffix(old) + new if key.endswith(old) else key: t for key, t in named.items()}
        state = named
    file = beside(tmp_path, "oobleck", "model.safetensors", {k: t.contiguous() for k, t in state.items()})
    theirs("oobleck").save_pretrained(tmp_path / "old")
    assert_same(vaeport.load(file, dtype=DOUBLE), their_class("oobleck").from_pretrained(tmp_path / "old"), "oobleck")


def test_weights_stay_as_they_are_on_disk(stored: Path) -> None:
    """Weights are mapped privately: changing a loaded model never changes its file."""
    file = stored / f"{WEIGHTS}.safetensors"
    before = file.read_bytes()
    vae = vaeport.load(stored)
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.zero_()
    assert file.read_bytes() == before
    assert vaeport.load(stored).get_parameter("encoder.conv_in.weight").abs().sum() > 0


def test_two_shards_of_one_weight_are_refused(tmp_path: Path) -> None:
    theirs("kl").save_pretrained(tmp_path, max_shard_size="300KB")
    first, second, *_ = sorted(tmp_path.glob("*.safetensors"))
    state = load_file(second)
    key, value = next(iter(load_file(first).items()))
    save_file({**state, key: value}, second)
    with pytest.raises(CheckpointError, match="two shards hold the same tensor"):
        vaeport.load(tmp_path)
