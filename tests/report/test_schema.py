"""`report.json`: one text per report, and nothing is read that is not one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.report.samples import hostile
from vaeport.errors import InputError, VaeportError
from vaeport.report.files import read_report, require_writable, write_text
from vaeport.report.schema import Report


def test_a_report_is_read_as_it_was_written(tmp_path: Path, failing: Report) -> None:
    for number, report in enumerate((failing, hostile())):
        file = tmp_path / f"{number}.json"
        write_text(file, report.to_text())
        assert read_report(file) == report
        assert read_report(file).to_text() == report.to_text()
        plain = json.loads(report.to_text())
        assert json.dumps(plain, indent=1, sort_keys=True) + "\n" == report.to_text()
        assert (plain["schema"], plain["version"]) == ("vaeport.report", 1)


def test_no_time_is_kept(failing: Report) -> None:
    assert "seconds" not in failing.to_text()


def test_a_verdict_is_a_report_with_less(tmp_path: Path, failing: Report) -> None:
    assert failing.proved is not None
    file = tmp_path / "verdict.json"
    told = failing.proved.model_dump(mode="json")
    file.write_text(
        json.dumps({**told, "explanation": {"findings": [], "explained": False, "seconds": {}, "units": []}})
    )
    report = read_report(file)
    assert report.proved == failing.proved
    assert "verdict" in report.absent["weights"]


BAD: dict[str, dict[str, Any]] = {
    "version": {"version": 2},
    "schema": {"schema": "other"},
    "layout": {"layout": 1},
    "more": {"more": 1},
    "comparisons.0.frames.0.native": {
        "comparisons": [
            {
                **hostile().model_dump(mode="json")["comparisons"][0],
                "frames": [{"label": "", "native": "data:text/html,x", "reference": None, "difference": None}],
            }
        ]
    },
    "units.0.own": {"units": [{"unit": "a", "reference": "b", "own": "many", "inherited": None, "after": None}]},
}


@pytest.mark.parametrize("place", BAD)
def test_what_is_no_report_is_refused_by_place(place: str, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_text(json.dumps({**json.loads(hostile().to_text()), **BAD[place]}))
    with pytest.raises(InputError) as error:
        read_report(file)
    assert place.partition(".")[0] in str(error.value) or place == "schema"


@pytest.mark.parametrize(
    ("section", "part", "fields", "place", "says"),
    [
        ("comparisons", 0, {"heat": [[]]}, "comparisons.0.heat.0", "at least 1 item"),
        ("comparisons", 0, {"axes": []}, "comparisons.0", "heat lies over two axes, axes has 0"),
        ("comparisons", 0, {"heat": [[0.1, 0.2], [0.3]]}, "comparisons.0", "rows of heat have 1 to 2 cells"),
        ("proved", "rows", {"gate": ""}, "proved.rows.0.gate", "a gate has a name"),
        ("proved", "failures", {"gate": ""}, "proved.failures.0.gate", "a gate has a name"),
    ],
)
def test_what_could_not_be_drawn_is_refused_by_place(
    section: str, part: str | int, fields: dict[str, Any], place: str, says: str, tmp_path: Path
) -> None:
    plain = json.loads(hostile().to_text())
    row = {"gate": "S", "case": "a", "output": "b", "slice": "c", "figure": 1.0, "limit": 2.0, "passed": True}
    plain["proved"]["rows"] = [row]
    file = tmp_path / "report.json"
    file.write_text(json.dumps(plain))
    read_report(file)
    there = plain[section][part]
    (there[0] if isinstance(there, list) else there).update(fields)
    file.write_text(json.dumps(plain))
    with pytest.raises(InputError) as error:
        read_report(file)
    assert error.value.where == f"{file}: {place}"
    assert says in str(error.value.found)
    assert "Value error" not in str(error.value)


@pytest.mark.parametrize("explanation", [0, True, "findings", [["findings"]]])
def test_a_verdict_with_another_explanation_is_refused(explanation: object, tmp_path: Path, failing: Report) -> None:
    assert failing.proved is not None
    file = tmp_path / "verdict.json"
    file.write_text(json.dumps({**failing.proved.model_dump(mode="json"), "explanation": explanation}))
    with pytest.raises(InputError, match="malformed"):
        read_report(file)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": NaN}', '{"a": 1, "a": 2}', "[" * 100_000, "\xff"])
def test_what_is_no_json_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"report|empty"):
        read_report(file)


def test_a_picture_is_a_picture() -> None:
    frame = hostile().comparisons[0].frames[0]
    for value in ("data:image/png;base64,AAAA\n", "data:image/png;base64,", "data:image/svg+xml;base64,AAAA", "x"):
        with pytest.raises(ValidationError):
            type(frame)(label="", native=value, reference=None, difference=None)
    assert type(frame)(label="", native="data:image/png;base64,AAA=", reference=None, difference=None).native


def test_figures_that_are_no_numbers_stay_words() -> None:
    unit = hostile().units[0]
    assert unit.inherited == "Infinity"
    assert type(unit).model_validate_json(unit.model_dump_json()).inherited == "Infinity"
    with pytest.raises(ValidationError):
        type(unit)(unit="a", reference="b", own=float("nan"), inherited=None, after=None)


def test_a_place_that_cannot_be_written_is_told_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for targets, says in (
        ({"--html": tmp_path / "absent" / "a.html"}, "mkdir -p"),
        ({"--html": tmp_path / "folder"}, "taken"),
        ({"--html": tmp_path / "a", "--junit": tmp_path / "folder" / ".." / "a"}, "--html and --junit"),
    ):
        with pytest.raises(VaeportError, match=says):
            require_writable(targets)
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]
