"""`vaeport report`, and the reports of `vaeport prove` and `vaeport port`: files, exit codes, refusals."""

from __future__ import annotations

import json
import shlex
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.cli.run import Done, here
from tests.report.samples import ARCH, hostile

PROVE = ("prove", "--reference", "diffusers:AutoencoderKL", "--native", "autoencoder_kl", "--dtypes", "")


def proved(folder: Path, *more: str, scale: float = 0.3, **environment: str) -> Done:
    """`vaeport prove` of a small model, whose native side may have another scale."""
    (folder / "config.json").write_text(json.dumps({**ARCH.to_published(), "scaling_factor": scale}))
    options = ("--config", "config.json", "--reference-args", json.dumps(ARCH.to_published()))
    done = here(*PROVE, *options, *more, cwd=folder, **environment)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_prove_writes_all_reports_and_ends_as_without(tmp_path: Path) -> None:
    options = ("--report", "r.json", "--html", "r.html", "--markdown", "r.md", "--junit", "r.xml", "--github")
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    done = proved(tmp_path, *options, "--json", scale=0.6, GITHUB_STEP_SUMMARY=str(summary))
    assert done.code == 1
    assert json.loads(done.stdout)["passed"] is False, "data alone is on stdout"
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["passed"] is False
    assert [term["name"] for term in report["contract"] if term["same"] is False] == ["latent scale"]
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")
    failed = ET.parse(tmp_path / "r.xml").findall("./testsuite/testcase/failure")
    assert len(failed) == 3
    assert done.stderr.count("::error title=vaeport%3A gate S%2C ") == 3
    assert summary.read_text() == "before\n" + (tmp_path / "r.md").read_text() + "\n"
    line, why = (command["line"] for command in report["commands"])
    assert "r.html" not in line
    assert "--github" not in line
    assert why == f"{line} --explain"
    again = here(*shlex.split(line)[1:], cwd=tmp_path)
    assert (again.code, json.loads(again.stdout)) == (1, json.loads(done.stdout))


def test_report_renders_the_same_page_from_the_json_alone(tmp_path: Path) -> None:
    done = proved(tmp_path, "--report", "r.json", "--html", "r.html", "--markdown", "r.md")
    assert done.code == 0, done.stderr
    assert here("report", "r.json", "--html", "again.html", cwd=tmp_path).code == 0
    assert (tmp_path / "again.html").read_bytes() == (tmp_path / "r.html").read_bytes()
    assert here("report", "r.json", cwd=tmp_path).stdout == (tmp_path / "r.md").read_text() + "\n"
    (tmp_path / "verdict.json").write_text(proved(tmp_path, "--json").stdout)
    told = here("report", "verdict.json", "--junit", "v.xml", cwd=tmp_path)
    assert told.code == 0, told.stderr
    assert ET.parse(tmp_path / "v.xml").getroot().get("failures") == "0"


@pytest.mark.parametrize(
    ("arguments", "says", "code"),
    [
        (("report", "absent.json"), "no such file", 2),
        (("report", "."), "not a file", 2),
        (("report", "text.json"), "not JSON", 2),
        (("report", "other.json"), "no report", 2),
        (("report", "broken.json"), "malformed", 2),
        (("report", "good.json", "--html", "absent/r.html"), "mkdir -p", 2),
        (("report", "good.json", "--html", "good.json"), "over itself", 2),
        (("report", "good.json", "--html", "a", "--junit", "a"), "two reports under one name", 2),
        ((*PROVE, "--variant", "sd1", "--html", "absent/r.html"), "mkdir -p", 2),
        ((*PROVE, "--variant", "sd1", "--html", "r.html", "--reference-trace", "t.jsonl"), "runs none", 2),
        (("port", "--family", "wan", "--status", "--html", "r.html"), "runs nothing", 2),
        (("port", "a.py:VAE", "--family", "wan", "--html", "absent/r.html"), "mkdir -p", 2),
    ],
)
def test_what_cannot_be_reported_is_told(arguments: tuple[str, ...], says: str, code: int, tmp_path: Path) -> None:
    good = hostile().to_text()
    texts = {"good": good, "text": "hello", "other": "{}", "broken": good.replace('"lines"', '"line"')}
    for name, text in texts.items():
        (tmp_path / f"{name}.json").write_text(text)
    done = here(*arguments, cwd=tmp_path)
    assert (done.code, done.stdout) == (code, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.json" for name in texts}
    assert (tmp_path / "good.json").read_text() == good


@pytest.mark.parametrize(("package", "option"), [("jinja2", "--html"), ("PIL", "--report")])
def test_what_is_not_installed_is_told_before_anything_runs(
    package: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    done = proved(tmp_path, option, "r")
    assert (done.code, done.stdout) == (3, "")
    assert "pip install 'vaeport[report]'" in done.stderr
