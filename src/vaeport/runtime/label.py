"""What a checkpoint says of itself: the `config.json` beside it, or a configuration in its metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaeport.checkpoint import Checkpoint, read_config
from vaeport.checkpoint.layout import parse_weight_name
from vaeport.checkpoint.strict_json import JsonProblemError, parse_json_object
from vaeport.configs import VAEArchConfig
from vaeport.errors import ConfigError, UnknownModelError
from vaeport.registry import ModelRegistry, Registration


@dataclass(frozen=True)
class Label:
    """A published configuration, where it stands (`config.json` or `metadata`), and what it makes of the weights."""

    source: str
    where: Path
    registration: Registration
    arch: VAEArchConfig


def label_of(checkpoint: Checkpoint) -> Label | None:
    """The label of a checkpoint, or None if it has none that speaks of a VAE.

    A component's config.json counts before metadata, metadata before the config.json beside an official file.
    Raises ConfigError (UnknownModelError among them) for a component's config.json that cannot be used, and for a
    configuration of a known class that cannot.
    """
    in_folder = checkpoint.path.is_dir()
    folder = checkpoint.path if in_folder else checkpoint.path.parent
    file = folder / "config.json"
    if file.exists() and (in_folder or parse_weight_name(checkpoint.path.name)):
        return _label("config.json", file, read_config(folder))
    inside = metadata_config(checkpoint.metadata)
    if inside is not None:
        try:
            return _label("metadata", checkpoint.path, inside)
        except UnknownModelError:
            return None  # another model's, or one that the keys may tell
    if file.exists():
        try:
            return _label("config.json", file, read_config(folder))
        except ConfigError:
            # Beside official files lie other models' configs too: that beside `Wan2.1_VAE.pth` is the transformer's.
            return None
    return None


def metadata_config(metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """The VAE's configuration in a safetensors file: JSON under `config`, itself or its object `vae`."""
    try:
        config = parse_json_object(metadata.get("config", "").encode())
    except (JsonProblemError, UnicodeEncodeError):
        return None
    for one in (config.get("vae"), config):
        if isinstance(one, dict) and isinstance(one.get("_class_name"), str):
            return one
    return None


def _label(source: str, where: Path, config: Mapping[str, Any]) -> Label:
    registration = ModelRegistry.find_published(config, where=where)
    return Label(source, where, registration, registration.model.arch_class.from_published(config))
