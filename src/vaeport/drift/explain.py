"""`explain`: why a port differs. It finds where an error is made, and tries changes until one mends it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack

from vaeport.drift.edits.edit import Edit, Scope, Undo, setting
from vaeport.drift.edits.latents import latent_edits
from vaeport.drift.edits.parameters import weight_edits
from vaeport.drift.explanation import NOTHING, Explanation, Finding, UnitRow
from vaeport.drift.forced import Forcing
from vaeport.drift.inside import first_differing
from vaeport.drift.passage import Difference, Spot
from vaeport.drift.pieces import unlike_whole
from vaeport.drift.prepare import Prepared, opened, prepared
from vaeport.drift.search import search
from vaeport.drift.state import left_behind, resetting, snapshot
from vaeport.drift.trial import Place, Trial, places_of
from vaeport.drift.truth import HALVES, Truth, error_of
from vaeport.layers import SAMPLES, TIME
from vaeport.proof.cases import Case
from vaeport.proof.prove import Proof
from vaeport.proof.recording import written_at

MOST = 8
"""Faults that are peeled off one after the other."""


def explain(
    proof: Proof, *, cases: Sequence[Case] | None = None, given: Prepared | None = None, seconds: float = 120.0
) -> Explanation:
    """Why `proof.native` is not `proof.reference`; see `Explanation`.

    cases       what both sides are run on, of different shapes; by default those of the proof. A change that is found
                on one of them has to hold on the others
    given       what the reference did, if it has run already
    seconds     for searches that find nothing, all together

    ProofError if the reference does not run.
    """
    if given is not None:
        return _Explainer(proof, given, seconds).run()
    with prepared(proof, cases) as made:
        return _Explainer(proof, made, seconds).run()


class _Explainer:
    def __init__(self, proof: Proof, given: Prepared, seconds: float) -> None:
        self.given, self.seconds = given, seconds
        self.answer = Explanation(seconds={"reference": given.seconds})
        self.vae = opened(proof, given.weights)
        foreign: set[str] = set()
        self.forcings = [Forcing(proof.native, self.vae, given.units, truth, foreign) for truth in given.truths]
        self.case = 0
        self.holds = False

    def run(self) -> Explanation:
        """All faults, one after the other; each is mended before the next is looked for."""
        start = time.monotonic()
        self._state()
        mended = self._peeled()
        self.answer.explained = self.holds or self._holds()
        if mended and not self.answer.explained and self._pieces():
            self.answer.explained = self._holds()
        if not self.answer.explained and not self.answer.findings:
            self._finding("", "the whole run", float("inf"), None)
        self.answer.seconds["search"] = time.monotonic() - start
        return self.answer

    def _peeled(self) -> bool:
        """Whether all that differs was explained."""
        found = self._differences()
        self._rows(found)
        if self._weights(found):
            found = self._differences()
        if found and self._triage():
            found = self._differences()
        unexplained: set[str] = set()
        for _ in range(MOST):
            places = [place for place in places_of(found) if place.unit not in unexplained]
            if not places:
                break
            undo = self._explain(places[0])
            if undo is None:
                unexplained.add(places[0].unit)
                continue
            self.holds = not self.answer.findings[-1].remaining and self._holds()
            if self.holds:
                break
            before, found = set(places[0].spots), self._differences()
            left = before & {difference.spot for difference in found}
            if left and (left == before or not self.answer.findings[-1].remaining):
                # right where it was tried, and wrong in the whole: no cause
                undo()
                self.answer.findings[-1].unexplained()
                unexplained.add(places[0].unit)
                found = self._differences()
        else:
            if any(place.unit not in unexplained for place in places_of(found)):
                self.answer.left_out.append(f"what lies behind {MOST} faults")
                return False
        return not unexplained

    def _differences(self) -> list[Difference]:
        """Those of the first case that has any."""
        for case, forcing in enumerate(self.forcings):
            self.case = case
            found = forcing.run(HALVES, {})
            clean: dict[str, bool] = {}
            real = [difference for difference in found if not self._by_design(difference, clean)]
            if real:
                return real
        return []

    def _by_design(self, difference: Difference, clean: dict[str, bool]) -> bool:
        """The unit around it is right as a whole: the sides are only cut up differently."""
        forcing, unit = self.forcings[self.case], difference.spot.unit
        around = forcing.parents.get(unit, "") if difference.spot.at == "inside" else unit
        for name in filter(None, (around, forcing.parents.get(around, ""))):
            if name not in clean:
                clean[name] = not Trial(forcing, Place(name, [Difference(Spot(name, "after"), 0.0)])).whole()
            if clean[name]:
                return True
        return False

    def _explain(self, place: Place) -> Undo | None:
        """Looks for the change that mends a place, and makes it."""
        worst = place.differences[0]
        trials = [Trial(forcing.seen(), place, self.forcings[self.case]) for forcing in self.forcings]
        # the cheapest case that shows it; the others are for what is found there
        trials.sort(key=lambda trial: (not trial.place.differences, trial.forcing.truth.media.numel()))
        reference = self.given.references.get(place.unit, "")
        operations, at = first_differing(trials, reference)
        with ExitStack() as kept:
            for truth in self.given.truths:
                kept.enter_context(truth.kept())
            begun = time.monotonic()
            found = search(trials[0], trials[1:], reference, self.given.told, self.seconds)
            self.answer.left_out += found.left_out
            if found.edit is None:
                self.seconds -= time.monotonic() - begun
        finding = self._finding(place.unit, worst.spot.at, worst.error, found.edit)
        finding.operations, finding.tried, finding.remaining = operations, found.tried, found.remaining
        finding.tell(found.attempts)
        finding.places = (at[0] or finding.places[0], at[1] or finding.places[1])
        if found.edit is None:
            finding.change = "; ".join(filter(None, (finding.change, worst.says)))
            return None
        return found.edit.apply(self.vae)

    def _finding(self, unit: str, where: str, error: float, edit: Edit | None) -> Finding:
        module = unit if edit is None else edit.module
        here = written_at(self.vae.get_submodule(module))
        cause, change = (None, NOTHING) if edit is None else (edit.cause, edit.change)
        finding = Finding(
            unit,
            self.given.references.get(unit, ""),
            where,
            module,
            cause,
            change,
            error,
            places=(here, self.given.place(unit)),
            apply=None if edit is None else edit.apply,
        )
        self.answer.findings.append(finding)
        return finding

    def _weights(self, found: Sequence[Difference]) -> bool:
        """Mends weights that are not what the map makes of the reference's."""
        errors = {difference.spot.unit: difference.error for difference in found}
        before = len(self.answer.findings)
        for edit in weight_edits(self.vae, self.given.expected, self.given.names):
            owner = self.given.owner(edit.module)
            self._finding(owner, "inside", errors.get(owner, 0.0), edit).remaining = 0.0
            edit.apply(self.vae)
        return len(self.answer.findings) > before

    def _triage(self) -> bool:
        """A network that is given something of another shape than the VAE: is that what is wrong?"""
        before = len(self.answer.findings)
        for half in HALVES:
            name = f"{half}r"
            if all(name in forcing.seen().fitting for forcing in self.forcings):
                continue
            for edit in latent_edits(self._given_to(name), f"before {name}"):
                undo = edit.apply(self.vae)
                if all(self._gets_its_input(half, forcing) for forcing in self.forcings):
                    self._finding("", f"before {name}", float("inf"), edit).remaining = 0.0
                    break
                undo()
        return len(self.answer.findings) > before

    def _gets_its_input(self, half: str, forcing: Forcing) -> bool:
        """A network is given what the reference's is, of its shape."""
        name = f"{half}r"
        forcing.fitting.discard(name)
        found = forcing.run((half,), {})
        return name in forcing.fitting and Spot("", f"before {name}") not in {d.spot for d in found}

    def _given_to(self, name: str) -> Scope:
        """What a network is given, beside what the reference's is."""
        for forcing in self.forcings:
            wanted = forcing.truth.calls(self.given.references[name], "in")
            if forcing.unfit.get(name) is not None and wanted:
                return Scope(self.vae, [""], (), forcing.unfit[name], wanted[0])
        return Scope(self.vae, [""])

    def _state(self) -> None:
        """A second run on the same input has to give the same."""
        forcing = self.forcings[0]
        before = snapshot(self.vae)
        for half in HALVES:
            try:
                first = forcing.outputs(half)
                left = left_behind(self.vae, before)
                if forcing.right(half, first) and not left:
                    continue
                second = forcing.outputs(half)
                worst = max(error_of(second[name], value) for name, value in first.items())
                left = left_behind(self.vae, before)
            except Exception:  # a wrong port may raise anything; the run between hooks says where
                continue
            if worst == 0.0:
                continue
            if not left:
                self.answer.left_out.append(f"{half} is not deterministic: two runs differ by {worst:.2g}")
                continue
            edit = resetting(self.vae, before, left)
            edit.apply(self.vae)
            self._finding(self.given.owner(left[0][0]), half, worst, edit).remaining = 0.0
            return

    def _pieces(self) -> bool:
        """Whether what is right as a whole differs in pieces."""
        before = len(self.answer.findings)
        for name, pieces in (("encoder", "encode_pieces"), ("decoder", "decode_pieces")):
            cut = getattr(self.vae, pieces)
            if cut is None:
                continue
            worst = next(filter(None, (self._unlike_whole(name, truth, cut) for truth in self.given.truths)), None)
            if worst is None:
                continue
            path = f"{name}.{worst[0]}" if worst[0] else ""
            says = "its `step` gives something else than its `forward`; whole, the model is right"
            edit = Edit("streaming", says, path, setting("", lambda model: model, pieces, None))
            self._finding(self.given.owner(path), "in pieces", worst[1], edit).remaining = 0.0
            edit.apply(self.vae)
        return len(self.answer.findings) > before

    def _unlike_whole(self, name: str, truth: Truth, cut: tuple[int, int]) -> tuple[str, float] | None:
        x, layer = (truth.media, self.vae.encoder) if name == "encoder" else (truth.latent, self.vae.decoder_at())
        axis = SAMPLES if self.vae.contract.modality == "audio" else TIME
        return None if layer is None else unlike_whole(layer, x, axis, cut)

    def _rows(self, found: Sequence[Difference]) -> None:
        errors: dict[str, float] = {}
        for difference in found:
            errors.setdefault(difference.spot.unit, difference.error)
        compared = {unit for forcing in self.forcings for unit, _ in forcing.shapes}
        for unit in self.given.units:
            error = errors.get(unit.native)
            status = "origin" if error is not None else "same" if unit.native in compared else "not compared"
            if status == "not compared" and unit.within:
                continue
            self.answer.units.append(UnitRow(unit.native, unit.reference, error, status))

    def _holds(self) -> bool:
        """Gate S on every case, as users run it."""
        for forcing in self.forcings:
            for half in HALVES:
                try:
                    if not forcing.right(half):
                        return False
                except Exception as error:  # a wrong port may raise anything
                    says = f"{half} does not run: {type(error).__name__}: {error}"
                    self.answer.left_out = [*(s for s in self.answer.left_out if s != says), says]
                    return False
        return True
