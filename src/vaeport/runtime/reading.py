"""A checkpoint read as one architecture in one layout behind one prefix: what its shapes show, what does not fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from vaeport.configs import VAEArchConfig
from vaeport.mapping import Block, Plan
from vaeport.registry import Registration
from vaeport.shapes import Determined
from vaeport.vae import VAE

Shapes = Mapping[str, tuple[int, ...]]
HALVES = ("encoder", "decoder")


def native_shapes(model: type[VAE], arch: VAEArchConfig) -> Shapes:
    """Names and shapes of all native weights, without memory for them."""
    with torch.device("meta"):
        return weight_shapes(model(arch))


def weight_shapes(vae: nn.Module) -> Shapes:
    """Names and shapes of all weights of a model that is there."""
    return {name: tuple(t.shape) for name, t in vae.state_dict().items()}


@dataclass(frozen=True)
class Reading:
    """A checkpoint as one architecture.

    arch        constants: those that shapes show, and for the others those of the first of `variants`, or defaults
    variants    published configurations that the weights fit
    shown       fields that shapes show, with the keys that show them
    native      shapes of all native weights
    whole       the plan for both halves
    stored      how many keys the checkpoint has behind the prefix
    """

    registration: Registration
    arch: VAEArchConfig
    variants: tuple[str, ...]
    shown: Mapping[str, Determined]
    native: Shapes
    whole: Plan
    stored: int

    def named(self, variants: tuple[str, ...]) -> Reading:
        """The same as published variants, with the constants of the first."""
        arch = self.registration.model.variants[variants[0]] if variants else self.arch
        return replace(self, variants=variants, arch=arch)

    @property
    def name(self) -> str:
        """The architecture, with the first variant that fits."""
        return " ".join((self.registration.name, *self.variants[:1]))

    @property
    def has_known_prefix(self) -> bool:
        """Whether the layout is published behind this prefix."""
        return self.whole.prefix in self.whole.layout.prefixes

    @cached_property
    def halves(self) -> dict[str, tuple[int, int]]:
        """Per half, how many of its native weights the checkpoint has, and how many there are."""
        filled = [step.native for step in self.whole.steps]
        return {h: (sum(map(_of(h), filled)), sum(map(_of(h), self.native))) for h in HALVES}

    @property
    def present(self) -> tuple[str, ...]:
        """Halves that are there for the most part."""
        return tuple(half for half, (filled, of) in self.halves.items() if 2 * filled > of)

    def plan_for(self, halves: Iterable[str]) -> Plan:
        """The plan if these halves are needed: another may be missing for the most part, but nothing of it wrong."""
        others = tuple(f"{half}." for half in HALVES if half not in (*halves, *self.present))
        layout, prefix = self.whole.layout, self.whole.prefix
        spare: set[str] = set()
        for key in self.native if others else ():
            if key.startswith(others):
                _, foreign = layout.rule_of(key) or (None, ())
                spare |= {prefix + Block.parse(text).key for text in foreign} or {f"{key} (no rule)"}
        return replace(self.whole, missing=tuple(key for key in self.whole.missing if key not in spare))

    @cached_property
    def plan(self) -> Plan:
        """The plan for the halves that are there."""
        return self.plan_for(self.present or HALVES)

    @cached_property
    def used(self) -> set[str]:
        """Stored keys that native weights are made of."""
        return {key for step in self.whole.steps for key in step.stored}

    @property
    def misfits(self) -> int:
        """Keys that are missing, unexpected, or of another shape."""
        return self.plan.misfits

    @property
    def determined(self) -> dict[str, Determined]:
        """Fields that shapes show, as far as `arch` writes them in the same way: 48 x (2, 4) may be 96 x (1, 2)."""
        return {name: one for name, one in self.shown.items() if getattr(self.arch, name) == one.value}

    @property
    def undetermined(self) -> dict[str, Any]:
        """Fields that no shape shows, with the values that would be assumed."""
        shown = {*self.determined, "extra"}
        return {f.name: getattr(self.arch, f.name) for f in fields(self.arch) if f.name not in shown}


def _of(half: str) -> Any:
    return lambda key: key.startswith(f"{half}.")
