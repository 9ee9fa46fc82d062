"""`summary`: is it right, what fails, because of what, and what to do, in sentences."""

from __future__ import annotations

from dataclasses import dataclass

from vaeport.report.checks import Check, checks, counted, gates, means, shown
from vaeport.report.schema import Found, Report

_SENTENCES = 4


@dataclass(frozen=True)
class Summary:
    """The first screen; each answer is a list of sentences."""

    passed: bool
    answer: str
    fails: list[str]
    because: list[str]
    do: list[str]


def summary(report: Report) -> Summary:
    """Of a report."""
    found = [] if report.proved is None else checks(report.proved)
    failing = [check for check in found if not check.passed]
    if report.passed:
        held = list(gates(found))
        return Summary(True, _right(report, held), [], _evidence(report, found), _repeat(report))
    fails = [_fails(check) for check in failing[:_SENTENCES]]
    if len(failing) > _SENTENCES:
        fails.append(f"And {len(failing) - _SENTENCES} more checks.")
    stopped = [f"Step {one.name} is {one.status}: {one.note}" for one in report.stages if one.status == "blocked"]
    return Summary(False, _wrong(report, failing), stopped + fails, _because(report), _do(report, failing))


def _right(report: Report, held: list[str]) -> str:
    words = list(dict.fromkeys(means(gate).partition(",")[0] for gate in held))
    proved = ", ".join(words) if words else "nothing was compared"
    return f"Ported: {proved}" if report.kind == "port" else proved[:1].upper() + proved[1:]


def _wrong(report: Report, failing: list[Check]) -> str:
    if report.kind == "port" and not failing:
        return "The port has not ended"
    letters = {check.gate.partition(" ")[0] for check in failing}
    if "S" in letters:
        return "Not the same function"
    if "P" in letters:
        return "The same function, less precise"
    if "D" in letters:
        return "The same function in other types"
    return "The comparison is worth nothing"


def _fails(check: Check) -> str:
    row = check.worst
    name = f"Gate {check.gate}" if check.gate[0] in "SPD" else "Evidence"
    if row is None or row.passed:
        failure = check.failures[0]
        return f"{name}, {failure.name}: {failure.where}: {failure.says}."
    if check.gate[0] == "D":
        return f"{name}: {counted(row.figure)} of {row.slice} differ."
    return f"{name}, {check.label}: {row.output} is at {shown(row.figure)}, limit {shown(row.limit)} ({row.slice})."


def _evidence(report: Report, found: list[Check]) -> list[str]:
    rows = sum(len(check.rows) for check in found)
    if report.proved is None:
        return []
    parts = [report.proved.evidence, *(v for v in report.proved.evidence.values() if isinstance(v, dict))]
    elements = sum(part.get("elements_compared", 0) for part in parts if isinstance(part.get("elements_compared"), int))
    tensors = sum(part.get("tensors_compared", 0) for part in parts if isinstance(part.get("tensors_compared"), int))
    told = [f"{rows} figures lie within their limits."]
    if elements:
        told.append(f"{elements:,} elements of {tensors} tensors were compared.")
    return told


def _because(report: Report) -> list[str]:
    explanation = report.explanation
    if explanation is None and report.kind == "port":
        return [*report.lines[:_SENTENCES]]
    if explanation is None:
        return ["The cause was not looked for."]
    told = [cause(finding) for finding in explanation.findings[:_SENTENCES]]
    if len(explanation.findings) > _SENTENCES:
        told.append(f"And {len(explanation.findings) - _SENTENCES} more findings.")
    return told or [f"No unit differs; left out: {'; '.join(explanation.left_out) or 'nothing'}."]


def cause(finding: Found) -> str:
    """A finding in one sentence."""
    at = finding.unit or "the VAE's own steps"
    module = f"{finding.module}: " if finding.module and finding.module != finding.unit else ""
    return f"{at}: {module}{finding.change}."


def _do(report: Report, failing: list[Check]) -> list[str]:
    explanation = report.explanation
    if explanation is not None and explanation.findings:
        told = [_mend(finding) for finding in explanation.findings[:_SENTENCES]]
        gate = explanation.findings[-1].gate
        if all(finding.cause for finding in explanation.findings):
            holds = "holds" if explanation.explained else "does not hold yet"
            told.append(
                f"It was tried: with {'these changes' if len(told) > 1 else 'this change'} gate {gate} {holds}."
            )
        return [*dict.fromkeys(told)]
    if report.kind == "port":
        return [f"Do what the step that stopped asks for, then run: {one.line}" for one in report.commands[:1]]
    asked = [f"Run: {command.line}" for command in report.commands if "why" in command.purpose]
    if asked:
        return asked
    evidence = [failure.says for check in failing for failure in check.failures if failure.gate == "evidence"]
    return [f"Mend the comparison first: {evidence[0]}."] if evidence else _repeat(report)


def _mend(finding: Found) -> str:
    place = finding.module or finding.unit or "the VAE's own steps"
    ours, theirs = finding.places
    if finding.cause:
        return f"Change {place}: {finding.change}. It runs at {ours}."
    return f"Compare {ours} with {theirs}: {finding.tried} changes of {place} were tried, and none mends it."


def _repeat(report: Report) -> list[str]:
    return [f"Repeat it: {report.commands[0].line}"] if report.commands else []
