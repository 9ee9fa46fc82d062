"""A report as JUnit XML: one suite, one test case per gate and case."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from vaeport.report.checks import Check, checks, means, shown
from vaeport.report.schema import Report

_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
MOST = 50


def junit(report: Report) -> str:
    """The XML; characters that XML has not become U+FFFD."""
    found = [] if report.proved is None else checks(report.proved)
    stages = [stage for stage in report.stages if stage.status in ("complete", "blocked")]
    failed = sum(not check.passed for check in found) + sum(stage.status == "blocked" for stage in stages)
    counts = {"tests": str(len(found) + len(stages)), "failures": str(failed), "errors": "0", "skipped": "0"}
    root = ET.Element("testsuites", {"name": "vaeport", **counts})
    suite = ET.SubElement(root, "testsuite", {"name": _legal(report.title), **counts})
    properties = ET.SubElement(suite, "properties")
    for name, value in sorted(report.environment.items()):
        ET.SubElement(properties, "property", {"name": _legal(name), "value": _legal(value)})
    for check in found:
        _case(suite, report, check)
    for stage in stages:
        case = ET.SubElement(suite, "testcase", {"classname": "vaeport.port", "name": _legal(stage.name)})
        if stage.status == "blocked":
            ET.SubElement(case, "failure", {"type": "blocked", "message": _legal(stage.note)}).text = _legal(stage.note)
    ET.indent(root, " ")
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, "unicode") + "\n"


def _case(suite: ET.Element, report: Report, check: Check) -> None:
    name = f"gate {check.gate} ({means(check.gate)}): {check.label}" if check.rows else f"{check.gate}: {check.case}"
    case = ET.SubElement(suite, "testcase", {"classname": f"vaeport.{_legal(report.kind)}", "name": _legal(name)})
    lines = [
        f"{row.output} {shown(row.figure)}, limit {shown(row.limit)} ({row.slice}){'' if row.passed else '  <- fails'}"
        for row in check.rows
    ]
    if check.passed:
        ET.SubElement(case, "system-out").text = _legal("\n".join(lines))
        return
    says = [f"{failure.name}: {failure.where}: {failure.says}" for failure in check.failures]
    more = [f"and {len(says) - MOST} more"] if len(says) > MOST else []
    kind = check.failures[0].name if check.failures else means(check.gate)
    message = says[0] if says else next(line for line, row in zip(lines, check.rows, strict=True) if not row.passed)
    failure = ET.SubElement(case, "failure", {"type": _legal(kind), "message": _legal(message)})
    failure.text = _legal("\n".join([*says[:MOST], *more, *lines]))


def _legal(text: str) -> str:
    return _ILLEGAL.sub("\ufffd", text)
