"""Rewrites a reference module so that nothing but what it computes tells which weight is which.

`scramble` returns a module with the same `encode`, `decode` and `config` whose parameters have random names, another
nesting, order and storage, and, apart from it, the truth: what each of its parameters is in the reference.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from tests.port.leaves import Names
from tests.port.rewrite import Rewriter, refuse_unknown
from tests.port.substitutes import Pair, Rows


class Scrambled(nn.Module):
    """The reference's public calls, around a hidden reference."""

    def __init__(self, hidden: Any) -> None:
        super().__init__()
        self.__dict__["_hidden"] = hidden  # not registered

    @property
    def config(self) -> Any:
        return self._hidden.config

    def encode(self, x: Tensor) -> Any:
        return self._hidden.encode(x)

    def decode(self, z: Tensor) -> Any:
        return self._hidden.decode(z)


def scramble(module: nn.Module, seed: int, *, hard: bool = False) -> tuple[Scrambled, tuple[Pair, ...]]:
    """A module that computes what `module` does, and the truth about its parameters. `module` stays as it was.

    hard        also: attention as two products around a softmax, weight norm and affine norms written out, linear maps
                stored transposed, gains with other unit axes
    """
    refuse_unknown(module)
    plain = {id(t): t for m in module.modules() for t in (*m._parameters.values(), *vars(m).values()) if _tensor(t)}
    hidden = copy.deepcopy(module, plain).eval()
    rng = Random(f"{seed} {hard}")
    taken = {word for name, _ in (*module.named_modules(), *module.named_parameters()) for word in name.split(".")}
    rewriter = Rewriter(rng, Names(rng, taken), hard)
    root = Scrambled(hidden)
    rewriter.adopt(root, rewriter.frame(hidden, ""))
    return root.eval(), rewriter.made.truth(root)


def unscrambled(state: Mapping[str, Tensor], truth: Sequence[Pair], shapes: Mapping[str, Sequence[int]]) -> Any:
    """The reference's state dict, of the given shapes, from the scrambled module's."""
    found = {key: torch.full(tuple(shape), float("nan"), dtype=torch.float64) for key, shape in shapes.items()}
    for pair in truth:
        value = state[pair.scrambled]
        value = (value.T if pair.transposed else value)[_slice(pair.scrambled_rows)]
        rows = found[pair.original][_slice(pair.rows)]
        rows.copy_(value.reshape(rows.shape))
    return found


def _tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _slice(rows: Rows | None) -> slice:
    return slice(*rows) if rows else slice(None)
