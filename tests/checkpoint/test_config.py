"""`config.json` is read as published, and what is wrong with it is said with the correction."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vaeport.checkpoint import read_config
from vaeport.errors import ConfigError


def test_read_as_published(tmp_path: Path, config: dict[str, Any]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_config(tmp_path) == config


def test_missing(tmp_path: Path, refuses: Any) -> None:
    what, fix = "the folder has no config.json", "put the config.json of these weights beside them"
    with refuses(ConfigError, what, where=tmp_path, expected="config.json", found="an empty folder", fix=fix):
        read_config(tmp_path)
    (tmp_path / "ae.safetensors").touch()
    with refuses(ConfigError, what, where=tmp_path, found="ae.safetensors", fix=fix):
        read_config(tmp_path)


def test_missing_in_a_pipeline_folder(tmp_path: Path, refuses: Any) -> None:
    for name in ("vae", "unet"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").touch()
    found, fix = "component folders: unet, vae", f"give the component's folder, such as {tmp_path / 'unet'}"
    with refuses(ConfigError, "the folder has no config.json", where=tmp_path, found=found, fix=fix):
        read_config(tmp_path)


def test_no_folder(tmp_path: Path, refuses: Any) -> None:
    (tmp_path / "vae").touch()
    what, fix = "the folder of config.json does not exist", "give the folder that holds config.json"
    with refuses(ConfigError, what, where=tmp_path / "vae", found="a file", fix=fix):
        read_config(tmp_path / "vae")
    found = f"in {tmp_path}: nearest names: vae"
    with refuses(ConfigError, what, where=tmp_path / "va", expected="a component folder", found=found):
        read_config(tmp_path / "va")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "Expecting value: line 1 column 1 (char 0); the file looks like an empty file"),
        (b"{'a': 1}", "Expecting property name"),
        (b"[1]", "a JSON list, not an object"),
        (b'{"a": 1, "a": 2}', "the key 'a' stands twice"),
        (b'{"a": "\xff"}', "can't decode byte 0xff"),
        (b"<html></html>", "the file looks like a web page or XML"),
    ],
)
def test_not_sound_json(tmp_path: Path, refuses: Any, content: bytes, found: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    what, expected = "config.json is not sound JSON", "one JSON object with unique keys"
    with refuses(ConfigError, what, where=path, expected=expected, found=found, fix="correct the file"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({}, "no keys"),
        ({"latent_channels": 4, "act_fn": "silu"}, "latent_channels, act_fn"),
        ({"_class_name": None}, '"_class_name": None'),
        ({"_class_name": ["AutoencoderKL"]}, "\"_class_name\": ['AutoencoderKL']"),
        ({"_class_name": ""}, "\"_class_name\": ''"),
    ],
)
def test_without_class_name(tmp_path: Path, refuses: Any, content: dict[str, Any], found: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(content))
    what, expected = "config.json does not say which model it configures", '"_class_name" with the name of'
    fix = 'add "_class_name", such as "AutoencoderKL"; `vaeport models` lists the names'
    with refuses(ConfigError, what, where=path, expected=expected, found=found, fix=fix):
        read_config(tmp_path)
