"""What is saved is what was loaded, bit for bit, and Diffusers reads it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import vaeport
from tests.narrow import MODELS
from tests.runtime.made import NAMES, assert_same, beside, component, listing, official_state, their_class, their_state
from vaeport.errors import ConfigError, InputError, UnknownModelError
from vaeport.models.autoencoder_kl import AutoencoderKL
from vaeport.vae import VAE
from vaeport.weights.autoencoder_kl import LDM
from vaeport.weights.wan import OFFICIAL as WAN

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def assert_bit_equal(found: VAE, expected: VAE) -> None:
    assert type(found) is type(expected)
    assert found.arch == expected.arch
    theirs, ours = expected.state_dict(), found.state_dict()
    assert list(ours) == list(theirs)
    for key, value in theirs.items():
        assert ours[key].dtype == value.dtype
        assert torch.equal(ours[key].view(torch.uint8), value.view(torch.uint8)), key
    assert found.weights_hash() == expected.weights_hash()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_there_and_back(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    component(tmp_path / "a", name, _name_or_path="x", of_tomorrow={"deep": [1, None, "é"]})
    vae = vaeport.load(tmp_path / "a", dtype=dtype)
    written = vae.save(tmp_path / "b")
    assert [path.name for path in written] == ["config.json", "diffusion_pytorch_model.safetensors"]
    assert_bit_equal(vaeport.load(tmp_path / "b"), vae)
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    assert config.pop("of_tomorrow") == {"deep": [1, None, "é"]}
    assert config == {**json.loads(json.dumps(MODELS[name][1].to_published())), "_name_or_path": "x"}


@pytest.mark.parametrize("name", NAMES)
def test_values_that_only_bits_tell_apart(tmp_path: Path, name: str) -> None:
    """Zeros keep their sign, and subnormal numbers their last bit."""
    state = their_state(name)
    for tensor in state.values():
        tensor.view(-1)[:2] = torch.tensor([-0.0, 1e-45])[: tensor.numel()]
    vae = vaeport.load(component(tmp_path / "a", name, state))
    vae.save(tmp_path / "b")
    assert_bit_equal(vaeport.load(tmp_path / "b"), vae)


@pytest.mark.parametrize("size", ["10GB", "200KB"], ids=["whole", "sharded"])
@pytest.mark.parametrize("name", NAMES)
def test_diffusers_reads_it(tmp_path: Path, name: str, size: str) -> None:
    vae = vaeport.load(component(tmp_path / "a", name))
    written = vae.save(tmp_path / "b", max_shard_size=size)
    assert (len(written) > 3) == (size == "200KB")
    assert sorted(written) == sorted((tmp_path / "b").iterdir())
    assert_bit_equal(vaeport.load(tmp_path / "b"), vae)
    theirs, report = their_class(name).from_pretrained(tmp_path / "b", output_loading_info=True)
    assert not any(report.values())
    assert_same(vae.double(), theirs, name)


def test_variant(tmp_path: Path) -> None:
    vae = vaeport.load(component(tmp_path / "a", "kl"))
    vae.save(tmp_path / "b")
    half = vaeport.load(tmp_path / "a", dtype="float16")
    half.save(tmp_path / "b", variant="fp16")
    assert_bit_equal(vaeport.load(tmp_path / "b"), vae)
    assert_bit_equal(vaeport.load(tmp_path / "b", variant="fp16"), half)
    theirs = their_class("kl").from_pretrained(tmp_path / "b", variant="fp16")
    assert_same(half.double(), theirs, "kl")


@pytest.mark.parametrize(("name", "file", "layout"), [("kl16", "ae.safetensors", LDM), ("wan", "Wan2.1_VAE.pth", WAN)])
def test_from_official_to_diffusers(tmp_path: Path, name: str, file: str, layout: object) -> None:
    vae = vaeport.load(beside(tmp_path / "a", name, file, official_state(name, layout)))
    vae.save(tmp_path / "b")
    assert_same(vae.double(), their_class(name).from_pretrained(tmp_path / "b"), name)


def test_what_was_never_on_disk(tmp_path: Path) -> None:
    """A model of one's own, in another memory format, is saved like any other."""
    model, arch = MODELS["kl"]
    vae = model(arch).requires_grad_(False).to(memory_format=torch.channels_last)
    vae.save(tmp_path / "vae")
    assert_bit_equal(vaeport.load(tmp_path / "vae"), vae.to(memory_format=torch.contiguous_format))


def test_over_its_own_files(tmp_path: Path) -> None:
    """The weights are mapped from the very files that are replaced."""
    vae = vaeport.load(component(tmp_path / "a", "kl"))
    before = {key: value.clone() for key, value in vae.state_dict().items()}
    with torch.no_grad():
        vae.get_parameter("encoder.conv_in.bias").add_(1)
    vae.save(tmp_path / "a")
    assert_bit_equal(vaeport.load(tmp_path / "a"), vae)
    for key, value in vae.state_dict().items():
        assert torch.equal(value, before[key] + (key == "encoder.conv_in.bias"))


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_half_a_model(tmp_path: Path, half: str) -> None:
    component(tmp_path / "a", "kl")
    vae = vaeport.load(tmp_path / "a", load_encoder=half == "encoder", load_decoder=half == "decoder")
    for target in (tmp_path / "b", tmp_path / "a"):
        before = listing(tmp_path)
        with pytest.raises(InputError, match="loaded without its encoder or decoder cannot be saved") as refused:
            vae.save(target)
        assert refused.value.where == target
        assert listing(tmp_path) == before


def test_a_class_that_nobody_registered(tmp_path: Path) -> None:
    """Nobody could load it again."""

    class Mine(AutoencoderKL):
        pass

    with pytest.raises(UnknownModelError, match="no model is registered for `Mine`"):
        Mine(MODELS["kl"][1]).save(tmp_path / "vae")
    derived = type("AutoencoderKL", (AutoencoderKL,), {})
    with pytest.raises(UnknownModelError):
        derived(MODELS["kl"][1]).save(tmp_path / "vae")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_else(tmp_path: Path) -> None:
    vae = vaeport.load(component(tmp_path / "kl", "kl"))
    component(tmp_path / "wan", "wan")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("all of it")
    before = listing(tmp_path)
    for name in ("wan", "notes"):
        with pytest.raises(InputError, match="nothing was written"):
            vae.save(tmp_path / name)
    with pytest.raises(ConfigError, match=r"cannot be written as config\.json"):
        type(vae)(vae.arch.replace(extra={"x": object()})).save(tmp_path / "new")
    assert listing(tmp_path) == before


FULL = """
import resource, signal, sys, vaeport
from vaeport.errors import BlockedError
vae = vaeport.load(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))  # a write beyond that fails, as on a full disk
for target in sys.argv[2:]:
    try:
        vae.save(target)
    except BlockedError as error:
        print(error.exit_code)
"""


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    """Neither half a folder where there was none, nor any loss of the one that was there."""
    component(tmp_path / "a", "kl")
    before = listing(tmp_path)
    targets = [str(tmp_path / name) for name in ("new", "deep/er/new", "a")]
    command = [sys.executable, "-c", FULL, str(tmp_path / "a"), *targets]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.split()) == (0, ["3", "3", "3"]), done.stderr
    assert listing(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
