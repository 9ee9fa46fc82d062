"""The page in Chromium, from disk: with a pointer, with the keyboard, narrow and wide, in the dark, on paper.

Chromium is the program that VAEPORT_CHROMIUM names, or `chromium` or `google-chrome` on the path.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.report.samples import hostile
from vaeport.report.html import html
from vaeport.report.schema import Report

pytestmark = pytest.mark.full
CONTRAST = """
() => {
  const channel = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = element => {
    for (let one = element; one; one = one.parentElement) {
      const colour = parse(getComputedStyle(one).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.checkVisibility()) continue;
    if (element.closest("script, style")) continue;
    const style = getComputedStyle(element), svg = element.closest("svg");
    const [a, b] = [light(parse(svg ? style.fill : style.color)), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    found.push([ratio, element.className.toString(), element.textContent.trim()]);
  }
  return found.sort((x, y) => x[0] - y[0]).slice(0, 5).concat([[found.length, "", ""]]);
}
"""
Open = Callable[..., Any]


def chromium() -> str:
    """The browser's program; its absence fails."""
    named = os.environ.get("VAEPORT_CHROMIUM")
    found = next(filter(None, map(shutil.which, [named] if named else ["chromium", "google-chrome"])), None)
    assert found, "no Chromium: apt-get install chromium, or name one in VAEPORT_CHROMIUM"
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as tool:
        # a container gives the browser no namespace of its own
        opened = tool.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page_of(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Opens a report from disk; whatever the page says, asks for or fails in ends the test."""
    said: list[str] = []
    contexts = []

    def opened(report: Report, width: int = 1280, *, quiet: bool = True, **options: Any) -> Any:
        file = tmp_path / "report.html"
        file.write_text(html(report), "utf-8")
        context = browser.new_context(viewport={"width": width, "height": 800}, **options)
        contexts.append(context)
        page = context.new_page()
        if quiet:
            page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        page.on("response", lambda answer: said.append(answer.url) if _loads(answer.url, file) else None)
        if quiet:
            page.on("request", lambda asked: said.append(asked.url) if _loads(asked.url, file) else None)
        page.goto(file.as_uri())
        page.wait_for_load_state("load")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert said == []


def _loads(url: str, file: Path) -> bool:
    return url.partition("#")[0] != file.as_uri() and not url.startswith("data:image/png;base64,")


def focused(page: Any) -> str:
    return str(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim().slice(0, 40)"))


@pytest.mark.parametrize("width", [320, 768, 1440])
@pytest.mark.parametrize("which", ["failing", "passing", "hostile"])
def test_the_page_never_scrolls_sideways(width: int, which: str, page_of: Open, request: pytest.FixtureRequest) -> None:
    report = hostile() if which == "hostile" else request.getfixturevalue(which)
    page = page_of(report, width)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    boxes = page.evaluate(
        "[...document.querySelectorAll('main *')].filter(e => !e.closest('.box, svg, pre') || e.matches('.box'))"
        ".map(e => e.getBoundingClientRect()).filter(r => r.width && r.right > innerWidth + 1).length"
    )
    assert boxes == 0, "something reaches beyond the window"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("which", ["failing", "passing", "hostile"])
def test_text_can_be_read(scheme: str, which: str, page_of: Open, request: pytest.FixtureRequest) -> None:
    report = hostile() if which == "hostile" else request.getfixturevalue(which)
    page = page_of(report, color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    *worst, (count, _, _) = page.evaluate(CONTRAST)
    assert count > 100
    assert worst[0][0] >= 4.5, worst
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 200) == (scheme == "dark")


def test_the_keyboard_reaches_the_filter_and_typing_filters(failing: Report, page_of: Open) -> None:
    page = page_of(failing)
    page.keyboard.press("Tab")
    assert focused(page) == "Skip to the report"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    page.keyboard.press("Enter")
    assert focused(page) == "main"
    for _ in range(80):
        page.keyboard.press("Tab")
        if focused(page) == "map-filter":
            break
    assert focused(page) == "map-filter"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.type("decoder NORM_OUT")
    rows = page.locator("#map-table tbody tr:visible")
    assert rows.count() == 2
    assert page.locator("[data-filter=map] output").inner_text() == f"2 of {len(failing.weights)}"
    page.keyboard.press("Escape")
    page.locator("#map-filter").fill("")
    assert rows.count() == len(failing.weights)
    page.keyboard.press("Tab")
    for _ in range(2):
        if page.evaluate("document.activeElement.tagName") == "BUTTON":
            break
        page.keyboard.press("Tab")
    first = page.locator("#map-table tbody tr td").first
    page.keyboard.press("Enter")
    assert first.inner_text() == min(weight.native for weight in failing.weights)
    page.keyboard.press("Enter")
    assert page.locator("#map-table th[aria-sort]").get_attribute("aria-sort") == "descending"
    page.keyboard.press("Enter")
    assert first.inner_text() == failing.weights[0].native
    assert page.locator("#map-table th[aria-sort]").count() == 0


def test_units_are_sorted_by_their_errors(failing: Report, page_of: Open) -> None:
    page = page_of(failing)
    page.get_by_text(re.compile(r"^Table of \d+ units")).click()
    page.locator("#units-table th", has_text="Own").get_by_role("button").click()
    assert page.locator("#units-table tbody tr td").first.inner_text() == "decoder.norm_out"
    page.locator("#units-filter").fill("conv_out")
    left = page.locator("#units-table tbody tr:visible td:first-child").all_inner_texts()
    assert set(left) == {one.unit for one in failing.units if "conv_out" in f"{one.unit} {one.reference}"}


def test_hostile_names_run_nothing(page_of: Open) -> None:
    page = page_of(hostile())
    assert page.evaluate("document.scripts.length") == 1
    assert "<script>alert(1)</script>" in page.locator("#map-table").inner_text()


def test_the_policy_stops_what_came_in_all_the_same(page_of: Open) -> None:
    page = page_of(hostile(), quiet=False)
    for bad in ("document.createElement('script')", "Object.assign(new Image(), {src: 'http://192.0.2.1/x.png'})"):
        page.evaluate(f"{{ const e = {bad}; e.append?.('window.ran = 1'); document.body.append(e) }}")
    page.wait_for_timeout(200)
    assert page.evaluate("window.ran") is None
    assert page.evaluate("document.images[document.images.length - 1].naturalWidth") == 0
    assert page.evaluate("document.querySelector('#map-table') !== null")


def test_the_page_works_without_script(failing: Report, page_of: Open) -> None:
    page = page_of(failing, java_script_enabled=False)
    assert page.locator("#map-table tbody tr").count() == len(failing.weights)
    assert page.locator("input").count() == 0
    page.get_by_text(re.compile(r"^Table of \d+ units")).click()
    assert page.locator("#units-table").is_visible()


def test_paper_shows_everything(failing: Report, page_of: Open) -> None:
    page = page_of(failing, color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    assert not page.locator("nav").is_visible()
    assert page.evaluate("[...document.querySelectorAll('.box')].every(b => b.scrollHeight <= b.clientHeight + 1)")
    *worst, _ = page.evaluate(CONTRAST)
    assert worst[0][0] >= 4.5, worst
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details:not([open])").count() > 0
