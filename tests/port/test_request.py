"""What a user asks for: sources in every spelling, paths that follow, and requests that name nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from vaeport.errors import ConfigError, InputError
from vaeport.port.request import Request, official_ref, official_root, vae_classes

VAE = "class {0}:\n    def encode(self, x): ...\n    def decode(self, z): ...\n"
SOURCE = f"raise RuntimeError('not run')\n{VAE.format('VAE')}class Encoder:\n    def encode(self, x): ...\n"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A source folder with one VAE, beside files that have none or cannot be read."""
    folder = tmp_path / "official"
    (folder / "modules").mkdir(parents=True)
    (folder / "modules" / "vae.py").write_text(SOURCE)
    (folder / "modules" / "other.py").write_text("class Model:\n    def decode(self, z): ...\n")
    (folder / "broken.py").write_text("class (")
    return folder


def request(source: str | Path, **more: Any) -> Request:
    return Request(str(source), "family", **more)


def test_paths_follow_from_the_names() -> None:
    asked = Request("a.b:C", "ltx_2", component="audio_vae", root=Path("there"))
    assert asked.home == "ports/ltx_2_audio_vae"
    assert asked.test == "tests/local_tests/vaes/test_ltx_2_audio_vae_parity.py"
    assert asked.converted == "ports/ltx_2_audio_vae/converted/audio_vae"
    assert asked.path("x", "y.json") == Path("there/ports/ltx_2_audio_vae/x/y.json")
    assert Request("a.b:C", "wan", folder="elsewhere").converted == "elsewhere/converted/vae"


def test_a_file_with_its_class(source: Path) -> None:
    asked = request(f"{source}/modules/vae.py:Encoder")
    assert asked.file == source / "modules" / "vae.py"
    assert asked.reference == f"{source}/modules/vae.py:Encoder"


def test_a_file_without_class(source: Path) -> None:
    assert request(source / "modules" / "vae.py").reference == f"{source}/modules/vae.py:VAE"


def test_a_folder(source: Path) -> None:
    assert request(source).reference == f"{source}/modules/vae.py:VAE"
    assert request(f"{source}:VAE").reference == f"{source}/modules/vae.py:VAE"


def test_a_folder_and_a_file_of_the_current_one(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(source.parent)
    assert request("official").reference == "official/modules/vae.py:VAE"
    assert request("official:VAE").reference == "official/modules/vae.py:VAE"
    monkeypatch.chdir(source / "modules")
    assert request("vae.py").reference == "vae.py:VAE"
    assert request("vae.py:Encoder").reference == "vae.py:Encoder"


def test_an_import_path() -> None:
    asked = request("vaeport.models.wan:Wan")
    assert asked.reference == "vaeport.models.wan:Wan"
    assert asked.file.parts[-3:] == ("vaeport", "models", "wan.py")
    assert request("vaeport.vae").reference == "vaeport.vae:VAE"


def test_another_interpreter_has_the_import_path() -> None:
    asked = request("elsewhere.vae:VAE", python="python3")
    assert asked.reference == "elsewhere.vae:VAE"
    assert asked.file == Path("elsewhere/vae.py")
    with pytest.raises(InputError, match="does not say which class") as refused:
        _ = request("elsewhere.vae", python="python3").reference
    assert refused.value.fix == "name it: elsewhere.vae:Class"


def test_two_classes_must_be_told_apart(source: Path) -> None:
    file = source / "modules" / "vae.py"
    file.write_text(VAE.format("A") + VAE.format("B"))
    with pytest.raises(InputError, match="does not say which class") as refused:
        _ = request(file).reference
    assert refused.value.found == "2 classes with encode and decode: A, B"
    assert refused.value.fix == f"name it: {file}:A"
    file.write_text("")
    with pytest.raises(InputError) as none:
        _ = request(file).reference
    assert none.value.found == "0 classes with encode and decode: none"


def test_two_files_must_be_told_apart(source: Path) -> None:
    (source / "more.py").write_text(VAE.format("More"))
    with pytest.raises(InputError, match="does not say which file") as refused:
        _ = request(source).file
    assert refused.value.found == "modules/vae.py: VAE; more.py: More"
    (source / "more.py").unlink()
    (source / "modules" / "vae.py").unlink()
    with pytest.raises(InputError) as none:
        _ = request(source).file
    assert none.value.found == "no class with encode and decode"


def test_sources_that_are_not_there(source: Path) -> None:
    with pytest.raises(ConfigError, match="no such official source") as refused:
        _ = request(source / "gone.py:VAE").file
    assert refused.value.where == source / "gone.py"
    with pytest.raises(ConfigError, match="neither a file nor a module"):
        _ = request("nowhere.at.all:VAE").file
    with pytest.raises(ConfigError, match="the official source cannot be read") as broken:
        _ = request(source / "broken.py").reference
    assert broken.value.where == source / "broken.py"


@pytest.mark.parametrize("line", ["raise RuntimeError('no driver')", "import sys\nsys.exit(0)"])
def test_a_package_that_does_not_import(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking for one of its modules runs it."""
    name = f"failing_{'exits' if 'exit' in line else 'raises'}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text(f"print('loud')\n{line}")
    (tmp_path / name / "vae.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="neither a file nor a module") as refused:
        _ = request(f"{name}.vae:VAE").file
    assert str(refused.value.found).startswith(f"{name}.vae:VAE ({'SystemExit' if 'exit' in line else 'RuntimeError'}")


def test_classes_are_read_and_not_run(source: Path) -> None:
    assert vae_classes(source / "modules" / "vae.py") == ["VAE"]
    (source / "null.py").write_bytes(b"x = '\0'")
    for name in ("null.py", "gone.py", "broken.py"):
        with pytest.raises(ConfigError, match="cannot be read"):
            vae_classes(source / name)


@pytest.mark.parametrize(
    ("more", "error", "text"),
    [
        ({"family": "Wan"}, InputError, "--family is not snake_case"),
        ({"family": "wan-2"}, InputError, "--family is not snake_case"),
        ({"family": ""}, InputError, "--family is not snake_case"),
        ({"family": "../wan"}, InputError, "--family is not snake_case"),
        ({"family": "wan\n"}, InputError, "--family is not snake_case"),
        ({"component": "_vae"}, InputError, "--component is not snake_case"),
        ({"until": "later"}, InputError, "no such step"),
        ({"call_arguments": {"forward": {}}}, InputError, "call arguments of what"),
        ({"weights": "no/such/file.pth"}, ConfigError, "no such checkpoint"),
    ],
)
def test_requests_that_name_nothing(more: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        Request(**{"source": "a.b:C", "family": "wan", **more})


def test_the_convention_is_what_was_said(tmp_path: Path) -> None:
    weights = tmp_path / "vae.pth"
    weights.touch()
    found = request(
        "a.b:C",
        call_arguments={"encode": {"scale": [1]}, "decode": {"x": 2}},
        stubs={"a.b": "c:d"},
        weights=str(weights),
    ).convention()
    assert (found.encode_arguments, found.decode_arguments) == ({"scale": [1]}, {"x": 2})
    assert (found.stubs, found.weights) == ({"a.b": "c:d"}, str(weights))
    assert not found.listed


def test_paths_of_a_committed_test_are_portable(tmp_path: Path, source: Path) -> None:
    weights = tmp_path / "elsewhere" / "vae.pth"
    weights.parent.mkdir()
    weights.touch()
    asked = request(f"{source}/modules/vae.py:VAE", root=tmp_path / "official", weights=str(weights))
    assert asked.portable(str(source / "modules" / "vae.py"), "X") == "modules/vae.py"
    assert asked.portable(str(weights), "X") == "$X/vae.pth"
    assert asked.variables == {
        "FAMILY_VAE_OFFICIAL": str(source / "modules"),
        "FAMILY_VAE_WEIGHTS": str(weights.parent),
    }


def test_what_changes_results_changes_the_digest() -> None:
    plain = request("a.b:C")
    assert plain.digest() == request("a.b:C", until="map", root=Path("x"), folder="y").digest()
    for more in ({"arguments": {"a": 1}}, {"python": "p"}, {"variant": "v"}, {"prefix": "p."}, {"stubs": {"a": "b"}}):
        assert request("a.b:C", **more).digest() != plain.digest()
    assert plain.digest("more") != plain.digest()


def test_the_public_name_of_a_source(tmp_path: Path) -> None:
    folder = tmp_path / "repository" / "package"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    file = folder / "vae.py"
    file.write_text(SOURCE)
    assert official_root(file) == folder.parent
    assert official_ref(file).startswith("vae.py, sha256 ")
    (folder.parent / "README.md").touch()
    assert official_root(file) == folder.parent
    git = ["git", "-C", str(folder.parent), "-c", "user.name=n", "-c", "user.email=e@x"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "m"], check=True)
    subprocess.run([*git, "remote", "add", "origin", "https://host/owner/name"], check=True)
    name, _, commit = official_ref(file).partition("@")
    assert name == "https://host/owner/name"
    assert len(commit) == 40


def test_the_public_name_of_a_package() -> None:
    import diffusers

    file = Path(diffusers.__file__).parent / "models" / "autoencoders" / "vae.py"
    assert official_ref(file) == f"diffusers {diffusers.__version__}"
