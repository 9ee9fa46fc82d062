"""Copies of the native side in the types of a proof, and what gate D says of a run of one, or of a module of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from vaeport.drift.prepare import within
from vaeport.mapping import Plan
from vaeport.proof.dtypes import DtypeRecorder, Signature
from vaeport.proof.judge import TypeRow, module_pairs, type_rows
from vaeport.proof.prove import Proof

_KINDS = ("input", "stored", "used", "accumulation", "output")
_MOST_CALLS = 8


@dataclass(frozen=True)
class Differing:
    """A row of gate D that differs; `path` is the native module, or the row itself where it is of none."""

    dtype: str
    row: TypeRow
    path: str

    @property
    def kind(self) -> str:
        """What the row is of: "input", "used", ..."""
        return self.row.native.rpartition(": ")[2]

    def says(self) -> str:
        """Both sides, in words."""
        return f"in {self.dtype}: {self.row.says()}"


@dataclass(frozen=True)
class Seen:
    """Types of one run, rows in the order in which they showed; `raised`: the module in which it ended, and why."""

    rows: Signature
    raised: tuple[str, str] | None = None

    @property
    def order(self) -> dict[str, int]:
        """Module -> when it was entered first."""
        return {path: i for i, path in enumerate(r.removesuffix(": input") for r in self.rows if r.endswith(": input"))}


@dataclass
class Call:
    """One call of a module: what was called may be a copy that is bound to conditions."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __call__(self) -> Any:
        """Once more, on the same."""
        return self.module(*self.args, **self.kwargs)


class TypedCopy:
    """The native side in one type, beside the types that the reference has in it."""

    def __init__(self, proof: Proof, mapped: Plan, weights: Path, dtype: str, theirs: Signature) -> None:
        self.side, self.mapped, self.dtype, self.theirs = proof.native, mapped, dtype, theirs
        job = proof.types_job(dtype)
        self.vae = self.side.open(weights)
        nn.Module.to(self.vae, self.side.device, job.dtype)
        self.media, self.latent = (t.to(self.side.device) for t in job.tensors())

    def run(self) -> None:
        """Both halves."""
        self.side.traced(self.vae, self.media, self.latent)

    @cached_property
    def watched(self) -> tuple[str, ...]:
        """Modules that have rows."""
        return tuple(dict.fromkeys(path for path, _ in module_pairs(self.mapped)))

    @torch.no_grad()
    def seen(self, run: Callable[[], Any] | None = None, paths: Iterable[str] | None = None) -> Seen:
        """Types of a run, by default of all; a run that raises shows what came before."""
        recorder = DtypeRecorder(self.vae, self.watched if paths is None else dict.fromkeys(paths))
        error = ""
        try:
            with recorder:
                (run or self.run)()
        except Exception as raised:  # a wrong port may raise anything
            error = f"{type(raised).__name__}: {raised}"
        order = list(recorder.rows)
        sorted_rows = recorder.signature()
        rows = {row: sorted_rows[row] for row in order}
        if not error:
            return Seen(rows)
        entered = [row.removesuffix(": input") for row in order if row.endswith(": input")]
        return Seen(rows, (next((p for p in reversed(entered) if f"{p}: output" not in rows), ""), error))

    def differing(self, seen: Seen, inside: str | None = None) -> list[Differing]:
        """Rows that differ, in the order of the run; of a run of one module, those of it and of what lies `inside`.

        Of a run that raised, and of rows without module in a part of a run, what showed and should not have.
        """
        found = []
        for row in type_rows(self.mapped, seen.rows, self.theirs):
            path = path_of(row.native)
            free = row.native.startswith("free ")
            if row.meant is not None or row.same or not (inside is None or free or within(path, inside)):
                continue
            if (seen.raised or (free and inside is not None)) and not set(row.ours) - set(row.theirs):
                continue
            found.append(Differing(self.dtype, row, path))
        order = seen.order
        kinds = {kind: i for i, kind in enumerate(_KINDS)}
        return sorted(found, key=lambda d: (order.get(d.path, len(order)), kinds.get(d.kind, -1)))

    @torch.no_grad()
    def calls(self, path: str) -> list[Call]:
        """The calls of a module in a run."""
        found: list[Call] = []

        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            if len(found) < _MOST_CALLS:
                copied = tree_map(lambda t: t.clone() if isinstance(t, torch.Tensor) else t, (args, kwargs))
                found.append(Call(module, *copied))

        handle = self.vae.get_submodule(path).register_forward_pre_hook(hook, with_kwargs=True, prepend=True)
        try:
            self.run()
        except Exception:  # what came before is what is asked for
            pass
        finally:
            handle.remove()
        return found


def path_of(row: str) -> str:
    """Native module of a row, or the row itself."""
    if row.startswith("free "):
        return row
    path, _, kind = row.rpartition(": ")
    return path.rpartition(".")[0] if kind in ("stored", "used") else path
