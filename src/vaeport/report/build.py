"""`report_of`: a verdict and what was seen beside it, put together as a `Report`."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from typing import Any

from vaeport.drift.explanation import Explanation
from vaeport.proof.verdict import FORMAT, Verdict
from vaeport.report.contract import OBSERVED
from vaeport.report.gather import Gathered
from vaeport.report.schema import Command, Comparison, Explained, Proved, Report, Unit

LARGEST = 2_000_000
"""Bytes of a report's text."""
NO_UNITS = "They are measured when --explain is given, in a run of the reference with every module watched."
NOT_SEEN = "Both sides did not run to the end of the comparison."
FROM_VERDICT = "A verdict alone does not have it; vaeport prove --report gathers it."


def report_of(
    verdict: Verdict,
    gathered: Gathered,
    *,
    explanation: Explanation | None = None,
    units: Sequence[Unit] = (),
    no_units: str = NO_UNITS,
    commands: Iterable[tuple[str, str]] = (),
) -> Report:
    """The report of a proof; `commands` are (purpose, command line).

    One that would be too large loses pictures first, of the last comparisons first.
    """
    proved = Proved.model_validate(verdict.to_json())
    report = Report(
        kind="prove",
        title=f"{proved.native.name} against {proved.reference.name}",
        passed=proved.passed,
        proved=proved,
        explanation=None if explanation is None else explained(explanation),
        contract=gathered.contract,
        contract_from=OBSERVED if gathered.contract else "",
        layout=gathered.layout,
        weights=gathered.weights,
        dropped=gathered.dropped,
        units=tuple(units),
        comparisons=gathered.comparisons,
        environment=environment(proved),
        commands=tuple(Command(purpose=purpose, line=line) for purpose, line in commands),
        absent={
            **{name: NOT_SEEN for name in ("contract", "weights", "comparisons") if not getattr(gathered, name)},
            **({} if units else {"units": no_units}),
        },
    )
    return fitted(report)


def of_verdict(told: dict[str, Any]) -> Report:
    """The report of a verdict's JSON alone, as `vaeport prove --json` and the folder of a port have it."""
    known = {name: told[name] for name in Proved.model_fields if name in told}
    proved = Proved.model_validate(known)
    explanation = told.get("explanation")
    return Report(
        kind="prove",
        title=f"{proved.native.name} against {proved.reference.name}",
        passed=proved.passed,
        proved=proved,
        explanation=None if explanation is None else _explained(explanation),
        environment=environment(proved),
        absent=dict.fromkeys(("contract", "weights", "comparisons", "units"), FROM_VERDICT),
    )


def is_verdict(told: dict[str, Any]) -> bool:
    """Whether a JSON object is a verdict's."""
    return told.get("format") == FORMAT and "rows" in told and "failures" in told


def explained(explanation: Explanation) -> Explained:
    """Without durations, which differ from run to run; units are told with all their errors elsewhere."""
    return _explained(explanation.to_json())


def _explained(told: Any) -> Explained:
    known = {name: told[name] for name in Explained.model_fields if name in told} if isinstance(told, dict) else told
    return Explained.model_validate(known)


def environment(proved: Proved | None) -> dict[str, str]:
    """What it ran on, by name: versions of both sides, platform, and the rest that changes rounding."""
    told = {"vaeport": _version(), "python": platform.python_version()}
    if proved is None:
        return told
    for side in ("reference", "native"):
        told |= {f"{name} ({side})": version for name, version in getattr(proved, side).versions.items()}
    parts = [proved.evidence, *(part for part in proved.evidence.values() if isinstance(part, dict))]
    for name in ("platform", "threads", "mkldnn", "tf32"):
        values = dict.fromkeys(str(part[name]) for part in parts if name in part)
        if values:
            told[name] = ", ".join(values)
    return told


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("vaeport")
    except PackageNotFoundError:
        return "unknown"


def fitted(report: Report) -> Report:
    """The report with as many pictures, then grids, as `LARGEST` allows."""
    for blank in ({"frames": ()}, {"heat": (), "along": ()}):
        for last in reversed(range(len(report.comparisons))):
            if len(report.to_text()) <= LARGEST:
                return report
            less: list[Comparison] = list(report.comparisons)
            less[last] = less[last].model_copy(update=blank)
            absent = {**report.absent, "pictures": "Some were left out, since the report would be larger than 2 MB."}
            report = report.model_copy(update={"comparisons": tuple(less), "absent": absent})
    return report
