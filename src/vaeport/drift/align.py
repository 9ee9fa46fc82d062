"""Which native module answers to which module of the reference: those that are made of the same weights."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass

from vaeport.mapping import Plan
from vaeport.proof.judge import HALVES


@dataclass(frozen=True)
class Unit:
    """A native module and the module of the reference that has all its weights, and no others.

    within  the native unit around it with the same weights, whose tensors have to be unlike the reference's for this
            one to be compared
    """

    native: str
    reference: str
    within: str = ""


def paths_of(mapped: Plan) -> tuple[str, ...]:
    """Modules of the reference that may be part of a unit."""
    return tuple(_sets({key: frozenset((key,)) for step in mapped.steps for key in step.stored}))


def units_of(mapped: Plan, called: Container[str]) -> tuple[Unit, ...]:
    """The aligned units, outer before inner, of the modules of the reference that were `called`.

    Several modules may hold the same weights, one around the other. Where both sides have as many, they are units one
    by one; else the outermost of both sides are, and the layer that owns the
    weights stands by.
    """
    ours = _sets({step.native: frozenset(step.stored) for step in mapped.steps if step.native.startswith(HALVES)})
    parts = {step.native: {b.key for b in step.blocks if b.count > 1} for step in mapped.steps}
    open_keys = set().union(*parts.values())
    theirs = _sets({key: frozenset((key,)) for step in mapped.steps for key in step.stored})
    shared: dict[frozenset[str], list[str]] = {}
    for path, keys in theirs.items():
        if path in called:
            shared.setdefault(keys, []).append(path)
    chains: dict[frozenset[str], list[str]] = {}
    for path, keys in ours.items():
        if keys in shared and not _torn(path, keys, mapped, open_keys):
            chains.setdefault(keys, []).append(path)
    owners = {step.native.rpartition(".")[0] for step in mapped.steps}
    found = []
    for keys, native in chains.items():
        reference = shared[keys]
        if len(native) == len(reference):
            found += [Unit(*pair) for pair in zip(native, reference, strict=True)]
            continue
        found.append(Unit(native[0], reference[0]))
        if len(native) > 1 and native[-1] in owners:
            found.append(Unit(native[-1], reference[-1], native[0]))
    order = {path: i for i, path in enumerate(ours)}
    return tuple(sorted(found, key=lambda unit: order[unit.native]))


def _torn(path: str, keys: frozenset[str], mapped: Plan, open_keys: set[str]) -> bool:
    """It holds some blocks of a stored weight, and others hold the rest."""
    if not keys & open_keys:
        return False
    held: dict[str, int] = {}
    for step in mapped.steps:
        if step.native.startswith(f"{path}."):
            for block in step.blocks:
                held[block.key] = held.get(block.key, 0) + 1
    counts = {b.key: b.count for step in mapped.steps for b in step.blocks}
    return any(held.get(key, 0) != counts[key] for key in keys)


def _sets(keys: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """Every module path that has weights below it, and the weights; outer before inner."""
    found: dict[str, set[str]] = {}
    for key, stored in keys.items():
        parts = key.split(".")
        for n in range(1, len(parts)):
            found.setdefault(".".join(parts[:n]), set()).update(stored)
    return {path: frozenset(stored) for path, stored in found.items()}
