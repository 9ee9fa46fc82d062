"""The page as text: escaped, whole, and the same for the same report; in a browser in test_browser.py."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from tests.report.samples import hostile
from vaeport.report.html import html
from vaeport.report.schema import Report

SECTIONS = ("gates", "cause", "where", "units", "contract", "map", "environment", "repeat")
VOID = {"meta", "br", "img", "input", "link"}


class Page(HTMLParser):
    """Elements by name, text by section; fails where tags do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: dict[str, str] = {}
        self.section = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "section":
            self.section = dict(attrs).get("id") or ""
        if tag not in VOID and not (self.get_starttag_text() or "").endswith("/>"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "script" not in self.open and "style" not in self.open:
            self.texts[self.section] = self.texts.get(self.section, "") + data


def test_hostile_names_are_text() -> None:
    page = Page(html(hostile()))
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not any(name.startswith("on") or name == "style" for _, attrs in page.tags for name in attrs)
    for section in SECTIONS:
        assert "<script>alert(1)</script>" in page.texts[section], section
    assert "{{ 7 * 7 }}" in page.texts["map"]
    assert "49" not in page.texts["map"]


def test_nothing_is_loaded(failing: Report) -> None:
    for report in (failing, hostile()):
        page = Page(html(report))
        links = [
            value
            for _, attrs in page.tags
            for name, value in attrs.items()
            if name in ("src", "href", "srcset", "action")
        ]
        assert links
        assert all(link and link.startswith(("#", "data:image/png;base64,")) for link in links)
        assert not {"link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.tags}


def test_the_policy_allows_this_style_and_this_script_alone(failing: Report) -> None:
    text = html(failing)
    policy = next(a["content"] for tag, a in Page(text).tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:;")
    for tag in ("style", "script"):
        inside = re.search(f"<{tag}>(.*?)</{tag}>", text, re.S)
        assert inside is not None
        digest = base64.b64encode(hashlib.sha256(inside[1].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy


def test_the_same_report_gives_the_same_bytes(failing: Report) -> None:
    again = Report.model_validate_json(failing.to_text())
    assert html(again) == html(failing)
    assert len(html(failing).encode()) < 4_000_000


def test_the_first_screen_answers(failing: Report, passing: Report) -> None:
    head = html(failing).partition("<nav")[0]
    for words in (
        "Not the same function",
        "What fails",
        "Because of what",
        "What to do",
        "decoder.norm_out",
        "gate S holds",
    ):
        assert words in head
    head = html(passing).partition("<nav")[0]
    assert "Same function" in head
    assert "What fails" not in head


def test_sections_without_data_say_so(passing: Report) -> None:
    nothing = dict.fromkeys(("units", "weights", "contract", "comparisons", "commands"), ())
    empty = passing.model_copy(update={**nothing, "absent": {"units": "This is why not."}})
    page = Page(html(empty))
    assert "This is why not." in page.texts["units"]
    for section in SECTIONS:
        assert len(page.texts[section].split()) > 3, section
    assert "Nothing to explain" in page.texts["cause"]


def test_every_figure_of_the_chart_stands_in_a_table(failing: Report) -> None:
    page = Page(html(failing))
    assert [tag for tag, _ in page.tags].count("circle") >= len([u for u in failing.units if u.own is not None])
    for unit in failing.units:
        assert unit.unit in page.texts["units"]
    ids = {attrs["id"] for _, attrs in page.tags if attrs.get("id")}
    named = [attrs["aria-labelledby"] for tag, attrs in page.tags if tag == "svg" and attrs.get("aria-labelledby")]
    assert named == ["chart-title chart-desc"]
    assert {"chart-title", "chart-desc"} <= ids
    assert all(attrs.get("alt") for tag, attrs in page.tags if tag == "img")


@pytest.mark.parametrize("passed", [True, False])
def test_the_word_and_the_colour_agree(passed: bool, passing: Report, failing: Report) -> None:
    text = html(passing if passed else failing)
    assert f'<header class="head {"good" if passed else "bad"}">' in text
    assert f'<span class="verdict">{"PASS" if passed else "FAIL"}</span>' in text
