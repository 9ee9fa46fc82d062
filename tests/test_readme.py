"""The README's code and commands, and the tables of docs/models.md, are what they say."""

from __future__ import annotations

import importlib
import json
import re
import shlex
from pathlib import Path

import pytest
import torch

from bench.proofs import proved
from tests.cli.run import vaeport
from vaeport.media import write_image
from vaeport.proof.seeded import write_seeded
from vaeport.published import PROOFS, REPOSITORIES
from vaeport.registry import ModelRegistry

README = Path(__file__).parents[1] / "README.md"
MODELS = README.parent / "docs" / "models.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the README speaks of, with seeded weights."""
    place = tmp_path_factory.mktemp("readme")
    for name, variant, layout, file in (
        ("autoencoder_kl", "flux1", "ldm", "ae.safetensors"),
        ("wan", "wan2.1", "wan-official", "Wan2.1_VAE.pth"),
    ):
        registration = ModelRegistry.find(name)
        official = next(one for one in registration.layouts if one.name == layout)
        write_seeded(place / file, registration, registration.model.variants[variant], official, "", seed=0)
    write_image(place / "photo.png", torch.randint(0, 256, (50, 70, 3), dtype=torch.uint8))
    (place / "photos").mkdir()
    write_image(place / "photos" / "one.png", torch.randint(0, 256, (32, 32, 3), dtype=torch.uint8))
    return place


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)


def test_python_blocks_run(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    for block in blocks("python"):
        exec(block, names)
    printed = capsys.readouterr().out
    assert "(1, 16, 8, 12) torch.Size([1, 3, 64, 96])" in printed
    assert "[1, 4, 4]" in printed
    assert "pieces of 1 along time" in printed
    assert names["video"].shape == (1, 3, 9, 32, 48)  # type: ignore[attr-defined]


def test_commands_run(folder: Path) -> None:
    commands = [line for block in blocks("console") for line in block.splitlines()]
    commands = [line for line in commands if not line.startswith("pip install ")]
    assert {line.split()[1] for line in commands} == {
        "inspect", "encode", "decode", "plan", "prove", "dataset", "models"
    }  # fmt: skip
    for line in commands:
        program, verb, *arguments = shlex.split(line)
        assert program == "vaeport"
        if verb == "prove":
            arguments += ["--dtypes", "float32"]  # without bfloat16 units the rest takes a quarter of an hour
        done = vaeport(verb, *arguments, cwd=folder)
        assert done.code == 0, f"{line}\n{done.stderr}"
    assert (folder / "photo-decoded.png").exists()


@pytest.mark.parametrize(("name", "options"), [("models", []), ("published", ["--published"])])
def test_the_tables_are_generated(name: str, options: list[str]) -> None:
    found = re.search(rf"<!-- {name}:.*?-->\n(.*?)<!-- end of {name} -->", MODELS.read_text(), re.DOTALL)
    assert found is not None
    assert found.group(1) == vaeport("models", "--markdown", *options).stdout


def test_every_published_command_is_one_of_ours() -> None:
    """They were not run here; their options and names exist."""
    for registration in ModelRegistry.registrations():
        for variant, arch in registration.model.variants.items():
            assert REPOSITORIES[variant], "a published configuration without weights"
            for place in REPOSITORIES[variant]:
                program, verb, *arguments = shlex.split(place.command(registration.name, variant, arch.class_names[0]))
                assert (program, verb) == ("vaeport", "prove")
                names = arguments[::2]
                assert set(names) <= {
                    "--native", "--variant", "--reference", "--reference-args", "--weights", "--subfolder", "--filename"
                }  # fmt: skip
                package, _, name = arguments[names.index("--reference") * 2 + 1].partition(":")
                assert hasattr(importlib.import_module(package), name)


def test_the_proofs_are_those_of_the_verdicts() -> None:
    assert json.loads(PROOFS.read_text()) == proved()
