"""`ModelRegistry`: which VAEs there are, found without importing them.

A model file ends with `EntryClass = <Class>`; its file name is the model's native name. Installed packages add models
through the entry-point group `vaeport.models` (name = the published `_class_name`, value = `package.module:Class`).
"""

from __future__ import annotations

import ast
import difflib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from vaeport.configs import AudioVAEConfig, ImageVAEConfig, VAEArchConfig, VideoVAEConfig
from vaeport.errors import ConfigError, UnknownModelError
from vaeport.mapping.rules import Layout
from vaeport.vae import VAE

_BUCKETS = {"image": ImageVAEConfig, "video": VideoVAEConfig, "audio": AudioVAEConfig}


@dataclass(frozen=True)
class Registration:
    """name: native name; class_names: published and alias names; the class and its layouts are imported on demand."""

    name: str
    class_names: tuple[str, ...]
    load_class: Callable[[], Any]
    load_layouts: Callable[[], tuple[Layout, ...]]

    @property
    def model(self) -> type[VAE]:
        """The class, checked against its bucket."""
        return checked(self.load_class())

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """Published layouts of its weights; the first is the one that `save` writes."""
        return self.load_layouts()


class ModelRegistry:
    """Looks models up by native name, class name, alias, or published configuration."""

    @staticmethod
    @cache
    def registrations() -> tuple[Registration, ...]:
        """All models: those of the package, then those of installed packages."""
        folder = Path(__file__).parent / "models"
        own = tuple(r for path in sorted(folder.glob("*.py")) if (r := _read(path)) is not None)
        return own + tuple(_of_entry_point(point) for point in entry_points(group="vaeport.models"))

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Native names."""
        return tuple(r.name for r in cls.registrations())

    @classmethod
    def find(cls, name: str) -> Registration:
        """By native name, class name or alias; UnknownModelError offers the nearest names."""
        fits = [r for r in cls.registrations() if name == r.name or name in r.class_names]
        if not fits:
            raise _unknown(name, [n for r in cls.registrations() for n in (r.name, *r.class_names)])
        if len(fits) > 1:
            raise ConfigError(f"`{name}` is the name of several models", found=", ".join(r.name for r in fits))
        return fits[0]

    @classmethod
    def find_published(cls, config: Mapping[str, Any], where: object = None) -> Registration:
        """By `_class_name` and the rest of a published config.json; two models that fit are an error."""
        name = str(config.get("_class_name"))
        named = [r for r in cls.registrations() if name in r.class_names]
        if not named:
            raise _unknown(name, [n for r in cls.registrations() for n in r.class_names], where)
        reasons = {r.name: r.model.arch_class.misfit(config) for r in named}
        fits = [r for r in named if reasons[r.name] is None]
        if not fits:
            found = "; ".join(f"not {n}: {why}" for n, why in reasons.items())
            raise UnknownModelError(f"no model with the class name `{name}` fits this configuration", where=where, found=found)
        if len(fits) > 1:
            raise ConfigError(f"several models fit `{name}`", where=where, found=", ".join(r.name for r in fits))
        return fits[0]


def checked(model: Any) -> type[VAE]:
    """The class itself, or a ConfigError: not a VAE, or in the bucket of another modality."""
    if not (isinstance(model, type) and issubclass(model, VAE)):
        raise ConfigError("a registered model is not a subclass of vaeport.VAE", found=model)
    arch: VAEArchConfig = next(iter(model.variants.values())) if model.variants else model.arch_class()
    bucket = _BUCKETS[model.contract_of(arch).modality]
    if not issubclass(model.config_class, bucket):
        raise ConfigError(
            f"{model.__name__} is in the wrong bucket",
            expected=f"config_class = {bucket.__name__}",
            found=model.config_class.__name__,
        )
    return model


def _unknown(name: str, names: list[str], where: object = None) -> UnknownModelError:
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    return UnknownModelError(
        f"no model is registered for `{name}`",
        where=where,
        expected=f"one of {', '.join(sorted(set(names)))}",
        fix=f"did you mean {' or '.join(near)}?" if near else "port it, or install the package that registers it",
    )


def _read(path: Path) -> Registration | None:
    """Reads `EntryClass`, `class_names` and `aliases` from a model file's syntax tree."""
    entry: str | None = None
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            continue
        target = node.targets[0].id
        if target == "EntryClass" and isinstance(node.value, ast.Name):
            entry = node.value.id
        elif target in ("class_names", "aliases"):
            names += ast.literal_eval(node.value)
    if entry is None:
        return None
    stem, name = path.stem, entry
    return Registration(
        stem,
        tuple(dict.fromkeys((*names, entry))),
        lambda: getattr(importlib.import_module(f"vaeport.models.{stem}"), name),
        lambda: importlib.import_module(f"vaeport.weights.{stem}").LAYOUTS,
    )


def _of_entry_point(point: Any) -> Registration:
    return Registration(point.name, (point.name,), point.load, lambda: tuple(getattr(point.load(), "layouts", ())))
