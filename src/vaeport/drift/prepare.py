"""The reference's side of an explanation: run once per case, with what its modules took and gave on disk."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.utils._pytree import tree_iter

from vaeport.drift.align import Unit, paths_of, units_of
from vaeport.drift.truth import DECODE, ENCODE, Truth
from vaeport.errors import ProofError
from vaeport.mapping import Plan
from vaeport.mapping.plan import Step
from vaeport.proof.cases import Case, cases_of, uneven_cases
from vaeport.proof.jobs import Job
from vaeport.proof.prove import Proof
from vaeport.proof.recording import Called, Captured
from vaeport.vae import VAE


@dataclass(frozen=True)
class Prepared:
    """What the reference did.

    mapped      which of its weights make up the native ones
    weights     the file that both sides load
    truths      one per case
    told        constants that it is called with
    seconds     that its runs took
    """

    mapped: Plan
    weights: Path
    truths: tuple[Truth, ...]
    told: tuple[Any, ...]
    seconds: float

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """The aligned units; the halves themselves answer to the reference's calls."""
        called = {path for path, unit in self.modules.items() if unit.calls}
        return Unit("encoder", ENCODE), Unit("decoder", DECODE), *units_of(self.mapped, called)

    @cached_property
    def references(self) -> Mapping[str, str]:
        """Native unit -> the reference's module."""
        return {unit.native: unit.reference for unit in self.units}

    @property
    def modules(self) -> Mapping[str, Called]:
        """The reference's modules that were watched."""
        return self.truths[0].captured.record.units

    def owner(self, module: str) -> str:
        """The innermost unit that a native module lies in; "" if none."""
        return max((u.native for u in self.units if not u.within and within(module, u.native)), key=len, default="")

    def place(self, unit: str) -> str:
        """file:line of the reference's module of a native unit."""
        reference = self.references.get(unit, "")
        return self.modules[reference].place if reference in self.modules else "unknown"

    def expected(self, name: str) -> Tensor:
        """What the map makes of the reference's weights, in float64."""
        return self._steps[name].read(self._file.get_tensor).double()

    @property
    def names(self) -> tuple[str, ...]:
        """All native weights."""
        return tuple(self._steps)

    @cached_property
    def _file(self) -> safe_open:
        return safe_open(self.weights, framework="pt")

    @cached_property
    def _steps(self) -> Mapping[str, Step]:
        return {step.native: step for step in self.mapped.steps}


def within(name: str, unit: str) -> bool:
    """A module lies in a unit, or is it."""
    return name == unit or name.startswith(f"{unit}.")


@contextmanager
def prepared(proof: Proof, cases: Sequence[Case] | None = None) -> Iterator[Prepared]:
    """Runs the reference; its captures lie on disk as long as the context lasts. ProofError if it does not run."""
    with tempfile.TemporaryDirectory(prefix="vaeport-drift-") as name:
        folder, start = Path(name), time.monotonic()
        mapped, weights = proof.prepared(folder)
        chosen = [case for case in cases or _cases(proof) if case.skip is None]
        if not chosen:
            raise ProofError("no case is run", found="all are skipped", fix="name a case that both sides can run")
        inputs = [tuple(t.double() for t in case.inputs(proof.seed)) for case in chosen]
        paths = paths_of(mapped)
        jobs = [
            Job(case.name, x, z, units=paths, folder=str(folder / str(i)))
            for i, (case, (x, z)) in enumerate(zip(chosen, inputs, strict=True))
        ]
        truths = []
        for job, capture in zip(jobs, proof.reference.run(weights, jobs), strict=True):
            if capture.error is not None:
                raise ProofError("the reference does not run", where=job.name, found=capture.error)
            captured = Captured(Path(str(job.folder)))
            truths.append(Truth(job.media, job.latent, capture.outputs, captured, raw=not proof.native.normalized))
        yield Prepared(mapped, weights, tuple(truths), tuple(_told(proof)), time.monotonic() - start)


def _cases(proof: Proof) -> tuple[Case, ...]:
    """Those of the proof, and more: what was found on one is tried on others."""
    own, contract = proof.chosen_cases, proof.template.contract
    more = (*(cases_of(contract) if len(own) == 1 else ()), *uneven_cases(contract))
    return (*own, *(case for case in more if case.name not in {known.name for known in own}))


def _told(proof: Proof) -> Iterator[Any]:
    """Numbers among the arguments of the reference's encode and decode."""
    convention = getattr(proof.reference, "convention", None)
    given = [] if convention is None else [convention.encode_arguments, convention.decode_arguments]
    yield from (leaf for leaf in tree_iter([dict(part) for part in given]) if isinstance(leaf, int | float | str))


def opened(proof: Proof, weights: Path) -> VAE:
    """The native side as users open it, in float64 on the CPU."""
    vae = proof.native.open(weights)
    nn.Module.to(vae, "cpu", torch.float64)
    return vae.eval().requires_grad_(False)
