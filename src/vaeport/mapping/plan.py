"""A dry run of a weight map: every native key filled, every foreign key used or dropped with a reason."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vaeport.errors import KeyMismatchError
from vaeport.mapping.rules import Block, Layout, Rule, Units

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Step:
    """One native key and the stored tensors, or blocks of them, that it is made of."""

    native: str
    shape: tuple[int, ...]
    rule: Rule
    blocks: tuple[Block, ...]

    @property
    def stored(self) -> tuple[str, ...]:
        """The stored keys."""
        return tuple(block.key for block in self.blocks)

    @property
    def _part(self) -> tuple[int, ...]:
        parts = len(self.blocks)
        return (self.shape[0] // parts, *self.shape[1:]) if parts > 1 else self.shape

    def stored_shape(self, block: Block) -> tuple[int, ...]:
        """Shape of the stored tensor that a block is of."""
        rows, *rest = self._part or (1,)
        return self.units_of(block).foreign_shape((rows * block.count, *rest) if block.count > 1 else self._part)

    def units_of(self, block: Block) -> Units:
        """How the stored tensor of one of the blocks lies."""
        return self.rule.units_of(self.blocks.index(block))

    def read(self, tensor: Callable[[str], Tensor]) -> Tensor:
        """The native tensor; a view of the stored one unless several are joined or it is transposed."""
        parts = []
        for block in self.blocks:
            whole, units = tensor(block.key), self.units_of(block)
            turned = _reversed(whole).contiguous() if units.transposed else whole
            rows = turned.chunk(block.count, max(0, units.lead))[block.index] if block.count > 1 else turned
            parts.append(rows.reshape(self._part))
        return parts[0] if len(parts) == 1 else torch.cat(parts, 0)

    def write(self, native: Tensor) -> dict[str, Tensor]:
        """The stored tensors of a native one, for a key that shares none of them with another."""
        return written(dict(self.split(native)), self)

    def split(self, native: Tensor) -> Iterator[tuple[Block, Tensor]]:
        """The stored blocks of a native tensor."""
        parts = native.chunk(len(self.blocks), 0) if len(self.blocks) > 1 else (native,)
        for block, part in zip(self.blocks, parts, strict=True):
            units = self.units_of(block)
            shape = units.foreign_shape(tuple(part.shape))
            yield block, _reversed(part.reshape(shape[::-1])) if units.transposed else part.reshape(shape)


def written(blocks: Mapping[Block, Tensor], step: Step) -> dict[str, Tensor]:
    """Stored tensors from their blocks, all of which must be there."""
    keys = dict.fromkeys(block.key for block in blocks)
    found = {}
    for key in keys:
        units = next(step.units_of(block) for block in step.blocks if block.key == key)
        axis = -1 - max(0, units.lead) if units.transposed else max(0, units.lead)
        parts = [blocks[block] for block in sorted((b for b in blocks if b.key == key), key=lambda b: b.index)]
        found[key] = parts[0] if len(parts) == 1 else torch.cat(parts, axis)
    return found


def _reversed(tensor: Tensor) -> Tensor:
    return tensor.permute(*reversed(range(tensor.dim())))


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
    def misfits(self) -> int:
        """Keys that are missing, unexpected, or of another shape."""
        return len(self.missing) + len(self.unexpected) + len(self.misshapen)

    @property
    def fits(self) -> bool:
        """Every key is accounted for, with the right shape."""
        return not self.misfits

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

    def write(self, native: Callable[[str], Tensor]) -> Iterator[tuple[str, Tensor]]:
        """Stored keys and tensors, one after the other, from native ones; nothing but open blocks is kept.

        Raises KeyMismatchError if the native ones lack a block of a stored tensor.
        """
        waiting: dict[str, dict[Block, Tensor]] = {}
        for step in self.steps:
            for block, part in step.split(native(step.native)):
                held = waiting.setdefault(block.key, {})
                held[block] = part
                if len(held) == block.count:
                    yield from written(waiting.pop(block.key), step).items()
        if waiting:
            raise KeyMismatchError(
                "the map fills parts of stored tensors only",
                where=f"layout '{self.layout.name}'",
                found=", ".join(f"{key}: {len(held)} of its blocks" for key, held in waiting.items()),
                fix="map every block of them",
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
    foreign_keys = {Block.parse(text).key for found in rules.values() if found for text in found[1]}
    prefix = _prefix(layout, stored, foreign_keys)
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
        blocks = [Block.parse(text) for text in foreign]
        used.update(block.key for block in blocks)
        names = [prefix + b.key if stored is None else spelt.get(b.key, "") for b in blocks]
        absent = [prefix + b.key for b, name in zip(blocks, names, strict=True) if not name]
        if absent:
            missing.extend(dict.fromkeys(absent))
            continue
        step = Step(key, tuple(shape), rule, tuple(replace(b, key=n) for b, n in zip(blocks, names, strict=True)))
        wanted = {block.key: step.stored_shape(block) for block in step.blocks}
        wrong = [k for k, want in wanted.items() if stored is not None and tuple(stored[k]) != want]
        misshapen.extend(f"{k} {list((stored or {})[k])} instead of {list(wanted[k])}" for k in wrong)
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
