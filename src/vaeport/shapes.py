"""Reading an architecture's constants off the shapes of its weights, with the keys that show them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Shape = tuple[int, ...]
MOST = 64
"""Levels of a model and blocks of a level that are counted: a hostile header may name a million."""


@dataclass(frozen=True)
class Assumed:
    """A value that no shape shows, chosen so that it agrees with those that shapes do show."""

    value: Any


@dataclass(frozen=True)
class Determined:
    """A value that shapes show, and the stored keys that show it; `no KEY` is a key whose absence does."""

    value: Any
    keys: tuple[str, ...] = ()


@dataclass
class WeightShapes:
    """Shapes of stored weights by native key, in the native orientation.

    What is absent has the size 0, the shape () and no sizes, so that `a or b` falls back on the other half's key.

    find    native key -> the stored key, and the native shape or, where the file lacks it, None
    halves  "encoder", "decoder": those that the file has
    """

    find: Callable[[str], tuple[str, Shape | None]]
    halves: Collection[str]
    keys: list[str] = field(default_factory=list)
    """Stored keys that were asked for and found, to be cleared by who collects them."""

    def shape(self, key: str) -> Shape:
        """The native shape of one weight."""
        name, shape = self.find(key)
        if shape is not None:
            self.keys.append(name)
        return shape or ()

    def size(self, key: str, axis: int) -> int:
        """Length of one axis."""
        shape = self.shape(key)
        return shape[axis] if -len(shape) <= axis < len(shape) else 0

    def sizes(self, pattern: str, axis: int) -> tuple[int, ...]:
        """The same for the keys that have 0, 1, 2, ... in the place of `{}`, as far as they go."""
        found: list[int] = []
        while len(found) < MOST and (size := self.size(pattern.replace("{}", str(len(found))), axis)):
            found.append(size)
        return tuple(found)

    def count(self, pattern: str) -> int:
        """How many keys there are with 0, 1, 2, ... in the place of `{}`."""
        return len(self.sizes(pattern, 0))

    def has(self, *keys: str) -> bool | None:
        """Whether the weight is there, by the first of the keys whose half the file has; None if it has neither."""
        for key in keys:
            if key.partition(".")[0] not in self.halves:
                continue
            name, shape = self.find(key)
            self.keys.append(name if shape is not None else f"no {name}")
            return shape is not None
        return None


@dataclass(frozen=True)
class Collected:
    """Fields of an arch config: shown by shapes, assumed, and looked for in vain."""

    determined: Mapping[str, Determined] = field(default_factory=dict)
    assumed: Mapping[str, Assumed] = field(default_factory=dict)
    unread: tuple[str, ...] = ()

    @property
    def is_near(self) -> bool:
        """Whether most of what was looked for is there."""
        return len(self.determined) >= len(self.unread)


def collect(readings: Iterable[tuple[str, Any]], weights: WeightShapes) -> Collected:
    """What an arch config's `read_shapes` finds.

    A field's keys are those that were asked for since the field before it; none asked for: the same as that one's.
    """
    determined: dict[str, Determined] = {}
    assumed: dict[str, Assumed] = {}
    unread: list[str] = []
    keys: tuple[str, ...] = ()
    for name, value in readings:
        keys = tuple(dict.fromkeys(weights.keys)) or keys
        weights.keys.clear()
        if isinstance(value, Assumed):
            assumed[name] = value
        elif isinstance(value, Determined):
            determined[name] = Determined(value.value, keys)
        elif value is False or (value and value != -1):
            determined[name] = Determined(value, keys)
        else:
            unread.append(name)
    return Collected(determined, assumed, tuple(unread))
