"""A report as Markdown, for a pull request: the answer, the gates, what differs in the contract, the commands."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from vaeport.report.checks import checks, gates, means, shown
from vaeport.report.schema import Report
from vaeport.report.summary import summary

_SPECIAL = re.compile(r"[\\`*{}\[\]#|~@$]|(?<![^\W_])_|_(?![^\W_])|:(?=//|\w+:)|(?<=www)\.|^[-+](?=\s)|(?<=^\d)[.)]")
MOST = 20


def markdown(report: Report) -> str:
    """The text; names from outside are shown as they are, and make neither markup nor mentions."""
    told = summary(report)
    out = [f"## {'✅' if told.passed else '❌'} {text(told.answer)}", "", text(report.title), ""]
    answers = (("Fails", told.fails), ("Evidence" if told.passed else "Because", told.because), ("Do", told.do))
    for title, sentences in answers[: 2 if told.passed else 3]:
        if sentences:
            out += [f"**{title}**", "", *(f"- {text(one)}" for one in sentences), ""]
    if report.proved is not None:
        out += [*_gates(report), ""]
    out += [*_contract(report), *_origins(report)]
    if report.stages:
        steps = [(code(one.name), text(one.status), text(one.note)) for one in report.stages]
        out += ["**Steps**", "", *table(("step", "status", "note"), steps), ""]
    if report.commands:
        lines = "\n".join(command.line for command in report.commands)
        out += ["<details><summary>Commands and environment</summary>", "", *fenced(lines), ""]
        out += table(("", ""), [(text(name), code(value)) for name, value in sorted(report.environment.items())])
        out += ["", "</details>", ""]
    return "\n".join(out)


def _contract(report: Report) -> list[str]:
    rows = [(text(one.name), code(one.native), code(one.reference)) for one in report.contract if one.same is False]
    head = ("term", "native", "reference")
    return ["**Contract, where both sides differ**", "", *table(head, rows), ""] if rows else []


def _origins(report: Report) -> list[str]:
    findings = report.explanation.findings[:MOST] if report.explanation else ()
    rows = [
        (
            code(one.unit or "the VAE's own steps"),
            text(one.cause or "unknown"),
            text(one.change),
            code(" / ".join(one.places)),
        )
        for one in findings
    ]
    head = ("unit", "cause", "change", "native / reference")
    return ["**Origins**", "", *table(head, rows), ""] if rows else []


def _gates(report: Report) -> list[str]:
    assert report.proved is not None
    rows = list[tuple[str, ...]]()
    for gate, group in gates(checks(report.proved)).items():
        for check in group:
            worst = check.worst
            says = "; ".join(f"{one.name}: {one.where}: {one.says}" for one in check.failures[:1])
            more = f" (and {len(check.failures) - 1} more)" if len(check.failures) > 1 else ""
            rows.append(
                (
                    f"{text(gate)} ({text(means(gate))})" if means(gate) != gate else text(gate),
                    text(check.label),
                    "pass" if check.passed else "**fail**",
                    "–" if worst is None else f"{text(worst.output)} {shown(worst.figure)}",
                    "–" if worst is None else shown(worst.limit),
                    text(says + more if worst is None or (says and check.gate[0] != "S") else worst.slice),
                )
            )
    return table(("gate", "case", "", "worst", "limit", "where"), rows)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table whose cells are Markdown already."""
    return [_line(head), _line(["---"] * len(head)), *map(_line, rows)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def text(value: str) -> str:
    """Text as it is, on one line."""
    one_line = " ".join(value.split())
    escaped = _SPECIAL.sub(r"\\\g<0>", one_line)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def code(value: str) -> str:
    """A span of code that stands in a table."""
    one_line = " ".join(value.split()) or " "
    fence = "`" * (1 + max((len(run) for run in re.findall(r"`+", one_line)), default=0))
    pad = " " if one_line.startswith("`") or one_line.endswith("`") else ""
    return f"{fence}{pad}{one_line.replace('|', chr(92) + '|')}{pad}{fence}"


def fenced(lines: str) -> list[str]:
    """A block of code."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", lines)), default=0))
    return [f"{fence}console", *lines.splitlines(), fence]
