"""Own and inherited errors of the aligned units, measured on one case in float64."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from vaeport.drift.align import Unit as Aligned
from vaeport.drift.forced import Forcing, in_one_piece
from vaeport.drift.prepare import Prepared, opened
from vaeport.drift.truth import HALVES, Truth, error_of
from vaeport.proof.prove import Proof
from vaeport.proof.recording import first_tensor
from vaeport.report.compared import figure
from vaeport.report.schema import Unit
from vaeport.vae import VAE


def measured_units(proof: Proof, given: Prepared) -> tuple[Unit, ...]:
    """Every aligned unit that both sides' tensors of the first case could be compared at, in the order of the run."""
    vae, truth = opened(proof, given.weights), given.truths[0]
    forcing = Forcing(proof.native, vae, given.units, truth)
    free, forced = _Errors(truth), _Errors(truth)
    with in_one_piece(vae), free.watching(vae, given.units):
        for half in HALVES:
            try:
                forcing.outputs(half)
            except Exception:  # a wrong port may raise anything; what it has run until then is known
                continue
    # these hooks come first, and see what a unit gives before it is replaced by the reference's
    with forced.watching(vae, given.units):
        forcing.run(HALVES, {})
    rows = []
    for unit in sorted(given.units, key=lambda unit: free.order.get(unit.native, len(free.order))):
        own, inherited, after = (side.get(unit.native) for side in (forced.given, free.taken, free.given))
        if own is None and after is None:
            continue
        errors = [None if value is None else figure(value) for value in (own, inherited, after)]
        told = dict(zip(("own", "inherited", "after"), errors, strict=True))
        rows.append(Unit(unit=unit.native, reference=unit.reference, **told))
    return tuple(rows)


class _Errors:
    """The worst error of what each unit took and gave, over its calls."""

    def __init__(self, truth: Truth) -> None:
        self.truth = truth
        self.taken: dict[str, float] = {}
        self.given: dict[str, float] = {}
        self.order: dict[str, int] = {}
        self._calls: dict[str, int] = {}

    @contextmanager
    def watching(self, vae: VAE, units: Sequence[Aligned]) -> Iterator[None]:
        """Within, what runs is compared."""
        with ExitStack() as hooks:
            for unit in units:
                module = vae.get_submodule(unit.native)
                for handle in (
                    module.register_forward_pre_hook(self._enters(unit)),
                    module.register_forward_hook(self._leaves(unit)),
                ):
                    hooks.callback(handle.remove)
            yield

    def _enters(self, unit: Aligned) -> Any:
        def hook(module: nn.Module, args: Any) -> None:
            self.order.setdefault(unit.native, len(self.order))
            self._compare(unit, "in", args, self.taken)

        return hook

    def _leaves(self, unit: Aligned) -> Any:
        def hook(module: nn.Module, args: Any, out: Any) -> None:
            self._compare(unit, "out", out, self.given)
            self._calls[unit.native] = self._calls.get(unit.native, 0) + 1

        return hook

    def _compare(self, unit: Aligned, end: str, value: Any, errors: dict[str, float]) -> None:
        tensor = first_tensor(value)
        if tensor is None:
            return
        wanted = self.truth.fitted(unit.reference, end, tensor.shape, self._calls.get(unit.native, 0))
        if wanted is not None:
            errors[unit.native] = max(errors.get(unit.native, 0.0), error_of(tensor, wanted))
