"""The benchmark of `prove --explain`: every kind is a fault, variants are none, mutants parse, bounds are Wilson's."""

from __future__ import annotations

import copy
import json
import math
import os
import signal
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from bench.drift import forking, mutants, mutation, oracle, report, score, sites, vaes
from bench.drift.clean_convs import VARIANTS
from bench.drift.kinds import KINDS, Site
from tests import narrow
from vaeport.layers import GroupNorm
from vaeport.vae import VAE

SMALLEST = ("oobleck", "kl", "ltx2", "wan", "hunyuan_video", "ltx1", "wan2_2")
"""The cheapest first: a kind is tried on the first that has a site for it."""


@cache
def prepared(name: str, folder: Path) -> tuple[VAE, list[Any], list[oracle.Outputs]]:
    """The clean VAE, one input twice, and its outputs: the smallest that is cropped, if any is."""
    arch = narrow.narrow(name)[1]
    weights = oracle.write(folder / name, narrow.shapes(narrow.reference(arch)), arch.to_published(), 0)
    vae = vaes.opened(weights).double()
    inputs = oracle.runs(vae.contract, 0)
    odd = [run for run in inputs if run.media.dim() < 5 or run.media.shape[2] > 4]
    odd = [run for run in odd if vae.contract.latent_shape(run.media.shape)[-1] > 1 and _breaks_a_rule(vae, run)] or odd
    inputs = [min(odd, key=lambda run: run.media.numel())] * 2
    return vae, inputs, [oracle.outputs(vae, run) for run in inputs]


def _breaks_a_rule(vae: VAE, run: oracle.Run) -> bool:
    axes = zip(vae.contract.axes, run.media.shape[2:], strict=True)
    return any(rule.padded(n) != n for rule, n in axes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("drift")


def change(name: str, folder: Path, fault: Callable[[VAE], Any]) -> oracle.Change:
    clean, inputs, outputs = prepared(name, folder)

    def opened() -> VAE:
        vae = copy.deepcopy(clean)
        fault(vae)
        return vae

    return oracle.change(opened, inputs, outputs, stop=True)


@cache
def sites_of(name: str) -> dict[str, list[Site]]:
    vae = narrow.native(name) if name != "oobleck" else narrow.native("oobleck8")
    return {kind.name: kind.sites(vae) for kind in KINDS.values()}


def test_there_are_enough_kinds() -> None:
    assert len(KINDS) >= 45
    assert all(kind.cause for kind in KINDS.values())


@pytest.mark.full
@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_changes_the_function(kind: str, folder: Path) -> None:
    for name in SMALLEST:
        for site in sites_of(name)[kind][:1]:
            found = change(name, folder, lambda vae, site=site: KINDS[kind].inject(vae, site))  # type: ignore[misc]
            if found.fault:
                assert not found.error, f"{name} {site}: {found.error}"
                return
    pytest.fail("it changes nothing at its first site of any VAE")


@pytest.mark.full
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_correct_variant_changes_nothing(variant: str, folder: Path) -> None:
    for name in SMALLEST:
        if VARIANTS[variant](copy.deepcopy(prepared(name, folder)[0])):
            found = change(name, folder, VARIANTS[variant])
            assert found.change <= 1e-11, found
            return
    pytest.fail("no VAE has a place for it")


def test_there_are_enough_variants() -> None:
    assert len(VARIANTS) >= 30


def test_a_wrong_port_does_not_hold_the_right_class() -> None:
    vae = narrow.MODELS["kl"][0](narrow.KL)
    sites.rewrite(vae, Site("encoder.norm_out"), forward=lambda self, x: x)
    norm = vae.get_submodule("encoder.norm_out")
    assert GroupNorm not in type(norm).__mro__
    assert sites.is_a(norm, GroupNorm)


@pytest.mark.parametrize(("right", "n", "low", "high"), [(95, 100, 0.8882, 0.9785), (0, 10, 0.0, 0.2775)])
def test_wilson_bounds(right: int, n: int, low: float, high: float) -> None:
    assert report.wilson(right, n) == pytest.approx((low, high), abs=1e-4)


def test_wilson_bound_of_everything_right() -> None:
    low, high = report.wilson(500, 500)
    assert low == pytest.approx(0.99238, abs=1e-5)
    assert high == 1.0
    assert report.wilson(0, 0) == (0.0, 1.0)


SOURCE = '''"""Doc 1."""
EPS = 1e-6


def norm(x, flip: bool = True):
    """Doc 2."""
    if len(x) == 3:
        raise ValueError("never 7")
    y = x[1:] + shift(x, 2, dim=1)
    y *= EPS
    return y
'''


def test_mutants_of_a_small_source() -> None:
    found = list(mutants.of_source(Path("small.py"), SOURCE))
    whats = {(m.line, m.sort, m.what) for m in found}
    for expected in (
        (2, "literal", "1e-06 -> 2e-06: twice"),
        (5, "literal", "True -> False: flipped"),
        (7, "operator", "len(x) == 3 -> (len(x) != 3): comparison"),
        (9, "slice", "1: -> :: lower bound dropped"),
        (9, "axis", "1 -> 2: one more"),
        (9, "argument", "shift(x, 2, dim=1) -> shift(2, x, dim=1): 0 and 1 swapped"),
        (9, "argument", "shift(x, 2, dim=1) -> shift(x, 2): dim dropped"),
        (9, "term", "x[1:] + shift(x, 2, dim=1) -> (x[1:]): right term dropped"),
        (10, "statement", "y *= EPS -> pass: statement dropped"),
    ):
        assert expected in whats, sorted(whats)
    assert all(m.scope == ("norm" if m.line > 5 else "<module>") for m in found if m.line != 5)
    assert len({m.source for m in found}) == len(found)
    for mutant in found:
        compile(mutant.source, "small.py", "exec")
        assert len(mutant.source.splitlines()) == len(SOURCE.splitlines())
        assert "never 7" in mutant.source
        assert "Doc 2" in mutant.source


def test_a_sample_of_mutants_is_drawn_by_its_seed() -> None:
    found = list(mutants.of_source(Path("small.py"), SOURCE))
    first = mutants.sampled(found, 8, 1)
    assert first == mutants.sampled(found, 8, 1)
    assert first != mutants.sampled(found, 8, 2)
    assert len({m.source for m in first}) == 8
    assert len(mutants.sampled(found, 10**6, 1)) == len(found)


def test_a_mutant_is_imported_in_a_child_alone() -> None:
    file = Path(vaes.__file__).parents[2] / "src/vaeport/layers/norm.py"
    source = file.read_text().replace("eps: float = 1e-6", "eps: float = 1e-3", 1)
    assert source != file.read_text()

    def work() -> float:
        mutation.install("vaeport.layers.norm", file, source)
        from vaeport.layers import GroupNorm as Mutated

        return Mutated(32).eps

    assert forking.asked(work)["value"] == 1e-3
    assert GroupNorm(32).eps == 1e-6


def test_places_are_found_by_comparison_and_by_running() -> None:
    vae = narrow.native("kl")
    clean = mutation.described(vae)
    changed = json.loads(json.dumps(clean))
    changed["encoder.norm_out"][1]["eps"] = "1e-05"
    del changed["decoder.act_out"]
    assert mutation.differing(json.loads(json.dumps(clean)), changed) == ["decoder", "encoder.norm_out"]
    file = Path(vaes.__file__).parents[2] / "src/vaeport/layers/attention.py"
    seen = mutation.running_in(vae, file, "SelfAttention.attend", lambda: vae.encode(narrow.media("kl")))
    assert seen == ["encoder.middle.attention.main.attention"]


def test_children_that_end_otherwise_lose_nothing() -> None:
    def tells(then: Callable[[], Any]) -> forking.Work:
        def work(emit: forking.Emit) -> None:
            emit({"oracle": 1})
            then()

        return work

    def fails() -> None:
        raise ValueError("no")

    works = {
        "fine": lambda: None,
        "fails": fails,
        "hangs": lambda: time.sleep(60),
        "dies": lambda: os.kill(os.getpid(), signal.SIGTERM),
    }
    tasks = [({"kind": name}, tells(then)) for name, then in works.items()]
    rows = {row["kind"]: row for row in forking.in_children(tasks, 2, timeout=2.0)}
    assert {row["oracle"] for row in rows.values()} == {1}
    assert "crashed" not in rows["fine"]
    assert rows["fails"]["crashed"] == "ValueError: no"
    assert rows["hangs"]["ended"] == "timeout"
    assert rows["dies"]["ended"] == "signal 15"


def test_places_and_causes() -> None:
    units = ["decoder.up", "decoder.up.conv", "decoder.up.norm"]
    assert score.place("decoder.up.conv", ["decoder.up.conv.weight"], units) == (True, True)
    assert score.place("decoder.up", ["decoder.up.conv"], units) == (True, False)
    assert score.place("decoder", ["decoder.up.conv"], units) == (False, False)
    assert score.place("decoder.up.norm", ["decoder.up.conv"], units) == (False, False)
    assert score.place("decoder.up", ["decoder.up.act"], units) == (True, True)
    assert score.place("", ["encoder"], units) == (True, False)
    assert score.same_cause("eps", "eps")
    assert score.same_cause("padding mode", "padding_mode")
    assert not score.same_cause("groups", "eps")
    assert not score.same_cause(None, "eps")


def test_each_equivalence_has_a_reason() -> None:
    causes = {kind.cause for kind in KINDS.values()}
    for entry in json.loads(score.EQUIVALENT.read_text()):
        assert set(entry) == {"fault", "said", "reason"}
        assert entry["reason"]
        assert set(entry["fault"]) <= causes


def row(**found: Any) -> dict[str, Any]:
    start = {"vae": "kl", "population": "a", "kind": "norm_eps", "site": {"path": "x", "detail": ""}, "seconds": 1.0}
    return {**start, "fault": True, "explain": {"findings": []}, **found}


def test_tables_say_what_falls_short() -> None:
    right = row(detected=True, place=True, exact=True, cause=True, verdict={"passed": False, "gates": ["S"]})
    rows = [
        right,
        row(detected=True, place=False, cause=False),
        row(crashed="KeyError: 'q'"),
        row(fault=False, oracle={"change": 0.0}),
    ]
    totals = report.totals(rows)
    assert totals["a"]["detected"] == {"right": 2, "of": 3}
    assert totals["a"]["place"] == {"right": 1, "of": 3}
    assert not report.reached(totals)
    assert report.reached(report.totals([right]))
    text = "\n".join(report.shortfalls(rows))
    assert text.count("norm_eps") == 2
    assert "KeyError" in text
    assert "0.0e+00" in "\n".join(report.equivalents(rows))
    assert report.kill_matrix(rows) == {
        "norm_eps": {"faults": 1, "killed": 1, **dict.fromkeys(report.GATES, 0), "S": 1},
    }
    assert not math.isnan(report.wilson(1, 3)[0])
