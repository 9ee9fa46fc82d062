"""Hub ids, offline, from a cache laid out as the Hub's client lays it out: blobs, snapshots that link to them, refs."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

import vaeport
from tests.runtime.made import beside, component, listing, official_state, their_state, write_config
from vaeport.errors import BlockedError, CheckpointError, InputError
from vaeport.weights.autoencoder_kl import LDM
from vaeport.weights.wan import OFFICIAL as WAN

REPO = "some-lab/some-pipeline"
OLD, NEW = "a" * 40, "b" * 40
KEY = "encoder.conv_in.bias"


def snapshot(cache: Path, commit: str, source: Path, refs: tuple[str, ...] = ()) -> None:
    repository = cache / f"models--{REPO.replace('/', '--')}"
    for name, content in listing(source).items():
        blob = repository / "blobs" / hashlib.sha256(content).hexdigest()
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        link = repository / "snapshots" / commit / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    for ref in refs:
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / ref).write_text(commit)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`main` is the new commit, the tag `v1` the old one, whose weights are others; each has an fp16 variant."""
    folder = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    assert constants.HF_HUB_OFFLINE
    monkeypatch.chdir(tmp_path)
    for commit, ref, bias in ((OLD, "v1", 1.0), (NEW, "main", 2.0)):
        source, state = tmp_path / commit, their_state("kl")
        state[KEY].fill_(bias)
        vae = vaeport.load(component(source / "vae", "kl", state))
        vae.half().save(source / "vae", variant="fp16")
        component(source / "vae", "kl", state)
        beside(source, "wan", "Wan2.1_VAE.pth", official_state("wan", WAN))
        write_config(source, {"_class_name": "WanModel"})
        beside(source / "official", "kl", "ae.safetensors", official_state("kl", LDM))
        snapshot(folder, commit, source, (ref,))
    return folder


def bias(vae: vaeport.VAE) -> float:
    return float(vae.get_parameter(KEY)[0])


@pytest.mark.parametrize(("revision", "expected"), [(None, 2), ("main", 2), ("v1", 1), (OLD, 1), (NEW, 2)])
def test_revision(cache: Path, revision: str | None, expected: float) -> None:
    vae = vaeport.load(REPO, subfolder="vae", revision=revision)
    assert bias(vae) == expected
    assert vae.dtype == torch.float32
    assert (vae.config.pretrained_path, vae.config.subfolder, vae.config.revision) == (REPO, "vae", revision)


@pytest.mark.parametrize(("revision", "expected"), [(None, 2), ("v1", 1)])
def test_variant(cache: Path, revision: str | None, expected: float) -> None:
    vae = vaeport.load(REPO, subfolder="vae", revision=revision, variant="fp16", load_decoder=False)
    assert (bias(vae), vae.dtype, vae.decoder) == (expected, torch.float16, None)


def test_official_file(cache: Path) -> None:
    vae = vaeport.load(REPO, subfolder="official", filename="ae.safetensors")
    assert torch.equal(vae.get_parameter(KEY), their_state("kl")[KEY])
    same = vaeport.load(REPO, filename="official/ae.safetensors")
    assert same.weights_hash() == vae.weights_hash()


@pytest.mark.parametrize(
    "options",
    [
        {"subfolder": "vae", "revision": "v2"},
        {"subfolder": "vae", "revision": "c" * 40},
        {"subfolder": "vae", "variant": "bf16"},
        {"subfolder": "vae_decoder"},
        {"filename": "sd.safetensors"},
        {},
    ],
)
def test_what_the_cache_lacks(cache: Path, options: dict[str, str]) -> None:
    """Offline it cannot be had: that is no fault of the caller, and has an exit code of its own."""
    with pytest.raises(BlockedError) as refused:
        vaeport.load(REPO, **options)
    assert refused.value.exit_code == 3
    assert "HF_HUB_OFFLINE" in str(refused.value)
    assert REPO in str(refused.value.where)


def test_a_repository_that_the_cache_lacks(cache: Path) -> None:
    with pytest.raises(BlockedError) as refused:
        vaeport.load("some-lab/other", subfolder="vae")
    assert refused.value.exit_code == 3
    assert "HF_HUB_OFFLINE" in str(refused.value.fix)


def test_a_local_path_comes_first(cache: Path, tmp_path: Path) -> None:
    """As everywhere else, and what looks like neither is no Hub id."""
    state = their_state("kl")
    state[KEY].fill_(3.0)
    component(tmp_path / REPO / "vae", "kl", state)
    assert bias(vaeport.load(REPO, subfolder="vae")) == 3
    with pytest.raises(InputError, match="this is a local path"):
        vaeport.load(REPO, subfolder="vae", revision="v1")
    for path in ("vae.safetensors", "some-lab/vae.safetensors", "a/b/c"):
        with pytest.raises(CheckpointError, match="no such file or folder"):
            vaeport.load(path)
    with pytest.raises(InputError, match="must lie inside its folder"):
        vaeport.load(REPO, subfolder="../..")


SCRIPT = """
import sys
sys.addaudithook(lambda event, args: event == "socket.connect" and sys.exit("a socket was opened"))
import vaeport
print(float(vaeport.load(sys.argv[1], subfolder="vae", revision="v1").get_parameter(sys.argv[2])[0]))
try:
    vaeport.load("some-lab/other")
except vaeport.VaeportError as error:
    sys.exit(error.exit_code)
"""


def test_by_environment_alone(cache: Path, tmp_path: Path) -> None:
    """In a process of its own, where nothing but the environment says what the client may do."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache), "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", SCRIPT, REPO, KEY]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.returncode) == ("1.0\n", 3), done.stderr
