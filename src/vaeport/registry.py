"""`ModelRegistry`: which VAEs there are, by name and by published configuration, found without importing them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from vaeport.discovery import Registration, checked, of_entry_point, read_model_file
from vaeport.errors import ConfigError, UnknownModelError
from vaeport.vae import VAE

__all__ = ["ModelRegistry", "Registration", "checked"]


class ModelRegistry:
    """Looks models up by native name, class name, alias, or published configuration."""

    @staticmethod
    @cache
    def registrations() -> tuple[Registration, ...]:
        """All models: those of the package, then those of installed packages."""
        folder = Path(__file__).parent / "models"
        own = tuple(r for path in sorted(folder.glob("*.py")) if (r := read_model_file(path)) is not None)
        return own + tuple(of_entry_point(point) for point in entry_points(group="vaeport.models"))

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Native names."""
        return tuple(r.name for r in cls.registrations())

    @classmethod
    def find(cls, name: str) -> Registration:
        """By native name, class name or alias; UnknownModelError offers the nearest names."""
        fits = [r for r in cls.registrations() if name == r.name or name in r.class_names]
        if not fits:
            raise _unknown(name, (n for r in cls.registrations() for n in (r.name, *r.class_names)))
        if len(fits) > 1:
            raise ConfigError(f"`{name}` is the name of several models", found=", ".join(r.name for r in fits))
        return fits[0]

    @classmethod
    def find_class(cls, model: type[VAE]) -> Registration:
        """By the class itself; a class that is not registered, or only derived from one that is, is unknown."""
        for registration in cls.registrations():
            if model.__name__ in registration.class_names and registration.model is model:
                return registration
        raise _unknown(model.__name__, (n for r in cls.registrations() for n in r.class_names))

    @classmethod
    def find_published(cls, config: Mapping[str, Any], where: object = None) -> Registration:
        """By `_class_name` and the rest of a published config.json.

        Raises UnknownModelError if no model has the name, ConfigError if no model or more than one fits the rest.
        """
        name = str(config.get("_class_name"))
        named = [r for r in cls.registrations() if name in r.class_names]
        if not named:
            raise _unknown(name, (n for r in cls.registrations() for n in r.class_names), where)
        reasons = {r.name: r.model.arch_class.misfit(config) for r in named}
        fits = [r for r in named if reasons[r.name] is None]
        if not fits:
            raise ConfigError(
                f"`{name}` with this configuration is an architecture that is not in the library",
                where=where,
                found="; ".join(f"not {n}: {why}" for n, why in reasons.items()),
                fix="port it, or install the package that registers it",
            )
        if len(fits) > 1:
            raise ConfigError(f"several models fit `{name}`", where=where, found=", ".join(r.name for r in fits))
        return fits[0]


def _unknown(name: str, names: Iterable[str], where: object = None) -> UnknownModelError:
    known = sorted(set(names))
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return UnknownModelError(
        f"no model is registered for `{name}`",
        where=where,
        expected=f"one of {', '.join(known)}",
        fix=(f"did you mean {' or '.join(near)}? If not, " if near else "") + "port it, or install its package",
    )
