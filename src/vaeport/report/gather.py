"""`Gathered`: watches a proof and keeps, small, what a report shows beside the verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from vaeport.mapping import Plan
from vaeport.mapping.plan import Step
from vaeport.mapping.rules import Units
from vaeport.proof import gates
from vaeport.proof.jobs import Capture
from vaeport.proof.prove import Proof
from vaeport.report.compared import chosen, compared
from vaeport.report.contract import observed
from vaeport.report.schema import Comparison, Dropped, Mapped, Term

MOST_SHOWN = 12
"""Outputs that are compared cell by cell."""


class Gathered:
    """What was seen of a proof; empty where it did not come to the point at which both sides had run.

    contract, layout, weights, dropped, comparisons
                as in `Report`
    """

    def __init__(self) -> None:
        self.contract: tuple[Term, ...] = ()
        self.layout = ""
        self.weights: tuple[Mapped, ...] = ()
        self.dropped: tuple[Dropped, ...] = ()
        self.comparisons: tuple[Comparison, ...] = ()

    def watch(self, proof: Proof) -> None:
        """From now on, what `proof` runs is seen."""

        def seen(mapped: Plan, native: Mapping[str, Capture], reference: Mapping[str, Capture]) -> None:
            self.layout, self.weights, self.dropped = mapped.layout.name, weights_of(mapped), dropped_of(mapped)
            cases = {case.name: case for case in proof.chosen_cases if case.skip is None}
            ran = {name: (case, reference[f"S {name}"]) for name, case in cases.items()}
            contract = proof.template.contract
            self.contract = observed(contract, ran)
            found = [
                (name, output, native[f"S {name}"].outputs.get(output), truth)
                for name, (_, capture) in ran.items()
                for output, truth in _worth(native[f"S {name}"], capture)
            ]
            shown = _pictured(found)
            self.comparisons = tuple(
                compared(name, output, ours, truth, contract, pictures=(name, output) in shown)
                for name, output, ours, truth in found[:MOST_SHOWN]
            )

        proof.seen = seen


def weights_of(mapped: Plan) -> tuple[Mapped, ...]:
    """The rows of a map."""
    return tuple(
        Mapped(
            native=step.native,
            reference=tuple(f"{b.key} [{b.index + 1} of {b.count}]" if b.count > 1 else b.key for b in step.blocks),
            rule=f"{step.rule.native} ← {step.rule.foreign}",
            how=", ".join(_how(step)) or "as it is",
            shape=step.shape,
        )
        for step in mapped.steps
    )


def dropped_of(mapped: Plan) -> tuple[Dropped, ...]:
    """The reference's keys that a map leaves out."""
    return tuple(Dropped(key=key, reason=reason) for key, reason in sorted(mapped.dropped.items()))


def _how(step: Step) -> Iterator[str]:
    if len(step.blocks) > 1:
        yield f"{len(step.blocks)} joined"
    elif step.blocks and step.blocks[0].count > 1:
        yield "a block of rows"
    units = {step.units_of(block) for block in step.blocks}
    if any(one.transposed for one in units):
        yield "transposed"
    if any((one.lead, one.trail) != (Units().lead, Units().trail) for one in units):
        yield "axes of length one"


def _worth(native: Capture, reference: Capture) -> Iterator[tuple[str, Tensor]]:
    failing = {
        name
        for name, truth in reference.outputs.items()
        if (found := native.outputs.get(name)) is None
        or found.shape != truth.shape
        or not gates.same_function(name, found, truth).passed
    }
    for name in chosen(list(reference.outputs), failing):
        yield name, reference.outputs[name]


def _pictured(found: list[tuple[str, str, Tensor | None, Tensor]]) -> set[tuple[str, str]]:
    """The decoded media of the first case and of the one that differs most, a round trip among them."""
    media = [(name, output, ours, truth) for name, output, ours, truth in found if output in ("decoded", "round_trip")]
    if not media:
        return set()

    def apart(row: tuple[str, str, Tensor | None, Tensor]) -> float:
        ours, truth = row[2:]
        if ours is None or ours.shape != truth.shape:
            return float("inf")
        error = gates.rms(ours - truth) / max(gates.rms(truth), 1e-300)
        return error if error == error else float("inf")

    return {row[:2] for row in (media[0], max(media, key=apart))}
