"""The reference in the types of a proof: the types of its modules, and what single modules took and gave."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from vaeport.drift.align import paths_of, units_of
from vaeport.drift.layouts import fitted
from vaeport.errors import ProofError
from vaeport.mapping import Plan
from vaeport.proof.dtypes import Signature
from vaeport.proof.judge import module_pairs
from vaeport.proof.prove import Proof
from vaeport.proof.recording import Captured


class TypedReference:
    """Runs the reference when it is asked; what it wrote lies in `folder`."""

    def __init__(self, proof: Proof, mapped: Plan, weights: Path, folder: Path) -> None:
        self.proof, self.mapped, self.weights, self.folder = proof, mapped, weights, folder
        units = {unit.native: unit.reference for unit in units_of(mapped, paths_of(mapped))}
        self._references = units | dict(reversed(module_pairs(mapped)))
        self._captured: dict[tuple[str, str], Captured | None] = {}

    def of(self, native: str) -> str:
        """Its module of a native one; "" if there is none."""
        return self._references.get(native, "")

    def around(self, native: str) -> str:
        """Its module of a native one, or of the innermost around that which has one."""
        while native and native not in self._references:
            native = native.rpartition(".")[0]
        return self.of(native)

    def signatures(self) -> dict[str, Signature]:
        """Type -> rows. ProofError if it does not run."""
        watched = tuple(dict.fromkeys(path for _, path in module_pairs(self.mapped)))
        jobs = [self.proof.types_job(dtype, watched) for dtype in self.proof.dtypes]
        found = {}
        for dtype, capture in zip(self.proof.dtypes, self.proof.reference.run(self.weights, jobs), strict=True):
            if capture.error is not None:
                raise ProofError("the reference does not run", where=f"gate D, {dtype}", found=capture.error)
            found[dtype] = capture.signature
        return found

    def place(self, dtype: str, path: str) -> str:
        """file:line of one of its modules, or of the innermost around it that has a forward of its own."""
        while path:
            captured = self._run(dtype, path)
            unit = None if captured is None else captured.record.units.get(path)
            if unit is not None and unit.calls:
                return unit.place
            path = path.rpartition(".")[0]
        return "unknown"

    def tensor(self, dtype: str, native: str, end: str, like: Tensor) -> Tensor | None:
        """What its module of a native one took ("in") or gave ("out") in a type, in the native layout."""
        path = self.of(native)
        captured = self._run(dtype, path) if path else None
        if captured is None:
            return None
        return fitted(captured.calls(path, end), like.shape, self.proof.types_job(dtype).media.shape[0])

    def _run(self, dtype: str, path: str) -> Captured | None:
        if (dtype, path) not in self._captured:
            folder = self.folder / f"module{len(self._captured)}"
            job = replace(self.proof.types_job(dtype), rows=None, units=(path,), folder=str(folder))
            (capture,) = self.proof.reference.run(self.weights, [job])
            self._captured[dtype, path] = None if capture.error else Captured(folder)
        return self._captured[dtype, path]
