"""What a report gathers of real proofs: contract, map, where both sides differ, units, hypotheses."""

from __future__ import annotations

import base64
import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from tests import narrow
from tests.report.samples import ARCH, proof, told
from vaeport.errors import ProofError
from vaeport.models.autoencoder_kl import AutoencoderKL
from vaeport.models.oobleck import Oobleck
from vaeport.models.wan import Wan
from vaeport.proof.gates import rms
from vaeport.report.build import LARGEST, fitted
from vaeport.report.checks import checks, number
from vaeport.report.compared import compared
from vaeport.report.schema import Report
from vaeport.report.summary import summary
from vaeport.report.watched import Watched


def test_a_wrong_norm_is_found_in_every_section(failing: Report) -> None:
    assert not failing.passed
    assert failing.explanation is not None
    (finding,) = failing.explanation.findings
    assert (finding.unit, finding.change) == ("decoder.norm_out", "eps 0.0001 should be 1e-06")
    own = [unit.unit for unit in failing.units if unit.own is not None and number(unit.own) > 1e-11]
    assert own == ["decoder.norm_out"]
    behind = [unit for unit in failing.units if number(unit.inherited) > 1e-9]
    assert [unit.unit for unit in behind] == ["decoder.conv_out"]
    assert len(failing.units) > 50
    shown = {(one.case, one.output): one for one in failing.comparisons}
    assert {case for case, _ in shown} == {"batch", "shortest"}
    assert number(shown["batch", "normalized"].error) < 1e-10 < number(shown["batch", "decoded"].error)
    assert shown["batch", "decoded"].frames[0].difference is not None
    assert ("batch", "unclamped") not in shown, "it would show what decoded shows"


def test_hypotheses_tell_what_each_removed(failing: Report) -> None:
    assert failing.explanation is not None
    (finding,) = failing.explanation.findings
    assert 1 < len(finding.attempts) <= finding.tried
    best, *others = finding.attempts
    assert (best.change, best.remaining) == (finding.change, 0.0)
    assert any(one.remaining is not None and number(one.remaining) > 0 for one in others)
    left = [math.inf if one.remaining is None else number(one.remaining) for one in finding.attempts]
    assert left == sorted(left)


def test_the_grid_is_the_error_where_it_lies() -> None:
    watched = Watched(proof())
    seen: dict[str, torch.Tensor] = {}
    gather = watched.proof.seen
    assert gather is not None

    def doubled(mapped: object, native: object, reference: object) -> None:
        capture = native["S batch"]  # type: ignore[index]
        truth = reference["S batch"].outputs["decoded"]  # type: ignore[index]
        wrong = capture.outputs["decoded"].clone()
        wrong[1, :, 2:4, 8:] += 0.5
        capture.outputs["decoded"] = wrong
        seen["wanted"] = (wrong - truth).square().mean((0, 1)).sqrt() / rms(truth)
        gather(mapped, native, reference)  # type: ignore[arg-type]

    watched.proof.seen = doubled
    watched.proof.run()
    one = next(c for c in watched.gathered.comparisons if (c.case, c.output) == ("batch", "decoded"))
    heat = torch.tensor(one.heat)
    assert heat.shape == (8, 12)
    assert torch.allclose(heat.double(), seen["wanted"], rtol=0.01, atol=1e-12)
    assert (heat > 1e-3).nonzero().amin(0).tolist() == [2, 8]
    assert one.peak == 0.5
    assert one.frames[0].label == "sample 1", "the sample that differs most is shown"


def test_the_contract_and_the_map_are_those_of_both_sides(passing: Report) -> None:
    terms = {term.name: term for term in passing.contract}
    assert {term.same for term in passing.contract} <= {True, None}
    assert (terms["latent channels"].native, terms["latent channels"].reference) == ("4", "4")
    assert terms["latent scale"].same is True
    assert terms["latent shift"].reference == "0.1"
    assert terms["posterior"].reference == "gaussian-logvar"
    assert [weight.native for weight in passing.weights] == list(AutoencoderKL(ARCH).state_dict())
    assert summary(passing).answer == "Same function"
    assert all(number(unit.own) < 1e-11 for unit in passing.units)


def test_a_contract_that_differs_is_marked() -> None:
    watched = Watched(proof(arch=ARCH.replace(scaling_factor=0.6)))
    watched.proof.run()
    different = [term for term in watched.gathered.contract if term.same is False]
    assert [(term.name, term.native, term.reference) for term in different] == [("latent scale", "0.6", "0.3")]


def test_the_same_proof_gives_the_same_report(passing: Report) -> None:
    watched = Watched(proof())
    verdict = watched.proof.run()
    watched.measure()
    assert told(watched, verdict).to_text() == passing.to_text()


def test_figures_are_the_verdicts(failing: Report) -> None:
    assert failing.proved is not None
    found = checks(failing.proved)
    assert [(check.gate, check.label, check.passed) for check in found] == [
        ("S", "batch", False),
        ("S", "shortest", False),
    ]
    assert sum(len(check.failures) for check in found) == len(failing.proved.failures)


def pixels(picture: str | None) -> torch.Tensor:
    """Brightness [H, W] of a picture."""
    file = io.BytesIO(base64.b64decode(str(picture).partition(",")[2]))
    return torch.from_numpy(np.array(Image.open(file).convert("L"))).float()


def test_videos_have_their_first_worst_and_last_frame() -> None:
    contract = Wan.contract_of(narrow.WAN)
    truth = torch.rand(2, 3, 9, 16, 80, dtype=torch.float64) * 2 - 1
    wrong = truth.clone()
    wrong[1, :, 4] += 0.25
    one = compared("batch", "decoded", wrong, truth, contract, pictures=True)
    assert [frame.label for frame in one.frames] == ["sample 1, frame 0", "sample 1, frame 4", "sample 1, frame 8"]
    assert [value > 0 for value in one.along if value is not None] == [t == 4 for t in range(9)]
    assert (one.along_axis, one.axes) == ("time", ("height", "width"))
    assert (len(one.heat), len(one.heat[0])) == (6, 32), "cells keep the form of a frame"


def test_sound_has_spectrograms_of_both_sides() -> None:
    contract = Oobleck.contract_of(narrow.OOBLECK8)
    time = torch.arange(8192, dtype=torch.float64)
    truth = (time * 0.25 * torch.pi).sin().expand(1, 2, -1)
    wrong = truth.clone()
    wrong[..., 4096:] += 1e-9
    one = compared("batch", "decoded", wrong, truth, contract, pictures=True)
    assert one.along_axis == "samples"
    assert [value is not None and value > 0 for value in one.along] == [False] * 32 + [True] * 32
    (frame,) = one.frames
    assert frame.native == frame.reference, "a difference of 1e-9 is not seen in the spectrogram"
    level = pixels(frame.reference).mean(1)
    assert abs(int(level.argmax()) - len(level) * 3 // 4) <= 1, "an eighth of the rate is a quarter of the height"
    first, _, last = pixels(frame.difference).amax(0).tensor_split([50, 75])
    assert first.max() < last.min(), "the difference begins in the middle"


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (1, 1, 5, 900), (1, 4, 300, 2)])
def test_any_image_has_a_picture(shape: tuple[int, ...]) -> None:
    contract = AutoencoderKL.contract_of(ARCH)
    truth = torch.full(shape, torch.nan, dtype=torch.float64)
    one = compared("a", "decoded", torch.zeros_like(truth), truth, contract, pictures=True)
    assert max(pixels(one.frames[0].reference).shape) <= 256
    assert one.error == "NaN"
    assert {cell for row in one.heat for cell in row} == {None}


def test_other_shapes_are_told_and_shown() -> None:
    contract = AutoencoderKL.contract_of(ARCH)
    one = compared("a", "decoded", torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 8, 8), contract, pictures=True)
    assert (one.shape, one.reference_shape, one.error) == ((1, 3, 4, 4), (1, 3, 8, 8), None)
    assert one.frames[0].native
    assert one.frames[0].difference is None


def test_a_native_side_that_does_not_run_is_reported() -> None:
    def broken(vae: object) -> None:
        vae.decoder = None  # type: ignore[attr-defined]

    watched = Watched(proof(broken))
    report = told(watched, watched.proof.run())
    assert not report.passed
    assert {one.shape for one in report.comparisons} == {None}
    assert "error" in summary(report).fails[0]
    assert report.absent["units"].startswith("They are measured when --explain")


def test_what_cannot_be_measured_costs_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(proof())

    def refuse(*_: object) -> None:
        raise ProofError("the reference is away")

    monkeypatch.setattr("vaeport.drift.prepare.prepared", refuse)
    watched.measure()
    verdict = watched.proof.run()
    assert told(watched, verdict).absent["units"] == "They could not be measured: the reference is away."
    with pytest.raises(ProofError):
        watched.measure({"S"})


def test_too_large_a_report_loses_pictures_and_says_so(failing: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = len(failing.to_text())
    assert whole < LARGEST
    assert fitted(failing) is failing
    pictures = sum(len(str(frame)) for one in failing.comparisons for frame in one.frames)
    monkeypatch.setattr("vaeport.report.build.LARGEST", whole - pictures // 2)
    less = fitted(failing)
    assert len(less.to_text()) <= whole - pictures // 2
    assert "2 MB" in less.absent["pictures"]
    assert less.comparisons[0].heat == failing.comparisons[0].heat
