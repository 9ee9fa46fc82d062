"""How data flows between the weights of a model: found by running it, not by reading names.

A *use* is one operation that takes weights and data: a convolution, a matrix product, a norm, a product with a gain.
`Flow` lists the uses of one model and which of them feed which with no weight in between; repeated calls (chunks,
frames) are one use. It is plain data, so that it can be made in another environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

Part = tuple[int, int] | None
"""Output channels [start, stop) of a use that a reader takes, or None for all of them."""


@dataclass(frozen=True, order=True)
class Source:
    """Where data comes from: a use by its number, or "media", "latent" by name.

    softmax     the way leads through a softmax (queries and keys; values do not pass one)
    """

    use: int | str
    part: Part = None
    softmax: bool = False


@dataclass(frozen=True)
class Operand:
    """The weights that one operand is made of, and what the operation does with it.

    kind        "linear", "transposed", "scale", "shift", or the name of the operation
    keys        usually one; two for weight norm; `key#index/count` for one of `count` equal blocks of rows
    shape       as the operation reads it, output channels first and axes of length one left out, where it is a view of
                one weight; () else
    transposed  the stored matrix is the transpose of what is read
    """

    kind: str
    keys: tuple[str, ...]
    shape: tuple[int, ...]
    transposed: bool = False


@dataclass
class Use:
    """One operation with weights.

    operands    in the order in which they act: gain or matrix, then bias
    inputs      where its data comes from
    attributes  stride, padding, eps, groups, ...
    trail       operations without weights that the data passed since
    values      count, sum, sum of squares and of absolute cubes of the result, if they were asked for
    lengths     of the third axis of the data, call by call
    """

    operands: tuple[Operand, ...]
    inputs: set[Source] = field(default_factory=set)
    attributes: dict[str, Any] = field(default_factory=dict)
    trail: list[str] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)

    @property
    def keys(self) -> tuple[str, ...]:
        """All weights of the use."""
        return tuple(key for operand in self.operands for key in operand.keys)


@dataclass
class Flow:
    """The uses of a model in the order of their first call, and what its outputs come from.

    shapes      of all weights by key, those that no use reads too
    outputs     "encoded", "decoded" -> where they come from
    trails      output -> operations without weights before it
    """

    uses: list[Use] = field(default_factory=list)
    outputs: dict[str, set[Source]] = field(default_factory=dict)
    trails: dict[str, list[str]] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def unused(self) -> list[str]:
        """Weights that no use reads."""
        read = {key.partition("#")[0] for use in self.uses for key in use.keys}
        return [key for key in self.shapes if key not in read]

    def to_json(self) -> dict[str, Any]:
        """Plain lists, numbers and strings."""
        return {
            "uses": [{**asdict(use), "inputs": _plain(use.inputs)} for use in self.uses],
            "outputs": {name: _plain(sources) for name, sources in self.outputs.items()},
            "trails": self.trails,
            "shapes": {key: list(shape) for key, shape in self.shapes.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Flow:
        """What `to_json` gave, also after a way through a file."""
        uses = []
        for use in data["uses"]:
            operands = tuple(
                Operand(o["kind"], tuple(o["keys"]), tuple(o["shape"]), o["transposed"]) for o in use["operands"]
            )
            uses.append(Use(**{**use, "operands": operands, "inputs": _sources(use["inputs"])}))
        return cls(
            uses,
            {name: _sources(sources) for name, sources in data["outputs"].items()},
            {name: list(trail) for name, trail in data["trails"].items()},
            {key: tuple(shape) for key, shape in data["shapes"].items()},
        )


def _plain(sources: set[Source]) -> list[list[Any]]:
    return [
        [s.use, None if s.part is None else list(s.part), s.softmax]
        for s in sorted(sources, key=lambda s: (str(s.use), s.part or (-1, -1), s.softmax))
    ]


def _sources(plain: list[Any]) -> set[Source]:
    return {Source(use, None if part is None else (part[0], part[1]), softmax) for use, part, softmax in plain}
