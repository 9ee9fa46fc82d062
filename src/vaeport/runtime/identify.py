"""Which architecture a checkpoint holds, and in which layout: from its `config.json`, or from keys and shapes alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from vaeport.checkpoint import Checkpoint, read_config
from vaeport.checkpoint.layout import parse_weight_name
from vaeport.configs import VAEArchConfig
from vaeport.errors import ConfigError, UnknownModelError
from vaeport.mapping import Plan, plan
from vaeport.registry import ModelRegistry, Registration
from vaeport.vae import VAE

Shapes = Mapping[str, tuple[int, ...]]
HALVES = ("encoder", "decoder")
_LOOK = "see what it holds with `vaeport inspect`; name the architecture with model=..., model_variant=..."


@dataclass(frozen=True)
class Candidate:
    """An architecture that a checkpoint may hold, and how its keys would be read."""

    registration: Registration
    variant: str | None
    arch: VAEArchConfig
    plan: Plan


def identify(
    checkpoint: Checkpoint,
    *,
    model: str | None = None,
    model_variant: str | None = None,
    halves: tuple[str, ...] = HALVES,
) -> Candidate:
    """The one architecture and layout that accounts for every key; an error says why there is none or more than one.

    model, model_variant
                    native name and published configuration; the latter overrules config.json
    halves          what is needed; a file that holds nothing of the other half is whole too

    Raises ConfigError (UnknownModelError among them) or KeyMismatchError.
    """
    in_folder = checkpoint.path.is_dir()
    folder = checkpoint.path if in_folder else checkpoint.path.parent
    file = folder / "config.json"
    if model_variant is None and file.exists():
        try:
            config = read_config(folder)
            registration = ModelRegistry.find_published(config, where=file)
        except ConfigError:
            # Beside official files lie other models' configs too: that beside `Wan2.1_VAE.pth` is the transformer's.
            if in_folder or parse_weight_name(checkpoint.path.name):
                raise
        else:
            if model is not None and ModelRegistry.find(model) is not registration:
                raise ConfigError("config.json is another model's", where=file, expected=model, found=registration.name)
            arch = registration.model.arch_class.from_published(config)
            candidates = list(_candidates(registration, None, arch, _shapes(checkpoint), halves))
            return _best(candidates, checkpoint, "check that config.json and the weights belong together")
    elif in_folder and model is None and model_variant is None:
        fix = "add it, or name the architecture: model=..., model_variant=..."
        raise ConfigError("the folder has no config.json", where=folder, expected="config.json", fix=fix)
    return _by_keys(checkpoint, model, model_variant, halves)


def fit(checkpoint: Checkpoint, registration: Registration, arch: VAEArchConfig) -> Candidate:
    """The checkpoint read as one given architecture; KeyMismatchError if no layout accounts for every key."""
    return _best(list(_candidates(registration, None, arch, _shapes(checkpoint), HALVES)), checkpoint, _LOOK)


def _by_keys(
    checkpoint: Checkpoint, model: str | None, model_variant: str | None, halves: tuple[str, ...]
) -> Candidate:
    shapes = _shapes(checkpoint)
    registrations = ModelRegistry.registrations() if model is None else (ModelRegistry.find(model),)
    archs = [(r, v, a) for r in registrations for v, a in r.model.variants.items() if model_variant in (None, v)]
    if not archs:
        known = ", ".join(v for r in registrations for v in r.model.variants)
        what = f"no published configuration is called `{model_variant}`"
        raise ConfigError(what, where=model, expected=f"one of {known}")
    candidates = [c for r, v, a in archs for c in _candidates(r, v, a, shapes, halves)]
    fitting = [c for c in candidates if c.plan.fits]
    fitting = [c for c in fitting if _is_marked(c, shapes)] or fitting
    if not fitting:
        if model is None and not any(c.plan.steps for c in candidates):
            raise UnknownModelError("no registered architecture has these keys", where=checkpoint.path, fix=_LOOK)
        return _best(candidates, checkpoint, _LOOK)
    if len({repr(c.arch) for c in fitting}) > 1:
        raise ConfigError(
            "keys and shapes fit several published configurations, which differ in constants only",
            where=checkpoint.path,
            found=", ".join(sorted({f"{c.registration.name} {c.variant}" for c in fitting})),
            fix='say which: model_variant="..." (--variant on the command line)',
        )
    return fitting[0]


def _shapes(checkpoint: Checkpoint) -> Shapes:
    return {name: entry.shape for name, entry in checkpoint.entries.items()}


def _candidates(
    registration: Registration, variant: str | None, arch: VAEArchConfig, shapes: Shapes, halves: tuple[str, ...]
) -> Iterator[Candidate]:
    """Each layout, for the whole model, and for the needed half alone."""
    native = _native_shapes(registration.model, arch)
    others = tuple(half for half in HALVES if half not in halves)
    needed = {key: shape for key, shape in native.items() if not key.startswith(others)}
    for layout in registration.layouts:
        for keys in (native, needed) if others else (native,):
            yield Candidate(registration, variant, arch, plan(layout, keys, shapes))


def _native_shapes(model: type[VAE], arch: VAEArchConfig) -> Shapes:
    """Names and shapes of all native weights, without memory for them."""
    with torch.device("meta"):
        return {name: tuple(t.shape) for name, t in model(arch).state_dict().items()}


def _best(candidates: list[Candidate], checkpoint: Checkpoint, fix: str) -> Candidate:
    """The candidate that fits, or else a KeyMismatchError about the one that is nearest to it."""
    best = min(candidates, key=lambda c: len(c.plan.missing) + len(c.plan.unexpected) + len(c.plan.misshapen))
    nearest = f"{best.registration.name} {best.variant or ''}".rstrip()
    best.plan.require(f"{checkpoint.path}, read as {nearest}", fix)
    return best


def _is_marked(candidate: Candidate, shapes: Shapes) -> bool:
    marker = candidate.plan.layout.variants.get(candidate.variant or "")
    return marker is not None and any(re.fullmatch(marker, key) for key in shapes)
