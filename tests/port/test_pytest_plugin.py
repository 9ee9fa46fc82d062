"""The pytest plugin: each way in which a parity test ends, and what each report says about it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.narrow import ARCHS
from vaeport.port import pytest_plugin
from vaeport.proof.verdict import Verdict

ROOT = Path(__file__).resolve().parents[2]
HEAD = '''
from dataclasses import dataclass, field

import pytest

from vaeport.errors import BlockedError, ProofError
from vaeport.proof.verdict import Row, Verdict


@dataclass
class Subject:
    """What a parity test hands to the fixture."""

    rows: list = field(default_factory=lambda: [("S", "decoded", 2e-15, 1e-10), ("P float32", "mean", 1.1, 2.0)])
    lacks: tuple = ()
    error: Exception = None
    covered: str = "both"
    coverage_scope: str = "both"
    family: str = "wan"
    component: str = "vae"

    def missing(self):
        return list(self.lacks)

    def explain(self):
        return ["origin decoder.conv_out: eps 1e-05 should be 1e-06"]

    def prove(self):
        if self.error:
            raise self.error
        verdict = Verdict({"name": "official"}, {"name": "wan"}, {"coverage_scope": self.covered})
        for gate, output, figure, limit in self.rows:
            verdict.rows.append(Row(gate, "batch", output, "whole", figure, limit, figure <= limit))
            if not figure <= limit:
                verdict.fail(gate[0], "same function", f"S batch {output}", f"differs by {figure}")
        return verdict

'''
PASS = "def test_wan(parity): parity(Subject())\n"
SKIP = "def test_wan(parity): parity(Subject(lacks=('native_class', 'converted_weights')))\n"
RED = "def test_wan(parity): parity(Subject(rows=[('S', 'decoded', 3e-7, 1e-10)]))\n"
ERROR = "ProofError('no such source', where='vae.py', expected='a class', found='nothing', fix='name it')"
BLOCKED = f"def test_wan(parity): parity(Subject(error={ERROR}))\n"


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest cuts its lines to the terminal."""
    monkeypatch.setenv("COLUMNS", "200")


def run(pytester: pytest.Pytester, tests: str, *options: str) -> pytest.RunResult:
    """A run of its own over a file of tests that use `Subject`."""
    pytester.makepyfile(HEAD + tests)
    return pytester.runpytest_inprocess(*pytest_plugin.plugin_arguments(), "-p", "no:cacheprovider", "-ra", *options)


def rows(pytester: pytest.Pytester) -> list[dict[str, object]]:
    return json.loads((pytester.path / "out" / "parity.json").read_text())


def properties(pytester: pytest.Pytester) -> dict[str, str]:
    found = ElementTree.parse(pytester.path / "junit.xml").iter("property")
    return {str(one.get("name")): str(one.get("value")) for one in found}


REPORTS = ("--parity-json", "out/parity.json", "--junit-xml", "junit.xml")


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["here", "xdist"])
def test_a_pass(pytester: pytest.Pytester, workers: tuple[str, ...]) -> None:
    done = run(pytester, PASS, *REPORTS, "-s", *workers)
    done.assert_outcomes(passed=1)
    assert done.ret == 0
    (row,) = rows(pytester)
    digest = row["verdict_sha256"]
    file = pytester.path / "out" / str(row["verdict"])
    assert row == {
        "test": "test_a_pass.py::test_wan",
        "family": "wan",
        "component": "vae",
        "status": "non_skip_pass",
        "missing": [],
        "coverage_scope": "both",
        "verdict_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "verdict": "parity.wan_vae.verdict.json",
        "result": "2 figures within their limits under S, P float32",
    }
    assert json.loads(file.read_text())["passed"] is True
    done.stdout.fnmatch_lines(["*= parity =*", f"parity wan vae: non_skip_pass, verdict sha256 {digest}"])
    assert properties(pytester) == {
        "parity.status": "non_skip_pass",
        "parity.coverage_scope": "both",
        "parity.verdict_sha256": digest,
        "parity.worst.S.decoded": "2e-15 of 1e-10",
        "parity.worst.P.float32.mean": "1.1 of 2",
    }
    if not workers:
        done.stdout.fnmatch_lines(["PASS  wan  against  official", "  S *decoded*2e-15*1e-10  batch, whole"])


def test_a_scaffold_skips_and_names_what_is_missing(pytester: pytest.Pytester) -> None:
    done = run(pytester, SKIP, *REPORTS)
    done.assert_outcomes(skipped=1)
    assert done.ret == 0
    missing = "missing native_class, converted_weights"
    done.stdout.fnmatch_lines([f"parity wan vae: scaffold_skip: {missing}", f"SKIPPED*: scaffold_skip: {missing}"])
    (row,) = rows(pytester)
    assert (row["status"], row["missing"]) == ("scaffold_skip", ["native_class", "converted_weights"])
    assert (row["verdict"], row["verdict_sha256"]) == (None, None)
    assert properties(pytester) == {
        "parity.status": "scaffold_skip",
        "parity.coverage_scope": "both",
        "parity.missing": "native_class, converted_weights",
    }


def test_a_false_verdict_is_red(pytester: pytest.Pytester) -> None:
    done = run(pytester, RED, *REPORTS)
    done.assert_outcomes(failed=1)
    assert done.ret == 1
    (row,) = rows(pytester)
    digest = row["verdict_sha256"]
    done.stdout.fnmatch_lines(
        [
            "debug_red: same function: S batch decoded: differs by 3e-07",
            "FAIL  wan  against  official",
            "*note: explained: origin decoder.conv_out: eps 1e-05 should be 1e-06",
            f"parity wan vae: debug_red, verdict sha256 {digest}: same function: *",
            "FAILED *::test_wan - *debug_red: same function*",
        ]
    )
    assert row["status"] == "debug_red"
    assert json.loads((pytester.path / "out" / str(row["verdict"])).read_text())["passed"] is False
    assert properties(pytester)["parity.worst.S.decoded"] == "3e-07 of 1e-10"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("covered='implementation_subcomponent'", "the test declares both, the proof covered implementation_subc*"),
        ("covered=None", "the test declares both, the proof covered nothing that it names"),
        ("coverage_scope='loader'", "`loader` is none of production_loader, implementation_subcomponent, both"),
    ],
)
def test_less_coverage_than_declared_is_red(pytester: pytest.Pytester, arguments: str, says: str) -> None:
    done = run(pytester, f"def test_wan(parity): parity(Subject({arguments}))\n", *REPORTS)
    assert done.ret == 1
    done.stdout.fnmatch_lines([f"debug_red: coverage: coverage_scope: {says}"])
    assert rows(pytester)[0]["status"] == "debug_red"


def test_more_coverage_than_declared_passes(pytester: pytest.Pytester) -> None:
    done = run(pytester, "def test_wan(parity): parity(Subject(coverage_scope='production_loader'))\n", *REPORTS)
    assert done.ret == 0
    assert rows(pytester)[0]["coverage_scope"] == "production_loader"


def test_an_empty_verdict_is_red(pytester: pytest.Pytester) -> None:
    done = run(pytester, "def test_wan(parity): parity(Subject(rows=[]))\n")
    assert done.ret == 1
    done.stdout.fnmatch_lines(["debug_red: empty: verdict: nothing was compared"])


def test_a_proof_that_cannot_be_set_up_is_blocked(pytester: pytest.Pytester) -> None:
    done = run(pytester, BLOCKED, *REPORTS)
    done.assert_outcomes(failed=1)
    told = ["where: vae.py", "expected: a class", "found: nothing", "fix: name it"]
    done.stdout.fnmatch_lines(["blocked: no such source", *(f"  {line}" for line in told)])
    done.stdout.fnmatch_lines(["parity wan vae: blocked: no such source"])
    (row,) = rows(pytester)
    assert (row["status"], row["result"]) == ("blocked", "no such source")
    assert "Traceback" not in done.stdout.str()


def test_a_crash_of_official_code_is_blocked_with_its_traceback(pytester: pytest.Pytester) -> None:
    done = run(pytester, "def test_wan(parity): parity(Subject(error=ZeroDivisionError('fps')))\n", *REPORTS)
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["> *raise self.error", "E *ZeroDivisionError: fps"])
    assert rows(pytester)[0]["status"] == "blocked"
    assert properties(pytester)["parity.status"] == "blocked"


def test_a_test_that_compares_nothing_fails(pytester: pytest.Pytester) -> None:
    done = run(pytester, "def test_wan(parity): pass\ndef test_other(): pass\n")
    done.assert_outcomes(failed=1, passed=1)
    done.stdout.fnmatch_lines(["*FAILED *::test_wan - *never calls it: nothing was compared*"])


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["here", "xdist"])
def test_no_skip_fails_every_skip(pytester: pytest.Pytester, workers: tuple[str, ...]) -> None:
    others = (
        "@pytest.mark.skip(reason='no GPU')\ndef test_mark(): pass\n"
        "def test_call(): pytest.skip('no time')\n"
        "@pytest.mark.xfail(reason='known')\ndef test_known(): assert 0\n"
        "def test_good(): pass\n"
    )
    pytester.makepyfile(test_module="import pytest\npytest.skip('no CUDA', allow_module_level=True)\n")
    done = run(pytester, SKIP + others, "--no-skip", *REPORTS, *workers)
    done.assert_outcomes(failed=2, errors=2, xfailed=1, passed=1)
    assert done.ret == 1
    for line in (
        "FAILED *::test_wan - *--no-skip: scaffold_skip: missing native_class, converted_weights",
        "FAILED *::test_call - *--no-skip: no time",
        "ERROR *::test_mark - *--no-skip: no GPU",
        "ERROR test_module.py*",
        "--no-skip: no CUDA",
    ):
        done.stdout.fnmatch_lines([line])
    assert rows(pytester)[0]["status"] == "scaffold_skip"
    assert properties(pytester)["parity.status"] == "scaffold_skip"


def test_without_no_skip_a_module_may_skip(pytester: pytest.Pytester) -> None:
    done = run(pytester, "pytest.skip('no CUDA', allow_module_level=True)\n")
    done.assert_outcomes(skipped=1)


def test_many_tests_over_workers(pytester: pytest.Pytester) -> None:
    """Every outcome arrives once; equal names share no file."""
    tests = "".join(t.replace("test_wan", f"test_{i}") for i, t in enumerate([PASS, SKIP, RED, BLOCKED, PASS]))
    tests += "def test_only_the_controller_writes(pytestconfig):\n"
    tests += "    assert not pytestconfig.pluginmanager.has_plugin('vaeport-results')\n"
    done = run(pytester, tests, "-n", "2", "--parity-json", "out/parity.json")
    done.assert_outcomes(passed=3, skipped=1, failed=2)
    found = sorted(rows(pytester), key=lambda row: str(row["test"]))
    assert [row["status"] for row in found] == [
        *("non_skip_pass", "scaffold_skip", "debug_red", "blocked", "non_skip_pass"),
    ]
    files = {f"parity.wan_vae{tail}.verdict.json" for tail in ("", "_2", "_3")}
    assert {row["verdict"] for row in found} == files | {None}
    assert {path.name for path in (pytester.path / "out").iterdir()} == files | {"parity.json"}
    told = done.stdout.str()
    assert told.count("parity wan vae: ") == 5


def test_a_run_without_parity_tests_writes_an_empty_list(pytester: pytest.Pytester) -> None:
    done = run(pytester, "def test_other(): pass\n", "--parity-json", "out/parity.json")
    assert rows(pytester) == []
    done.stdout.no_fnmatch_line("*= parity =*")


def test_a_name_that_cannot_be_written_is_refused(pytester: pytest.Pytester) -> None:
    (pytester.path / "file").touch()
    for name, says in ((".", "is a folder; give the name of a file"), ("file/x.json", "cannot be made")):
        done = run(pytester, PASS, "--parity-json", name)
        assert done.ret == pytest.ExitCode.USAGE_ERROR
        done.stderr.fnmatch_lines([f"ERROR: --parity-json: *{says}*"])


def test_a_file_that_cannot_be_written_in_the_end_is_told(pytester: pytest.Pytester) -> None:
    spoil = "def test_wan(parity, request):\n    (request.config.rootpath / 'out' / 'parity.json').mkdir()\n"
    done = run(pytester, spoil + "    parity(Subject())\n", "--parity-json", "out/parity.json")
    assert done.ret == 3
    done.stdout.fnmatch_lines(
        ["parity wan vae: non_skip_pass*", "--parity-json: this name is taken", "*found: a folder"]
    )


def test_the_plugin_is_installed_under_its_name_and_light() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
    (name, value), *others = declared.items()
    assert (name, others) == ("vaeport", [])
    assert EntryPoint(name, value, "pytest11").load() is pytest_plugin
    heavy = ("torch", "numpy", "pydantic", "safetensors")
    script = f"import sys, {value}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_verdict_is_named_by_its_text() -> None:
    one = Verdict({"b": 1, "a": float("nan")}, {"name": "wan"})
    same = Verdict({"a": float("nan"), "b": 1}, {"name": "wan"})
    assert one.sha256() == same.sha256() == hashlib.sha256(one.to_text().encode()).hexdigest()
    same.fail("S", "same function", "here", "differs")
    assert one.sha256() != same.sha256()


REAL = """
from tests.narrow import ARCHS
from vaeport.port.parity import Parity

ARCH = ARCHS["autoencoder_kl"].to_published()
SAME = Parity(
    family="sd", component="vae", native="autoencoder_kl", arch=ARCH, reference="diffusers:AutoencoderKL",
    coverage_scope="production_loader", dtypes=(), reference_args={**ARCH, "scaling_factor": SCALE},
)

def test_sd(parity):
    parity(SAME)
"""


def test_a_real_proof(pytester: pytest.Pytester) -> None:
    """The image VAE at narrow width against Diffusers, whose scale is a hair off: all else is compared and holds."""
    pytester.syspathinsert(ROOT)
    pytester.makepyfile(REAL.replace("SCALE", f"{ARCHS['autoencoder_kl'].scaling_factor * (1 + 1e-9)}"))
    pytester.runpytest_inprocess(*pytest_plugin.plugin_arguments(), "-p", "no:cacheprovider", *REPORTS)
    (row,) = rows(pytester)
    assert row["status"] == "debug_red", row["result"]
    verdict = json.loads((pytester.path / "out" / str(row["verdict"])).read_text())
    assert {one["output"] for one in verdict["rows"] if one["passed"]} >= {"decoded", "unclamped", "mean", "moments"}
    assert {one["output"] for one in verdict["rows"] if not one["passed"]} == {"normalized"}
    assert {one["name"] for one in verdict["failures"]} == {"same function"}
