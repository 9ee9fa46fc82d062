"""The README's code, commands and table are what they say."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch

from tests.cli.run import vaeport
from vaeport.media import write_image
from vaeport.proof.seeded import write_seeded
from vaeport.registry import ModelRegistry

README = Path(__file__).parents[1] / "README.md"


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


def test_commands_run(folder: Path) -> None:
    commands = [line for block in blocks("console") for line in block.splitlines()]
    assert {line.split()[1] for line in commands} == {"inspect", "encode", "decode", "prove", "models"}
    for line in commands:
        program, verb, *arguments = shlex.split(line)
        assert program == "vaeport"
        if verb == "prove":
            continue  # the same command at full width is tests/cli/test_prove.py
        done = vaeport(verb, *arguments, cwd=folder)
        assert done.code == 0, f"{line}\n{done.stderr}"
    assert (folder / "photo-decoded.png").exists()


def test_the_table_of_models_is_generated() -> None:
    found = re.search(r"<!-- models:.*?-->\n(.*?)<!-- end of models -->", README.read_text(), re.DOTALL)
    assert found is not None
    assert found.group(1) == vaeport("models", "--markdown").stdout
