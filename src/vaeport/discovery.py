"""Where models are found: in the files of `vaeport.models`, and at the entry points of installed packages.

A model file ends with `EntryClass = <Class>`; its file name is the model's native name, and its weight maps have the
same file name in `vaeport.weights`. A package names its class in the entry-point group `vaeport.models` (name = the
published `_class_name`, value = `package.module:Class`); that class carries its weight maps itself, as `layouts`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from vaeport.configs import BUCKETS, VAEArchConfig, VAEConfig
from vaeport.errors import ConfigError
from vaeport.mapping.rules import Layout
from vaeport.syntax import model_names, parse_file
from vaeport.vae import VAE


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


def checked(model: Any) -> type[VAE]:
    """The class itself, or a ConfigError: not a VAE, not complete, or in the bucket of another modality."""
    if not (isinstance(model, type) and issubclass(model, VAE)):
        raise ConfigError("a registered model is not a subclass of vaeport.VAE", found=repr(model))
    needed = (("arch_class", VAEArchConfig), ("config_class", VAEConfig))
    lacking = [f"{name}, a {base.__name__}" for name, base in needed if not _is_class(model, name, base)]
    if lacking:
        raise ConfigError(f"{model.__name__} is not complete", where=model.__module__, expected="; ".join(lacking))
    modality = model.contract_of(_example(model)).modality
    bucket = BUCKETS[modality]
    if not issubclass(model.config_class, bucket):
        raise ConfigError(
            f"{model.__name__} is in the wrong bucket",
            where=model.__module__,
            expected=f"config_class = {bucket.__name__}, for its contract says {modality}",
            found=model.config_class.__name__,
        )
    return model


def read_model_file(path: Path) -> Registration | None:
    """Reads `EntryClass`, `class_names` and `aliases` from a model file's syntax tree; None without an EntryClass."""
    entry, names = model_names(parse_file(path), path)
    if entry is None:
        return None
    stem, class_name = path.stem, entry
    return Registration(
        stem,
        tuple(dict.fromkeys((*names, class_name))),
        lambda: getattr(importlib.import_module(f"vaeport.models.{stem}"), class_name),
        lambda: _layouts_in(f"vaeport.weights.{stem}"),
    )


def _layouts_in(module: str) -> tuple[Layout, ...]:
    try:
        layouts: tuple[Layout, ...] = importlib.import_module(module).LAYOUTS
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise ConfigError(
            "a model has no weight maps", where=module, expected="LAYOUTS = (Layout(...), ...)"
        ) from error
    return layouts


def of_entry_point(point: EntryPoint) -> Registration:
    """A model of an installed package, which is imported when its class or its layouts are asked for."""
    where = f"entry point {point.name} = {point.value}" + (f" of {point.dist.name}" if point.dist else "")

    def load_class() -> Any:
        try:
            model = point.load()
        except Exception as error:  # importing a package can raise anything
            raise ConfigError(
                "a registered model cannot be imported",
                where=where,
                found=f"{type(error).__name__}: {error}",
                fix="mend or uninstall its package; other models are found by name: model=...",
            ) from error
        names = (*checked(model).arch_class.class_names, *model.aliases)
        if point.name not in names:
            what = "the name of an entry point is not a published name of its model"
            raise ConfigError(what, where=where, expected=f"one of {', '.join(names)}")
        return model

    def load_layouts() -> tuple[Layout, ...]:
        layouts = tuple(getattr(load_class(), "layouts", ()))
        if not layouts or not all(isinstance(layout, Layout) for layout in layouts):
            raise ConfigError(
                "a registered model has no weight maps",
                where=where,
                expected="class attribute `layouts`, a tuple of vaeport.mapping.Layout",
                found=layouts,
            )
        return layouts

    class_name = point.value.partition(":")[2].partition("[")[0].strip().rpartition(".")[2]
    return Registration(point.name, tuple(dict.fromkeys((point.name, class_name))), load_class, load_layouts)


def _example(model: type[VAE]) -> VAEArchConfig:
    """One architecture that the class can be."""
    if model.variants:
        return next(iter(model.variants.values()))
    try:
        return model.arch_class()
    except TypeError as error:
        what = f"{model.__name__} has neither published configurations nor defaults for all fields"
        raise ConfigError(what, where=model.__module__, expected="variants = {name: arch config}") from error


def _is_class(model: type[VAE], name: str, base: type) -> bool:
    found = getattr(model, name, None)
    return isinstance(found, type) and issubclass(found, base)
