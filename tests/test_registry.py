"""The registry: models are found without being imported, in the package and in others; what is wrong is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import vaeport
from tests.narrow import KL
from tests.runtime.made import component
from vaeport.configs import AudioVAEConfig, ImageVAEConfig, VideoVAEConfig
from vaeport.discovery import read_model_file
from vaeport.errors import ConfigError, KeyMismatchError, UnknownModelError
from vaeport.models.autoencoder_kl import AutoencoderKL
from vaeport.models.gamecraft import GameCraft
from vaeport.models.hunyuan_video import HunyuanVideo
from vaeport.models.ltx2 import LTX2Video
from vaeport.models.ltx_video import LTXVideo
from vaeport.models.oobleck import Oobleck
from vaeport.models.wan import Wan
from vaeport.models.wan2_2 import Wan22
from vaeport.registry import ModelRegistry, checked

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "vaeport"
NAMES = {
    "autoencoder_kl": (AutoencoderKL, ("AutoencoderKL", "AutoEncoder")),
    "oobleck": (Oobleck, ("AutoencoderOobleck", "OobleckVAE", "SAAudioVAEModel", "Oobleck")),
    "wan": (Wan, ("AutoencoderKLWan", "WanVAE", "WanVAE_", "Wan")),
    "wan2_2": (Wan22, ("AutoencoderKLWan", "Wan2_2_VAE", "Wan22")),
    "ltx_video": (LTXVideo, ("AutoencoderKLLTXVideo", "CausalVideoAutoencoder", "LTXVideo")),
    "ltx2": (
        LTX2Video,
        ("AutoencoderKLLTX2Video", "CausalVideoAutoencoder", "LTX2CausalVideoAutoencoder", "LTX2Video"),
    ),
    "hunyuan_video": (HunyuanVideo, ("AutoencoderKLHunyuanVideo", "AutoencoderKLCausal3D", "HunyuanVideo")),
    "gamecraft": (GameCraft, ("AutoencoderKLCausal3D", "GameCraftVAE", "GameCraft")),
}
SHARED = {"AutoencoderKLWan", "CausalVideoAutoencoder", "AutoencoderKLCausal3D"}
"""class names of several architectures, which the rest of a published config tells apart"""


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    """What a test finds, the next one does not."""
    ModelRegistry.registrations.cache_clear()
    yield
    ModelRegistry.registrations.cache_clear()


def run(script: str, path: Path) -> str:
    """Output of a script in a process of its own that looks for packages in `path` first."""
    environment = {**os.environ, "PYTHONPATH": str(path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_every_name_finds_the_model(name: str) -> None:
    model, others = NAMES[name]
    for known in (name, *others):
        if known in SHARED:
            with pytest.raises(ConfigError, match=f"`{known}` is the name of several models") as refused:
                ModelRegistry.find(known)
            assert name in str(refused.value.found).split(", ")
            continue
        registration = ModelRegistry.find(known)
        assert (registration.name, registration.class_names) == (name, others)
        assert registration.model is model
    assert set(model.aliases) | set(model.arch_class.class_names) <= set(others)
    assert ModelRegistry.find_class(model).name == name
    assert registration.layouts[0].name == "diffusers"


def test_names_are_those_of_the_files_and_of_one_model_each() -> None:
    files = sorted((PACKAGE / "models").glob("*.py"))
    stems = [path.stem for path in files if "\nEntryClass = " in path.read_text("utf-8")]
    assert list(ModelRegistry.names()) == stems
    assert set(NAMES) <= set(stems)
    names = [name for r in ModelRegistry.registrations() for name in (r.name, *r.class_names)]
    assert {name for name in names if names.count(name) > 1} == SHARED


def test_no_model_is_imported_to_be_found() -> None:
    script = """
import json, sys
from vaeport.registry import ModelRegistry
names = [(r.name, r.class_names) for r in ModelRegistry.registrations()]
ModelRegistry.find("WanVAE")
before = [m for m in sys.modules if m.startswith(("vaeport.models.", "vaeport.weights."))]
ModelRegistry.find("Wan").model
after = [m for m in sys.modules if m.startswith(("vaeport.models.", "vaeport.weights."))]
print(json.dumps([names, before, after]))
"""
    names, before, after = json.loads(run(script, PACKAGE.parent))
    assert len(names) >= 3
    assert before == []
    assert after == ["vaeport.models.wan"]


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("AutoencoderKLWann", "AutoencoderKLWan"), ("autoencoder-kl", "autoencoder_kl"), ("obleck", "oobleck")],
)
def test_an_unknown_name(name: str, nearest: str) -> None:
    with pytest.raises(UnknownModelError) as refused:
        ModelRegistry.find(name)
    assert refused.value.what == f"no model is registered for `{name}`"
    assert str(refused.value.fix).startswith(f"did you mean {nearest}")
    assert "SAAudioVAEModel" in str(refused.value.expected)


def test_find_published() -> None:
    config = {"_class_name": "AutoencoderKLWan", "is_residual": False}
    assert ModelRegistry.find_published(config).name == "wan"
    assert ModelRegistry.find_published({**config, "is_residual": True}).name == "wan2_2"
    with pytest.raises(ConfigError, match="not in the library") as refused:
        ModelRegistry.find_published(
            {"_class_name": "AutoencoderKLMagvit", "ch": 128, "ch_mult": [1, 2, 4, 4]}, where="here"
        )
    assert refused.value.where == "here"
    assert str(refused.value.found).startswith("not magvit: ")
    for name in ("wan", "AutoencoderKLCosmos"):
        with pytest.raises(UnknownModelError):
            ModelRegistry.find_published({"_class_name": name})


# Files of the package.

NEW = """
from vaeport.models.oobleck import Oobleck, OobleckArchConfig


class NewArchConfig(OobleckArchConfig):
    class_names = ("AutoencoderNew", "AutoencoderOlder")


class New(Oobleck):
    arch_class = NewArchConfig
    aliases = ("NewVAE",)
    variants = {"new1": NewArchConfig()}


EntryClass = New
"""


def test_a_new_model_file_is_found(tmp_path: Path) -> None:
    """Nothing but the table and the map is added to the package."""
    shutil.copytree(PACKAGE, tmp_path / "vaeport", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "vaeport" / "models" / "new.py").write_text(NEW)
    (tmp_path / "vaeport" / "models" / "parts.py").write_text("raise RuntimeError('imported')")
    shutil.copy(PACKAGE / "weights" / "oobleck.py", tmp_path / "vaeport" / "weights" / "new.py")
    script = """
import vaeport.registry as r
print(r.__file__)
found = [r.ModelRegistry.find(n) for n in ("new", "AutoencoderNew", "AutoencoderOlder", "NewVAE", "New")]
print({f.name for f in found}, found[0].model.__module__, len(found[0].layouts), "parts" in r.ModelRegistry.names())
"""
    where, line = run(script, tmp_path).splitlines()
    assert where == str(tmp_path / "vaeport" / "registry.py")
    assert line == "{'new'} vaeport.models.new 2 False"


def test_names_are_read_from_the_syntax_tree(tmp_path: Path) -> None:
    file = tmp_path / "new.py"
    annotated = NEW.replace("aliases = (", "aliases: ClassVar[tuple[str, ...]] = (")
    for source in (NEW, annotated, "# -*- coding: latin-1 -*-\nraise ImportError\n" + NEW):
        file.write_text(source)
        found = read_model_file(file)
        assert found is not None
        assert (found.name, found.class_names) == ("new", ("AutoencoderNew", "AutoencoderOlder", "NewVAE", "New"))
    file.write_text(NEW.replace("EntryClass = New", ""))
    assert read_model_file(file) is None


@pytest.mark.parametrize(
    ("before", "after", "message", "line"),
    [
        ('("NewVAE",)', '"NewVAE"', "`aliases` cannot be read without running the file", 11),
        ('("NewVAE",)', "names()", "`aliases` cannot be read without running the file", 11),
        ('("AutoencoderNew", "AutoencoderOlder")', '("A", 1)', "`class_names` cannot be read", 6),
        ("EntryClass = New", "EntryClass = [New]", "`EntryClass` cannot be read", 15),
        ("EntryClass = New", "EntryClass = (", "a model file is not Python", 15),
    ],
)
def test_names_that_cannot_be_read(tmp_path: Path, before: str, after: str, message: str, line: int) -> None:
    file = tmp_path / "new.py"
    assert before in NEW
    file.write_text(NEW.replace(before, after))
    with pytest.raises(ConfigError, match=message) as refused:
        read_model_file(file)
    assert refused.value.where == f"{file}:{line}"


def test_a_model_without_a_map(tmp_path: Path) -> None:
    file = tmp_path / "not_mapped.py"
    file.write_text(NEW)
    found = read_model_file(file)
    assert found is not None
    with pytest.raises(ConfigError, match="a model has no weight maps") as refused:
        _ = found.layouts
    assert refused.value.where == "vaeport.weights.not_mapped"


# What is registered.


def test_not_a_vae() -> None:
    for thing in (torch.nn.Conv2d, AutoencoderKL(KL), "AutoencoderKL", None):
        with pytest.raises(ConfigError, match=r"not a subclass of vaeport\.VAE"):
            checked(thing)


@pytest.mark.parametrize("model", [AutoencoderKL, Wan, Oobleck])
@pytest.mark.parametrize("config", [ImageVAEConfig, VideoVAEConfig, AudioVAEConfig])
def test_buckets(model: type[vaeport.VAE], config: type[vaeport.VAEConfig]) -> None:
    moved = type("Moved", (model,), {"config_class": config})
    if config is model.config_class:
        assert checked(moved) is moved
        return
    with pytest.raises(ConfigError, match="Moved is in the wrong bucket") as refused:
        checked(moved)
    assert str(refused.value.expected).startswith(f"config_class = {model.config_class.__name__}")
    assert refused.value.found == config.__name__


def test_not_complete() -> None:
    with pytest.raises(ConfigError, match="Bare is not complete") as refused:
        checked(type("Bare", (vaeport.VAE,), {}))
    assert refused.value.expected == "arch_class, a VAEArchConfig; config_class, a VAEConfig"
    without = type("Without", (AutoencoderKL,), {"variants": {}})
    assert checked(without) is without, "an architecture with defaults needs no published configuration"


# Other packages.

PLUGIN = '''
from vaeport.models.autoencoder_kl import AutoencoderKL, AutoencoderKLArchConfig
from vaeport.weights.autoencoder_kl import DIFFUSERS, LDM


class FooArchConfig(AutoencoderKLArchConfig):
    class_names = ("AutoencoderFoo", "AutoencoderFooOld")


class FooVAE(AutoencoderKL):
    """The image VAE of somebody else."""

    arch_class = FooArchConfig
    aliases = ("FooTokenizer",)
    layouts = (DIFFUSERS, LDM)
    variants = {"foo": FooArchConfig(block_out_channels=(32, 64), latent_channels=7)}


class Rival(AutoencoderKL):
    layouts = (DIFFUSERS,)


class Misplaced(FooVAE):
    from vaeport.configs import AudioVAEConfig as config_class


class Unmapped(FooVAE):
    layouts = ()


class NoVAE:
    pass
'''


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Puts a distribution with these entry points on the path, as an installer lays it out."""
    site = tmp_path / "site"

    def put(**points: str) -> None:
        info = site / "foo_vae-1.2.dist-info"
        info.mkdir(parents=True)
        (site / "foo_vae.py").write_text(PLUGIN)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: foo-vae\nVersion: 1.2\n")
        lines = [f"{name} = {value}" for name, value in points.items()]
        (info / "entry_points.txt").write_text("[vaeport.models]\n" + "\n".join(lines) + "\n")
        monkeypatch.syspath_prepend(str(site))
        ModelRegistry.registrations.cache_clear()

    yield put
    sys.modules.pop("foo_vae", None)


def test_another_packages_model(install: Callable[..., None], tmp_path: Path) -> None:
    """It is found without being imported, and loads and saves like any other."""
    install(AutoencoderFoo="foo_vae:FooVAE", AutoencoderFooOld="foo_vae:FooVAE", FooTokenizer="foo_vae:FooVAE")
    assert {"AutoencoderFoo", "AutoencoderFooOld", "autoencoder_kl"} <= set(ModelRegistry.names())
    assert "foo_vae" not in sys.modules
    with pytest.raises(UnknownModelError, match="AutoencoderFoo"):
        ModelRegistry.find("AutoencoderFooo")
    folder = component(tmp_path / "a", "kl", _class_name="AutoencoderFoo")
    vae = vaeport.load(folder)
    assert type(vae).__name__ == "FooVAE"
    assert vae.encode(torch.zeros(1, 3, 16, 16)).latent_dist.mode().shape == (1, 4, 2, 2)
    vae.save(tmp_path / "b")
    assert json.loads((tmp_path / "b" / "config.json").read_text())["_class_name"] == "AutoencoderFoo"
    again = vaeport.load(tmp_path / "b")
    assert type(again) is type(vae)
    assert again.weights_hash() == vae.weights_hash()
    old = component(tmp_path / "old", "kl", _class_name="AutoencoderFooOld")
    assert type(vaeport.load(old)) is type(vae)
    assert type(vaeport.load(component(tmp_path / "kl", "kl"))) is AutoencoderKL


def test_published_variants_of_another_package(install: Callable[..., None], tmp_path: Path) -> None:
    """They are known by their keys and shapes too."""
    install(AutoencoderFoo="foo_vae:FooVAE", AutoencoderFooOld="foo_vae:FooVAE")
    model = ModelRegistry.find("AutoencoderFoo").model
    vae = model(model.variants["foo"]).requires_grad_(False)
    vae.save(tmp_path / "vae")
    (tmp_path / "vae" / "config.json").unlink()
    found = vaeport.load(tmp_path / "vae" / "diffusion_pytorch_model.safetensors")
    assert type(found) is model
    assert found.weights_hash() == vae.weights_hash()


def test_two_models_that_fit(install: Callable[..., None], tmp_path: Path) -> None:
    install(AutoencoderKL="foo_vae:Rival")
    with pytest.raises(ConfigError, match="several models fit `AutoencoderKL`") as refused:
        vaeport.load(component(tmp_path, "kl"))
    assert refused.value.found == "autoencoder_kl, AutoencoderKL"
    with pytest.raises(ConfigError, match="the name of several models"):
        ModelRegistry.find("AutoencoderKL")
    assert ModelRegistry.find_class(AutoencoderKL).name == "autoencoder_kl"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("AutoencoderFoo", "foo_vae:Missing", "a registered model cannot be imported"),
        ("AutoencoderFoo", "not_there:FooVAE", "a registered model cannot be imported"),
        ("AutoencoderFoo", "foo_vae:NoVAE", "not a subclass"),
        ("AutoencoderFoo", "foo_vae", "not a subclass"),
        ("AutoencoderFoo", "foo_vae:Misplaced", "Misplaced is in the wrong bucket"),
        ("AutoencoderFoo", "foo_vae:Unmapped", "a registered model has no weight maps"),
        ("AutoencoderBar", "foo_vae:FooVAE", "the name of an entry point is not a published name"),
    ],
)
def test_packages_that_are_wrong(
    install: Callable[..., None], tmp_path: Path, name: str, value: str, message: str
) -> None:
    """The error says which package; models of other names load as before."""
    install(**{name: value})
    with pytest.raises(ConfigError, match=message) as refused:
        vaeport.load(component(tmp_path / "a", "kl", _class_name=name))
    if "not a subclass" not in message and "bucket" not in message:
        assert refused.value.where == f"entry point {name} = {value} of foo-vae"
    assert type(vaeport.load(component(tmp_path / "b", "kl"))) is AutoencoderKL
    file = tmp_path / "b" / "diffusion_pytorch_model.safetensors"
    (tmp_path / "b" / "config.json").unlink()
    with pytest.raises(ConfigError, match=message):
        vaeport.load(file)
    with pytest.raises(KeyMismatchError, match="read as wan"):
        vaeport.load(file, model="wan")
