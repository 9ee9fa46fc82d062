"""The changes that are worth trying at a place, the likeliest first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from torch import Tensor

from vaeport.drift.edits.attributes import attribute_edits, config_edits
from vaeport.drift.edits.calls import call_edits
from vaeport.drift.edits.edit import Edit, Scope, values
from vaeport.drift.edits.fits import combined_edits, fitted_edits
from vaeport.drift.edits.latents import latent_edits, normalisation_edits
from vaeport.drift.edits.parameters import parameter_edits
from vaeport.drift.edits.structure import structure_edits
from vaeport.drift.edits.watching import calls_in
from vaeport.drift.edits.words import word_edits
from vaeport.drift.forced import Forcing
from vaeport.drift.prepare import within
from vaeport.drift.trial import Trial
from vaeport.drift.truth import DECODE, ENCODE


def edits_for(trial: Trial, reference_unit: str, told: Sequence[object], failed: list[str]) -> Iterator[Edit]:
    """Changes to try, the likeliest first: what is told by a constant before what is only fitted.

    failed      is told which kinds of changes could not be listed
    """
    for source in _sources(trial, reference_unit, told):
        try:
            yield from source
        except Exception as error:  # they look into modules of any kind
            kind = getattr(source, "__name__", "changes")
            failed.append(f"{kind} of {trial.place.unit or 'the VAE'}: {type(error).__name__}: {error}")


def _sources(trial: Trial, reference_unit: str, told: Sequence[object]) -> Iterator[Iterable[Edit]]:
    """Where changes come from, in order."""
    forcing, place = trial.forcing, trial.place
    first = next((d for d in place.differences if d.found is not None and d.wanted is not None), place.differences[0])
    scope = Scope(
        forcing.vae,
        modules_of(trial),
        [*hints_of(forcing, reference_unit), *told],
        first.found,
        first.wanted,
    )
    if not place.unit:
        yield config_edits(scope)
    for difference in place.differences if not place.unit else ():
        at = difference.spot.at
        around = Scope(forcing.vae, [""], scope.hints, difference.found, difference.wanted)
        if at == "normalized":
            yield normalisation_edits(around, _mean(trial))
        if " " in at:
            yield fitted_edits(around, at)
        yield latent_edits(around, at)
    yield attribute_edits(scope)
    if place.unit:
        calls = calls_in(scope, trial.errors)
        yield call_edits(calls, scope.hints)
        yield structure_edits(scope)
        yield parameter_edits(scope)
        spot = first.spot.at if " " in first.spot.at else f"{first.spot.at} {place.unit}"
        near = _near(trial)
        yield combined_edits(scope, spot, near, simple=True)
        yield word_edits(scope)
        yield call_edits(calls, scope.hints, operations=True)
        yield combined_edits(scope, spot, near, simple=False)
        yield fitted_edits(scope, spot)


def modules_of(trial: Trial) -> list[str]:
    """The unit's own modules: those of its aligned children are theirs."""
    forcing, unit = trial.forcing, trial.place.unit
    aligned = forcing.fitting - set(trial.around)
    names = [name for name, _ in forcing.vae.named_modules()]
    if not unit:
        tops = ("encoder", "decoder")
        return [n for n in names if n not in aligned and not any(within(n, t) for t in (*tops, *aligned))]
    children = [u for u in aligned if u != unit and within(u, unit)]
    return [n for n in names if within(n, unit) and not any(within(n, c) for c in children)]


def hints_of(forcing: Forcing, reference_unit: str) -> list[object]:
    """Constants of the reference's module and of its operations."""
    record = forcing.truth.captured.record
    path = "" if reference_unit in (ENCODE, DECODE) else reference_unit
    found: list[object] = []
    if path in record.units:
        found += values(record.units[path].constants)
    for operation in record.operations:
        if path and within(operation.unit, path):
            found += values(operation.constants)
    unique: list[object] = []
    for value in found:
        if not any(type(value) is type(u) and value == u for u in unique):
            unique.append(value)
    return unique


def _near(trial: Trial) -> list[tuple[str, str, Tensor]]:
    """Tensors of the unit and its children that a residual could be."""
    forcing, found = trial.forcing, []
    near = [
        u for u in forcing.units if u.native == trial.place.unit or forcing.parents.get(u.native) == trial.place.unit
    ]
    for unit in near:
        for end in ("in", "out"):
            if unit.native == trial.place.unit and end == "out":
                continue
            calls = forcing.truth.calls(unit.reference, end)
            shape = None if not trial.place.differences else trial.place.differences[0].found
            if calls and shape is not None:
                tensor = forcing.truth.fitted(unit.reference, end, shape.shape, 0)
                if tensor is not None:
                    found.append((unit.native, end, tensor))
    return found


def _mean(trial: Trial) -> Tensor | None:
    try:
        return trial.forcing.outputs("encode").get("mean")
    except Exception:  # a wrong port may raise anything
        return None
