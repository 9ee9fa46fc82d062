"""Which architecture a checkpoint holds, and in which layout: from its configuration, or from keys and shapes alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NoReturn

from vaeport.checkpoint import Checkpoint
from vaeport.configs import VAEArchConfig
from vaeport.errors import ConfigError, KeyMismatchError, UnknownModelError
from vaeport.mapping import Plan
from vaeport.registry import ModelRegistry, Registration
from vaeport.runtime.label import Label, label_of
from vaeport.runtime.reader import read_as, readings
from vaeport.runtime.reading import HALVES, Reading, Shapes, native_shapes

__all__ = ["HALVES", "Candidate", "Shapes", "fit", "identify", "native_shapes"]

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
                    native name and published configuration; the latter overrules what the checkpoint says of itself
    halves          what is needed; a file that holds nothing of the other half is whole too

    Raises ConfigError (UnknownModelError among them) or KeyMismatchError.
    """
    label = label_of(checkpoint) if model_variant is None else None
    shapes = shapes_of(checkpoint)
    if label is not None:
        if model is not None and ModelRegistry.find(model) is not label.registration:
            what = f"{label.source} is another model's"
            raise ConfigError(what, where=label.where, expected=model, found=label.registration.name)
        reading = read_as(shapes, label.registration, {"": label.arch})[0]
        if not reading.plan_for(halves).fits:
            contradict(checkpoint, label, reading, halves)
        return _candidate(reading, None, halves)
    if model_variant is not None:
        return _named(checkpoint, shapes, model, model_variant, halves)
    if checkpoint.path.is_dir() and model is None:
        fix = "add it, or name the architecture: model=..., model_variant=..."
        raise ConfigError("the folder has no config.json", where=checkpoint.path, expected="config.json", fix=fix)
    known = ModelRegistry.registrations() if model is None else (ModelRegistry.find(model),)
    found = readings(shapes, known)
    if not found and model is None:
        raise UnknownModelError("no registered architecture has these keys", where=checkpoint.path, fix=_LOOK)
    return _one(checkpoint, found or read_as(shapes, known[0], known[0].model.variants, published=True), halves)


def fit(checkpoint: Checkpoint, registration: Registration, arch: VAEArchConfig) -> Candidate:
    """The checkpoint read as one given architecture; KeyMismatchError if no layout accounts for every key."""
    reading = read_as(shapes_of(checkpoint), registration, {"": arch})[0]
    _require(checkpoint, reading, HALVES)
    return _candidate(reading, None, HALVES)


def shapes_of(checkpoint: Checkpoint) -> Shapes:
    """Names and shapes of all stored tensors."""
    return {name: entry.shape for name, entry in checkpoint.entries.items()}


def _named(
    checkpoint: Checkpoint, shapes: Shapes, model: str | None, variant: str, halves: tuple[str, ...]
) -> Candidate:
    """As a published configuration that was asked for."""
    registrations = ModelRegistry.registrations() if model is None else (ModelRegistry.find(model),)
    having = [one for one in registrations if variant in one.model.variants]
    if not having:
        known = ", ".join(v for one in registrations for v in one.model.variants)
        what = f"no published configuration is called `{variant}`"
        raise ConfigError(what, where=model, expected=f"one of {known}")
    found = [r for one in having for r in read_as(shapes, one, {variant: one.model.variants[variant]}, published=True)]
    return _one(checkpoint, found, halves)


def _one(checkpoint: Checkpoint, found: Sequence[Reading], halves: tuple[str, ...]) -> Candidate:
    """The one reading that fits, as the one published configuration that it is."""
    fitting = different([one for one in found if one.plan_for(halves).fits])
    if not fitting:
        _require(checkpoint, min(found, key=lambda one: one.plan_for(halves).misfits), halves)
    if len(fitting) > 1:
        refuse_several(checkpoint, fitting)
    reading = fitting[0]
    if not reading.variants:
        raise ConfigError(
            f"keys and shapes fit {reading.registration.name}, but no published configuration of it",
            where=checkpoint.path,
            expected="a config.json, which tells what no shape does: " + ", ".join(reading.undetermined),
            found=", ".join(f"{name} {one.value}" for name, one in reading.determined.items()),
            fix="`vaeport inspect --json` has one under `config`, to be completed and put beside the weights",
        )
    archs = {variant: reading.registration.model.variants[variant] for variant in reading.variants}
    if len({repr(arch) for arch in archs.values()}) > 1:
        raise ConfigError(
            "keys and shapes fit several published configurations, which differ in constants only",
            where=checkpoint.path,
            found=", ".join(sorted(f"{reading.registration.name} {variant}" for variant in archs)),
            fix='say which: model_variant="..." (--variant on the command line)',
        )
    return _candidate(reading, reading.variants[0], halves)


def different(fitting: Sequence[Reading]) -> list[Reading]:
    """One reading per architecture and prefix: published ones if any, and of these, those behind known prefixes if any.

    Layouts in which a half is alike are one reading, with the variants of each.
    """
    groups: dict[tuple[object, str], list[Reading]] = {}
    for one in fitting:
        # a package may register one class under several published names
        groups.setdefault((one.registration.model, one.whole.prefix), []).append(one)
    found = []
    for best, *others in groups.values():
        variants = {v for one in (best, *others) for v in one.variants}
        found.append(
            best.named(tuple(v for v in best.registration.model.variants if v in variants)) if others else best
        )
    found = [one for one in found if one.variants] or found
    known = {one.registration.name for one in found if one.has_known_prefix}
    return [one for one in found if one.has_known_prefix or one.registration.name not in known]


def refuse_several(checkpoint: Checkpoint, fitting: Sequence[Reading]) -> NoReturn:
    """ConfigError that shows every reading."""
    names = sorted({one.registration.name for one in fitting})
    shown = "; ".join(_described(one, fitting) for one in fitting)
    if len(names) == 1:
        what, fix = "the file holds several VAEs", "save the tensors of one of them to a file of its own"
    else:
        what = "keys and shapes fit several architectures, which differ in what no key shows"
        choices = " or ".join(f'model="{name}"' for name in names)
        fix = f"say which: {choices} (--model on the command line), or put its config.json beside the file"
    raise ConfigError(what, where=checkpoint.path, found=shown, fix=fix)


def _described(reading: Reading, among: Sequence[Reading]) -> str:
    """Name, layout and prefix of a reading, and the constants in which it differs from the others."""
    others = [vars(one.arch) for one in among if one is not reading]
    own = {f.name: getattr(reading.arch, f.name) for f in fields(reading.arch) if f.name != "extra"}
    odd = [f"{name} {value}" for name, value in own.items() if any(name in o and o[name] != value for o in others)]
    odd += [f"{name} {value}" for name, value in own.items() if any(name not in o for o in others)]
    place = f"layout {reading.whole.layout.name}" + (f", prefix {reading.whole.prefix}" if reading.whole.prefix else "")
    return f"{reading.name} ({', '.join([place, *odd[:6]])})"


def contradict(checkpoint: Checkpoint, label: Label, reading: Reading, halves: tuple[str, ...]) -> NoReturn:
    """KeyMismatchError that shows what the configuration says and what the weights say."""
    where = f"{checkpoint.path}, read as {reading.name}"
    fix = f"check that {label.source} and the weights belong together"
    best = next((one for one in readings(shapes_of(checkpoint), ModelRegistry.registrations()) if one.plan.fits), None)
    try:
        reading.plan_for(halves).require(where, fix)
    except KeyMismatchError as error:
        expected, found = error.expected, error.found
    if best is not None:
        said, shown = differences(label.arch, best)
        expected = f"{expected}, as {label.source} says: {said}"
        found = f"{found}; the weights alone say: {shown}"
    raise KeyMismatchError("the weights do not fit the model", where=where, expected=expected, found=found, fix=fix)


def differences(said: VAEArchConfig, best: Reading) -> tuple[str, str]:
    """What a configuration says otherwise than the shapes, and what they say, with the keys that show it."""
    if type(said) is not type(best.arch):
        return said.class_names[0], f"{best.name}, layout '{best.whole.layout.name}'"
    odd = {name: one for name, one in best.shown.items() if getattr(said, name) != one.value}
    configured = ", ".join(f"{name} {getattr(said, name)}" for name in odd)
    return configured, ", ".join(f"{name} {one.value} ({', '.join(one.keys[:1])})" for name, one in odd.items())


def _require(checkpoint: Checkpoint, reading: Reading, halves: tuple[str, ...]) -> None:
    reading.plan_for(halves).require(f"{checkpoint.path}, read as {reading.name}", _LOOK)


def _candidate(reading: Reading, variant: str | None, halves: tuple[str, ...]) -> Candidate:
    arch = reading.arch if variant is None else reading.registration.model.variants[variant]
    return Candidate(reading.registration, variant, arch, reading.plan_for(halves))
