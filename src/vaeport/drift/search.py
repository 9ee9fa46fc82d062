"""The search for the change that mends one place: made, tried on the reference's own tensors, and taken back."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from vaeport.drift.candidates import edits_for
from vaeport.drift.edits.edit import Edit
from vaeport.drift.edits.words import renamed
from vaeport.drift.explanation import Attempt
from vaeport.drift.memory import at_most
from vaeport.drift.passage import Difference, Spot
from vaeport.drift.trial import Trial
from vaeport.drift.truth import STAGES

_LEAST = 2 * 2**30
"""Bytes that a change may always ask for."""
_MORE = 4
"""How many times the changes that were tried until one mends a place are tried for one that mends the outputs too."""


@dataclass
class Answer:
    """The change that mends a place, or None; how many were tried; what was left of the error; what was not tried.

    attempts    the changes that were tried, in their order
    """

    edit: Edit | None
    tried: int
    remaining: float | None = None
    left_out: list[str] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)


def search(
    trial: Trial, checks: Sequence[Trial], reference_unit: str, told: Sequence[object], seconds: float
) -> Answer:
    """The first change after which nothing differs at the place, in this case and in those of `checks`.

    A case in which nothing can be compared there, since the reference drops what ours does not, asks for the right
    outputs: they show the change to be wrong, or another fault, so the search for a better one is short. When several
    faults lie there, the first that mends one spot and breaks none, in all cases.
    """
    if not trial.place.differences:  # it shows in the whole run alone
        return Answer(None, 0)
    found = [d.found for d in trial.place.differences if d.found is not None]
    sizes = [64 * t.nbytes for t in found] + [2048 * one.forcing.truth.media.nbytes for one in (trial, *checks)]
    with at_most(max(_LEAST, *sizes)):
        attempts: list[Attempt] = []
        answer = _searched(trial, checks, reference_unit, told, seconds, attempts)
        answer.attempts = attempts
        return answer


def _searched(
    trial: Trial,
    checks: Sequence[Trial],
    reference_unit: str,
    told: Sequence[object],
    seconds: float,
    attempts: list[Attempt],
) -> Answer:
    deadline, tried = time.monotonic() + seconds, 0
    partly: tuple[Edit, float] | None = None
    mends: tuple[Edit, int] | None = None
    blind = [check for check in checks if not check.compared]
    left_out: list[str] = []
    for edit in edits_for(trial, reference_unit, told, left_out):
        if time.monotonic() > deadline:
            left_out.append(f"changes of {trial.place.unit or 'the VAE'} that were not reached in {seconds:.0f} s")
            break
        if mends and tried > _MORE * mends[1]:
            break
        tried += 1
        after = _tried(edit, trial)
        left = None if after is None else max((d.error for d in after), default=0.0)
        attempts.append(Attempt(edit.cause, edit.module, edit.change, left))
        if after is None:
            continue
        if not after and all(_tried(edit, check) == [] for check in checks):
            if all(check.agrees(edit) for check in blind):
                return Answer(renamed(edit, trial.forcing.vae, trial.errors), tried, 0.0)
            mends = mends or (edit, tried)
        elif partly is None and (rest := _partly(after, trial, checks, edit)) is not None:
            partly = edit, rest
    if mends is not None:
        return Answer(renamed(mends[0], trial.forcing.vae, trial.errors), tried, 0.0)
    if partly is not None:
        return Answer(partly[0], tried, partly[1])
    return Answer(None, tried, left_out=left_out)


def _partly(after: Sequence[Difference], trial: Trial, checks: Sequence[Trial], edit: Edit) -> float | None:
    """The worst error that is left if something is right that was not, in all cases; else None.

    Nothing may be wrong that was right, unless it is made of what is mended, or was not reached.
    """
    gone = set(trial.place.spots) - {d.spot for d in after}
    raised = any(d.raised and d.spot in gone for d in trial.place.differences)
    behind = {spot for one in gone for spot in _made_of(one)}
    worst = 0.0
    for one, left in ((trial, after), *((check, _tried(edit, check)) for check in checks if gone)):
        if left is None:
            return None
        reached = {d.spot for d in left if raised and d.spot.at not in ("inside", "after")}
        if not {d.spot for d in left} <= {*one.place.spots, *behind, *reached} - gone:
            return None
        worst = max(worst, *(d.error for d in left), 0.0)
    return worst if gone else None


def _made_of(spot: Spot) -> Iterator[Spot]:
    """Outputs that are compared only if what is here is right."""
    for half, stages in STAGES.items():
        if spot.at in stages:
            yield from (Spot("", stage) for stage in stages[stages.index(spot.at) + 1 :])
        elif spot.at == f"before {half}r":
            yield from (Spot("", stage) for stage in stages)


@torch.no_grad()
def _tried(edit: Edit, trial: Trial) -> list[Difference] | None:
    try:
        with trial.forcing.unlearned(), edit.applied(trial.forcing.vae):
            found = trial.errors()
        # what is not compared any more has not become right
        whole = trial.compared <= trial.forcing.compared
    except Exception:  # a change may be impossible in any way
        return None
    return found if whole and not any(d.raised for d in found) else None
