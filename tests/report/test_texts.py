"""Markdown, JUnit, annotations."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.report.samples import HOSTILE, hostile
from vaeport.proof.verdict import Row, Verdict
from vaeport.report.build import of_verdict
from vaeport.report.checks import checks
from vaeport.report.github import MOST, workflow_commands
from vaeport.report.html import html
from vaeport.report.junit import junit
from vaeport.report.markdown import code, markdown, text
from vaeport.report.schema import Report
from vaeport.report.summary import summary


def verdict(*, figure: float = 1e-3) -> Verdict:
    """Two cases of gate S and one row each of P and D; what exceeds its limit fails."""
    made = Verdict({"name": "theirs"}, {"name": "ours"})
    made.rows += [
        Row("S", "S batch", "mean", "whole", 1e-15, 1e-10, True),
        Row("S", "S batch", "decoded", "channel 1", figure, 1e-10, figure <= 1e-10),
        Row("S", "S odd", "decoded", "whole", 1e-15, 1e-10, True),
        Row("P bfloat16", "5 seeds", "decoded", "whole", 1.0, 2.0, True),
        Row("D bfloat16", "types", "types", "12 rows", 1.0, 0.5, False),
        Row("D float32", "types", "types", "12 rows", 0.0, 0.5, True),
    ]
    if figure > 1e-10:
        made.fail("S", "same function", "S batch decoded, channel 1", "differs")
    made.fail("D", "dtype policy", "decoder.norm_out: used", "in bfloat16: float32; bfloat16")
    made.fail("evidence", "skipped", "odd", "the case was not run")
    return made


def test_failures_belong_to_their_gate_and_case() -> None:
    report = of_verdict(verdict().to_json())
    assert report.proved is not None
    found = {(one.gate, one.label): (one.passed, len(one.failures)) for one in checks(report.proved)}
    assert found == {
        ("S", "batch"): (False, 1),
        ("S", "odd"): (True, 0),
        ("P bfloat16", "5 seeds"): (True, 0),
        ("D bfloat16", "types"): (False, 1),
        ("D float32", "types"): (True, 0),
        ("evidence", "skipped"): (False, 1),
    }


def test_junit_has_a_case_per_gate_and_case() -> None:
    root = ET.fromstring(junit(of_verdict(verdict().to_json())))
    cases = root.findall("./testsuite/testcase")
    assert [case.get("name") for case in cases] == [
        "gate S (same function): batch",
        "gate S (same function): odd",
        "gate P bfloat16 (same precision, bfloat16): 5 seeds",
        "gate D bfloat16 (same types, bfloat16): types",
        "gate D float32 (same types, float32): types",
        "evidence: skipped",
    ]
    failed = [case.get("name") for case in cases if case.find("failure") is not None]
    assert len(failed) == 3
    for element in (root, root.find("testsuite")):
        assert element is not None
        assert (element.get("tests"), element.get("failures")) == ("6", "3")
    first = cases[0].find("failure")
    assert first is not None
    assert first.get("message") == "same function: S batch decoded, channel 1: differs"
    assert "decoded 0.001, limit 1.0e-10 (channel 1)  <- fails" in (first.text or "").replace("1.0e-03", "0.001")


def test_junit_bears_any_text() -> None:
    root = ET.fromstring(junit(hostile("\x00\x1b\ud800<&]]>\"'\ufffe")))
    suite = root.find("testsuite")
    assert suite is not None
    assert suite.get("name") == "\ufffd\ufffd\ufffd<&]]>\"'\ufffd"
    assert ET.fromstring(junit(hostile())).find("testsuite/testcase") is not None


def cells(line: str) -> list[str]:
    return re.split(r"(?<!\\)\|", line)[1:-1]


def test_tables_keep_their_columns_whatever_a_name_holds(failing: Report) -> None:
    for report in (failing, hostile(), hostile("a|b\\|c`d``|e")):
        lines = markdown(report).splitlines()
        tables = [i for i, line in enumerate(lines) if set(line) <= set("|- ") and "---" in line]
        assert len(tables) >= 3
        for start in tables:
            width = len(cells(lines[start]))
            end = start
            while end < len(lines) and lines[end].startswith("|"):
                assert len(cells(lines[end])) == width, lines[end]
                end += 1
            assert end > start + 1


def test_markdown_has_no_markup_of_others() -> None:
    told = markdown(hostile())
    outside = re.sub(r"(?<![\\`])(`+)(?!`).*?(?<!`)\1(?!`)", "", told, flags=re.S)
    assert len(outside) > 1000
    assert "<script" not in outside
    assert not re.search(r"(?<!\\)@team", outside)
    assert not re.search(r"(?<!\\)\[x", outside)
    assert "http://" not in outside
    assert text("1. a") == "1\\. a"
    assert text("- a") == "\\- a"
    assert text("round_trip 1e-06") == "round_trip 1e-06"
    assert code("a`b|c") == "``a`b\\|c``"


def test_markdown_answers(failing: Report, passing: Report) -> None:
    told = markdown(failing)
    assert told.startswith("## ❌ Not the same function\n")
    assert "| `decoder.norm_out` | eps | eps 0.0001 should be 1e-06 |" in told
    assert "**fail**" in told
    assert markdown(passing).startswith("## ✅ Same function\n")


def parsed(line: str) -> tuple[str, dict[str, str], str]:
    """As GitHub's runner reads a command."""
    found = re.fullmatch(r"::(\w+) (.*?)::(.*)", line)
    assert found is not None, line

    def plain(value: str, names: tuple[str, ...]) -> str:
        for escape, character in (("%3A", ":"), ("%2C", ","), ("%0D", "\r"), ("%0A", "\n"), ("%25", "%")):
            value = value.replace(escape, character) if escape[1:] in names else value
        return value

    properties = dict(part.split("=", 1) for part in found[2].split(","))
    return (
        found[1],
        {name: plain(value, ("3A", "2C", "0D", "0A", "25")) for name, value in properties.items()},
        plain(found[3], ("0D", "0A", "25")),
    )


def test_annotations_are_read_back_as_they_were(tmp_path: Path) -> None:
    lines = workflow_commands(of_verdict(verdict().to_json()), tmp_path)
    told = [parsed(line) for line in lines]
    assert [kind for kind, _, _ in told] == ["error"] * 3
    assert told[0][1] == {"title": "vaeport: gate S, batch"}
    assert told[0][2] == "S batch decoded, channel 1: differs"
    for line in workflow_commands(hostile(), tmp_path):
        assert "\n" not in line
        assert "\r" not in line
        kind, properties, says = parsed(line)
        assert kind == "error"
        assert set(properties) <= {"title", "file", "line"}
        assert HOSTILE.split("\n")[0] in says


def test_annotations_stand_at_the_line_where_it_is_below_the_root(failing: Report, tmp_path: Path) -> None:
    assert failing.explanation is not None
    place = failing.explanation.findings[0].places[0]
    name, line = place.rsplit(":", 1)
    assert "file" not in parsed(workflow_commands(failing, tmp_path)[0])[1]
    (tmp_path / "src" / name).parent.mkdir(parents=True)
    (tmp_path / "src" / name).touch()
    _, properties, says = parsed(workflow_commands(failing, tmp_path)[0])
    assert (properties["file"], properties["line"]) == (f"src/{name}", line)
    assert says == "decoder.norm_out: eps 0.0001 should be 1e-06."


def test_a_place_too_long_for_a_file_is_none(tmp_path: Path) -> None:
    long = hostile("y" * 5000 + ":5")
    assert all("file" not in parsed(line)[1] for line in workflow_commands(long, tmp_path))


def test_annotations_are_no_more_than_are_shown(passing: Report, tmp_path: Path) -> None:
    made = verdict()
    for i in range(30):
        made.fail("evidence", f"kind {i}", "where", "says")
    lines = workflow_commands(of_verdict(made.to_json()), tmp_path)
    assert len(lines) == MOST
    assert parsed(lines[-1])[2] == "24 more checks failed"
    assert parsed(workflow_commands(passing, tmp_path)[0])[0] == "notice"


@pytest.mark.parametrize("figure", [float("nan"), float("inf")])
def test_figures_that_are_no_numbers_fail_in_every_text(figure: float, tmp_path: Path) -> None:
    made = verdict(figure=1e-15)
    made.failures.clear()
    made.rows = [Row("S", "S batch", "decoded", "whole", figure, 1e-10, False)]
    made.fail("S", "same function", "S batch decoded, whole", "differs")
    report = of_verdict(made.to_json())
    assert ET.fromstring(junit(report)).get("failures") == "1"
    assert "**fail**" in markdown(report)
    assert workflow_commands(report, tmp_path)[0].startswith("::error")


@pytest.mark.parametrize("limit", [1e-10, float("inf")])
def test_a_row_that_fails_is_told_before_one_that_is_nearer_to_its_limit(limit: float, tmp_path: Path) -> None:
    made = Verdict({"name": "theirs"}, {"name": "ours"})
    made.rows = [
        Row("S", "S batch", "mean", "whole", 0.9 * limit, limit, True),
        Row("S", "S batch", "decoded", "channel 1", 1e-11, 1e-10, False),
        Row("S", "S odd", "mean", "whole", 0.9 * limit, limit, True),
    ]
    report = of_verdict({**made.to_json(), "passed": False})
    assert report.proved is not None
    assert checks(report.proved)[0].worst == report.proved.rows[1]
    assert summary(report).fails == ["Gate S, batch: decoded is at 1.0e-11, limit 1.0e-10 (channel 1)."]
    assert "| decoded 1.0e-11 | 1.0e-10 | channel 1 |" in markdown(report)
    assert parsed(workflow_commands(report, tmp_path)[0])[2] == "decoded: 1e-11"
    tile = html(report).partition('class="tile bad"')[2].partition("</li>")[0]
    assert "<b>1.0e-11</b>" in tile


@pytest.mark.parametrize(("figure", "shown"), [(3.0, "3"), (float("inf"), "∞"), (float("nan"), "not a number")])
def test_rows_of_gate_d_are_counted(figure: float, shown: str) -> None:
    made = Verdict({"name": "theirs"}, {"name": "ours"})
    made.rows = [Row("D bfloat16", "types", "types", "12 rows", figure, 0.5, False)]
    report = of_verdict({**made.to_json(), "passed": False})
    assert summary(report).fails == [f"Gate D bfloat16: {shown} of 12 rows differ."]
    assert f"<b>{shown}</b> of 12 rows differ" in html(report)
