"""A report as one page: styles, script and pictures are in it, and its policy lets it load nothing."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files
from typing import Any

from vaeport.media.files import extra
from vaeport.report.chart import chart
from vaeport.report.checks import checks, counted, gates, means, number, severity, shown
from vaeport.report.grids import bars, grid
from vaeport.report.schema import Figure, Found, Report
from vaeport.report.summary import summary

OWN = 1e-11
"""Above it, an error is made in the unit itself."""
_EXPONENT = re.compile(r"\b\d+(?:\.\d+)?e[-+]\d+")
MOST = 200
"""Failures that the page lists."""


def html(report: Report) -> str:
    """The page; the same report gives the same bytes. BlockedError without Jinja."""
    style, script = _text("style.css"), _text("script.js")
    found = [] if report.proved is None else checks(report.proved)
    context = {
        "report": report,
        "told": summary(report),
        "gates": gates(found),
        "failing": [check for check in found if not check.passed],
        "failures": () if report.proved is None else report.proved.failures[:MOST],
        "failures_left": 0 if report.proved is None else max(0, len(report.proved.failures) - MOST),
        "worst_of": lambda group: max((c.worst for c in group if c.worst is not None), key=severity, default=None),
        "chart": chart(report.units, OWN) if report.units else None,
        "own": [unit for unit in report.units if unit.own is not None and number(unit.own) > OWN],
        "wrong": OWN,
        "different": sum(term.same is False for term in report.contract),
        "style": style,
        "script": script,
        "policy": f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'",
    }
    page: str = _template().render(context)
    return page + "\n"


@cache
def _template() -> Any:
    with extra("jinja2", "report"):
        import jinja2
    loader = jinja2.FunctionLoader(_text)
    made = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= {
        "figure": shown,
        "counted": counted,
        "means": means,
        "unbroken": _unbroken,
        "shape": lambda shape: " × ".join(map(str, shape)),
        "removed": _removed,
        "grid": grid,
        "bars": bars,
    }
    return made.get_template("page.html")


def _unbroken(text: str) -> Any:
    """Text in which numbers such as 1e-06 stay on one line."""
    from markupsafe import Markup, escape

    marked = _EXPONENT.sub(lambda found: f'<span class="u">{found[0]}</span>', str(escape(text)))
    return Markup(marked)


def _text(name: str) -> str:
    return (files("vaeport.report") / "templates" / name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _removed(remaining: Figure | None, finding: Found) -> str:
    """How much of a finding's error a change takes away, in words."""
    before = number(finding.error)
    if remaining is None:
        return "cannot be made there"
    left = number(remaining)
    if left == 0:
        return "all of it"
    if not left < float("inf") or not 0 < before < float("inf"):
        return "not known"
    share = 1 - left / before
    if abs(share) < 0.005:
        return "nothing"
    return f"{share:.1%}" if share > 0 else f"nothing: {left / before:.2g} times as large"
