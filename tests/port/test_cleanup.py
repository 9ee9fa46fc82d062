"""The cleanup gate finds real leftovers: hooks, patches, edits in git trees and installed packages, stray files."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders import autoencoder_kl, vae
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from tests.narrow import IN_DIFFUSERS, KL16, MODELS, native, reference
from vaeport.drift.activations import tracing
from vaeport.port.cleanup import cleanup, reference_leftovers
from vaeport.port.left_files import snapshot, stray_files, tree_leftovers
from vaeport.port.left_packages import package_leftovers
from vaeport.port.leftover import Leftover, outcome
from vaeport.proof.sides import ReferenceSide

VAE_CLASS = """
from torch import nn


class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def encode(self, x):
        return self.conv(x)

    def decode(self, z):
        return z
"""


def told(found: Any) -> list[tuple[str, str]]:
    return [(one.kind, one.where) for one in found]


# in the process


def test_models_as_they_are_have_no_leftover() -> None:
    assert cleanup({name: native(name) for name in MODELS}) == []
    assert cleanup({name: reference(MODELS[name][1]) for name in IN_DIFFUSERS}) == []  # weight norm's hooks included


def test_hooks_are_found_where_they_were_left() -> None:
    model = reference(KL16)
    with tracing(model, lambda one: None, layers="^decoder.conv_in$"):
        ((kind, where),) = told(cleanup({"official": model}))
    assert (kind, where) == ("hook", "official.decoder.conv_in, _forward_hooks")
    assert cleanup({"official": model}) == []
    handles = [
        model.encoder.register_forward_pre_hook(lambda *_: None),
        model.register_full_backward_hook(lambda *_: None),
        nn.modules.module.register_module_forward_hook(lambda *_: None),
    ]
    try:
        found = cleanup({"official": model})
    finally:
        for handle in handles:
            handle.remove()
    assert told(found) == [
        ("hook", "official, _backward_hooks"),
        ("hook", "official.encoder, _forward_pre_hooks"),
        ("hook", "all modules, _global_forward_hooks"),
    ]
    assert "test_cleanup.py" in found[0].found


def test_a_patched_instance_is_found() -> None:
    model = reference(KL16)
    plain = model.decoder.forward
    model.decoder.forward = lambda *args: plain(*args) + 1
    assert told(cleanup({"official": model})) == [("patch", "official.decoder.forward")]


def wrapped(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def replaced(function: Any) -> Any:
    return lambda *args, **kwargs: function(*args, **kwargs)


@pytest.mark.parametrize("change", [wrapped, replaced])
@pytest.mark.parametrize(
    ("owner", "name", "where"),
    [
        (ResnetBlock2D, "forward", "diffusers.models.resnet.ResnetBlock2D.forward"),
        (diffusers.AutoencoderKL, "encode", "diffusers.models.autoencoders.autoencoder_kl.AutoencoderKL.encode"),
        (
            vae.DiagonalGaussianDistribution,
            "mode",
            "diffusers.models.autoencoders.vae.DiagonalGaussianDistribution.mode",
        ),
        (vae, "randn_tensor", "diffusers.models.autoencoders.vae.randn_tensor"),
        (F, "interpolate", "torch.nn.functional.interpolate"),
        (nn.GroupNorm, "forward", "torch.nn.modules.normalization.GroupNorm.forward"),
        (nn.SiLU, "__call__", "torch.nn.modules.activation.SiLU.__call__"),  # not in the class's text
    ],
)
def test_patches_are_found(
    owner: Any, name: str, where: str, change: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = reference(KL16)
    monkeypatch.setattr(owner, name, change(getattr(owner, name)), raising=False)
    found = cleanup({"official": model})
    assert told(found) == [("patch", where)]
    assert "test_cleanup.py" in found[0].found
    assert cleanup({"official": model}, own=[Path(__file__).parent]) == []  # what the implementation does itself


def test_a_patch_in_the_dress_of_the_files_own_decorator_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    model = reference(KL16)
    monkeypatch.setattr(diffusers.AutoencoderKL, "__init__", register_to_config(lambda self: None))
    ((kind, where),) = told(cleanup({"official": model}))
    assert (kind, where.rpartition(".")[2]) == ("patch", "__init__")


def test_a_class_that_was_exchanged_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    model = reference(KL16)
    monkeypatch.setattr(autoencoder_kl, "Decoder", type("Decoder", (vae.Decoder,), {}))
    assert told(cleanup({"official": model})) == [("patch", "diffusers.models.autoencoders.autoencoder_kl.Decoder")]


def test_modes_and_toggles_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAN_DEBUG_PATCH_LINEAR", "1")
    monkeypatch.setenv("WAN_DEBUG_PATCH_NORM", "0")
    with torch.device("cpu"):  # a mode of torch itself
        found = cleanup()
    assert told(found) == [("mode", "this process"), ("toggle", "environment")]
    assert [one.found for one in found if one.kind == "toggle"] == ["WAN_DEBUG_PATCH_LINEAR is set"]


# in trees


def git(folder: Path, *words: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository with one commit."""
    folder = tmp_path / "official"
    (folder / "pkg").mkdir(parents=True)
    (folder / "pkg/vae.py").write_text(VAE_CLASS)
    (folder / "a b.txt").write_text("text")
    (folder / ".gitignore").write_text("ignored*\n")
    git(folder, "init")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "one")
    return folder


def test_a_clean_tree_is_clean(tree: Path) -> None:
    (tree / "pkg/__pycache__").mkdir()
    (tree / "pkg/__pycache__/vae.pyc").write_bytes(b"x")
    assert list(tree_leftovers(tree, "official", official=True)) == []


def test_edits_are_found(tree: Path) -> None:
    before = snapshot(tree)
    (tree / "pkg/vae.py").write_text(VAE_CLASS + "print(1)\n")
    (tree / "a b.txt").unlink()
    (tree / "pkg/debug.py").write_text("")
    (tree / "out.bin").write_text("")
    expected = [
        ("edited", "official: a b.txt"),
        ("edited", "official: pkg/vae.py"),
        ("untracked", "official: out.bin"),
        ("untracked", "official: pkg/debug.py"),
    ]
    assert told(tree_leftovers(tree / "pkg", "official", before=before)) == expected
    assert told(tree_leftovers(tree, "official", before=before, expected=[tree / "pkg"]))[1:] == [expected[2]]
    now = snapshot(tree)
    assert list(tree_leftovers(tree, "project", before=now)) == []  # it was so before the port
    official = told(tree_leftovers(tree, "official", before=now, official=True))
    assert official == [expected[0], expected[1], expected[3]]  # it is not the official source, since whenever
    assert told(tree_leftovers(tree, "official", official=True)) == official  # a checkpoint, for all that is known
    (tree / "out.bin").write_text("more")
    assert told(tree_leftovers(tree, "project", before=now)) == [("untracked", "project: out.bin")]


@pytest.mark.parametrize("flag", ["--assume-unchanged", "--skip-worktree"])
def test_edits_that_git_is_told_not_to_see_are_found(flag: str, tree: Path) -> None:
    git(tree, "update-index", flag, "pkg/vae.py")
    (tree / "pkg/vae.py").write_text("print(1)\n")
    assert told(tree_leftovers(tree, "official")) == [("hidden", "official: pkg/vae.py")]


def test_what_is_no_repository_is_never_clean(tmp_path: Path) -> None:
    (one,) = tree_leftovers(tmp_path, "official")
    assert one.found == "not a repository, so not checked"
    assert outcome([one]) == "incomplete"
    assert outcome([one, Leftover("hook", "a", "b", "c")]) == "fail"
    assert outcome([]) == "pass"


def test_an_ignored_source_file_is_never_clean(tree: Path) -> None:
    file = tree / "ignored.py"
    file.write_text(VAE_CLASS)
    assert told(cleanup(files=[tree / "pkg/vae.py"])) == []
    assert told(cleanup(files=[file])) == [("unchecked", "official: ignored.py")]


def test_git_settings_of_the_caller_and_of_the_tree_do_nothing(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = tree / "ignored-ran"
    git(tree, "config", "core.fsmonitor", f"touch {ran}; false")
    monkeypatch.setenv("GIT_DIR", str(tree / "elsewhere"))
    assert list(tree_leftovers(tree, "official")) == []
    assert not ran.exists()


def test_without_git_nothing_is_clean(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    (one,) = tree_leftovers(tree, "official")
    assert "git does not start" in one.found


def test_stray_files(tmp_path: Path) -> None:
    for name in ("map.json", "converted/vae/config.json", "debug.py", "sub/trace.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    found = stray_files(tmp_path, {"map.json", "converted/"}, "ports/a")
    assert told(found) == [("stray", "ports/a/debug.py"), ("stray", "ports/a/sub/trace.jsonl")]


# in installed packages


def line(root: Path, file: Path) -> str:
    raw = file.read_bytes()
    digest = base64.urlsafe_b64encode(hashlib.sha256(raw).digest()).rstrip(b"=").decode()
    return f"{file.relative_to(root).as_posix()},sha256={digest},{len(raw)}\n"


def install(site: Path, name: str, *files: str, record: bool = True) -> None:
    """A distribution as pip leaves it."""
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    for path in files:
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(VAE_CLASS)
    if record:
        rows = [line(site, site / path) for path in files] + [line(site, info / "METADATA")]
        (info / "RECORD").write_text("".join([*rows, f"{name}-1.0.dist-info/RECORD,,\n"]))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages that is imported from."""
    folder = tmp_path / "site-packages"
    install(folder, "officialvae", "officialvae/__init__.py", "officialvae/vae.py", "shared/a.py")
    install(folder, "other", "shared/b.py")
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "officialvae"]:
        del sys.modules[name]


def official() -> list[Leftover]:
    return [Leftover(**row) for row in reference_leftovers(ReferenceSide("officialvae.vae:VAE", {}))["leftovers"]]


def test_an_installed_reference_is_held_against_its_record(site: Path) -> None:
    assert official() == []
    (site / "officialvae/vae.py").write_text(VAE_CLASS.replace("return z", "return z  # print"))
    (site / "officialvae/vae.py.trace-backup").write_text(VAE_CLASS)
    (site / "officialvae/__init__.py").unlink()
    (site / "shared/__pycache__").mkdir()
    (site / "shared/__pycache__/a.pyc").write_bytes(b"")
    assert told(official()) == [
        ("package", "officialvae 1.0: officialvae/__init__.py"),
        ("package", "officialvae 1.0: officialvae/vae.py"),
        ("package", "officialvae 1.0: officialvae/vae.py.trace-backup"),
    ]  # `shared/b.py` is in another's RECORD


def test_what_the_port_writes_into_a_package_is_expected(site: Path) -> None:
    new = site / "officialvae/new.py"
    new.write_text("")
    (dist,) = (one for one in distributions(path=[str(site)]) if one.name == "officialvae")
    assert told(package_leftovers(dist)) == [("package", "officialvae 1.0: officialvae/new.py")]
    assert list(package_leftovers(dist, expected=[new])) == []


def test_only_distributions_of_the_sources_are_looked_at(site: Path) -> None:
    (site / "shared/b.py").write_text("edited")
    assert official() == []


def test_installs_that_cannot_be_checked_say_so(site: Path, tmp_path: Path) -> None:
    (site / "officialvae-1.0.dist-info/direct_url.json").write_text(json.dumps({"dir_info": {"editable": True}}))
    (one,) = official()
    assert (one.kind, one.found) == ("unchecked", "it is an editable install, so not checked")
    install(tmp_path / "bare", "bare", "bare/vae.py", record=False)
    (dist,) = distributions(path=[str(tmp_path / "bare")])
    (one,) = package_leftovers(dist)
    assert one.found == "it has no RECORD, so not checked"
    (site / "officialvae-1.0.dist-info/RECORD").unlink()  # nothing says whose file it is
    assert [one.found for one in official()] == ["not a repository, so not checked"]


def test_the_official_file_in_a_repository_with_a_hook_that_it_does_not_have(tree: Path) -> None:
    side = ReferenceSide(f"{tree / 'pkg/vae.py'}:VAE", {})
    assert reference_leftovers(side) == {"leftovers": []}
    (tree / "pkg/vae.py").write_text(VAE_CLASS + "\n\nnn.Module.eval = lambda self: self\n")
    del sys.modules["vae"]
    plain = nn.Module.eval
    try:
        found = [Leftover(**row) for row in reference_leftovers(side)["leftovers"]]
    finally:
        nn.Module.eval = plain
    assert told(found) == [("edited", "official: pkg/vae.py")]  # the patch is the file's own; the file is edited
