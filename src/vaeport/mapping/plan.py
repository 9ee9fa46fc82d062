"""A dry run of a weight map: every native key filled, every foreign key used or dropped with a reason."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vaeport.errors import KeyMismatchError
from vaeport.mapping.rules import Layout, Rule

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Step:
    """One native key and the stored keys it is made of."""

    native: str
    shape: tuple[int, ...]
    rule: Rule
    stored: tuple[str, ...]

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape of each stored tensor."""
        parts = len(self.stored)
        return self.rule.units.foreign_shape((self.shape[0] // parts, *self.shape[1:]) if parts > 1 else self.shape)

    def read(self, tensor: Callable[[str], Tensor]) -> Tensor:
        """The native tensor; a view of the stored one unless several are fused."""
        parts = [tensor(key) for key in self.stored]
        if len(parts) == 1:
            return parts[0].view(self.shape)
        return torch.cat(parts, 0).view(self.shape)

    def write(self, native: Tensor) -> dict[str, Tensor]:
        """The stored tensors of a native one."""
        return {
            key: part.view(self.rule.units.foreign_shape(tuple(part.shape)))
            for key, part in zip(self.stored, native.chunk(len(self.stored), 0), strict=True)
        }


@dataclass(frozen=True)
class Plan:
    """What is read for each native key, what is dropped and why, and what does not fit."""

    layout: Layout
    prefix: str
    steps: tuple[Step, ...]
    dropped: Mapping[str, str]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Every key is accounted for, with the right shape."""
        return not (self.missing or self.unexpected or self.misshapen)

    def require(self, where: object, fix: str) -> Plan:
        """Itself, or a KeyMismatchError that lists every key that does not fit."""
        if self.fits:
            return self
        rows = (("missing", self.missing), ("unexpected", self.unexpected), ("wrong shape", self.misshapen))
        found = "; ".join(f"{len(keys)} {name}: {_some(keys)}" for name, keys in rows if keys)
        raise KeyMismatchError(
            "the weights do not fit the model",
            where=where,
            expected=f"layout '{self.layout.name}'",
            found=found,
            fix=fix,
        )

    def convert(self, tensor: Callable[[str], Tensor]) -> Iterator[tuple[str, Tensor]]:
        """Native keys and tensors, one after the other."""
        for step in self.steps:
            yield step.native, step.read(tensor)


def _some(keys: tuple[str, ...], most: int = 8) -> str:
    return ", ".join(keys[:most]) + (f" and {len(keys) - most} more" if len(keys) > most else "")


def plan(layout: Layout, native: Shapes, stored: Shapes | None = None) -> Plan:
    """How `stored` keys make up `native` ones; without `stored`, how native keys are written."""
    rules = {key: layout.rule_of(key) for key in native}
    prefix = _prefix(layout, stored, {name for found in rules.values() if found for name in found[1]})
    spelt: dict[str, str] = {}
    twice: list[str] = []
    for key in sorted(stored or ()):
        if key.startswith(prefix) and spelt.setdefault(layout.canonical(key[len(prefix) :]), key) != key:
            twice.append(key)
    steps: list[Step] = []
    missing: list[str] = []
    misshapen: list[str] = []
    used: set[str] = set()
    for key, shape in native.items():
        found = rules[key]
        if found is None:
            missing.append(f"{key} (no rule)")
            continue
        rule, foreign = found
        used.update(foreign)
        names = tuple(prefix + k if stored is None else spelt.get(k, "") for k in foreign)
        absent = [prefix + k for k, name in zip(foreign, names, strict=True) if not name]
        if absent:
            missing.extend(absent)
            continue
        step = Step(key, tuple(shape), rule, names)
        wrong = [k for k in names if stored is not None and tuple(stored[k]) != step.stored_shape]
        misshapen.extend(f"{k} {list((stored or {})[k])} instead of {list(step.stored_shape)}" for k in wrong)
        if not wrong:
            steps.append(step)
    rest = {name: key for name, key in spelt.items() if name not in used}
    dropped = {
        key: drop.reason for name, key in rest.items() for drop in layout.drops if re.fullmatch(drop.foreign, name)
    }
    unexpected = [key for key in rest.values() if key not in dropped] + [f"{key} (under two names)" for key in twice]
    return Plan(layout, prefix, tuple(steps), dropped, tuple(missing), tuple(unexpected), tuple(misshapen))


def _prefix(layout: Layout, stored: Shapes | None, wanted: set[str]) -> str:
    """The prefix under which the file has most keys that the rules speak of; of equals, that with most at all."""
    if stored is None:
        return layout.prefixes[0]

    def keys(prefix: str) -> tuple[int, int]:
        inside = [key for key in stored if key.startswith(prefix)]
        return sum(layout.canonical(key[len(prefix) :]) in wanted for key in inside), len(inside) if prefix else 0

    return max(sorted(layout.prefixes, key=len), key=keys)
