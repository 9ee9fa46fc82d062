"""One fault: oracle, the port's own proof, `explain`, and what its fixes do. Runs in a child."""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Callable
from typing import Any

from bench.drift import oracle, score, sites, vaes
from bench.drift.forking import Emit
from bench.drift.vaes import Prepared
from vaeport.errors import VaeportError
from vaeport.vae import VAE

VERDICTS = {"wanted": True}
"""The kill matrix costs a proof of each fault; a second campaign over the same faults does without."""
Fault = Callable[[VAE], None]


def explainer() -> Any:
    """`explain`, or None where there is none; one that cannot be imported is an error, not a lack."""
    if importlib.util.find_spec("vaeport.drift") is None:
        return None
    return importlib.import_module("vaeport.drift").explain


def ask_oracle(prepared: Prepared, fault: Fault | None) -> oracle.Change:
    """Whether the fault changes the function."""
    return oracle.change(lambda: vaes.opened(prepared.weights, fault), prepared.inputs, prepared.clean)


def ask_proof(prepared: Prepared, fault: Fault | None, **options: Any) -> dict[str, Any]:
    """The verdict: the gates that failed, and under which names."""
    begun = time.monotonic()
    try:
        verdict = vaes.proof_of(prepared, fault, **options).run()
    except Exception as error:
        return {"passed": False, "gates": ["error"], "names": [f"{type(error).__name__}: {error}"[:300]]}
    gates = {f"{f.gate}: {f.name}" if f.gate == "evidence" else f.gate for f in verdict.failures}
    dtypes = {f"P {d}" for f in verdict.failures for d in ("float32", "bfloat16") if f.gate == "P" and d in f.where}
    names = sorted({f"{f.gate}: {f.name}" for f in verdict.failures})
    seconds = round(time.monotonic() - begun, 2)
    return {"passed": bool(verdict), "gates": sorted(gates | dtypes), "names": names, "seconds": seconds}


def explained(prepared: Prepared, fault: Fault | None) -> tuple[dict[str, Any], list[Any]]:
    """What `explain` says, as data, and its findings."""
    explain = explainer()
    if explain is None:
        return {"missing": True}, []
    begun = time.monotonic()
    try:
        found = explain(vaes.proof_of(prepared, fault, dtypes=()))
    except VaeportError as error:
        return {"refused": f"{type(error).__name__}: {error}"[:300]}, []
    said: dict[str, Any] = {
        "findings": [score.plain(f) for f in found.findings],
        "explained": bool(found.explained),
        "left_out": list(found.left_out)[:20],
        "units": len(found.units),
        "seconds": round(time.monotonic() - begun, 2),
    }
    return said, list(found.findings)


def fixed(prepared: Prepared, fault: Fault, findings: list[Any]) -> oracle.Change:
    """What is left of a fault after the fixes were made on a fresh faulty copy, on the weights of the proof."""

    def opened() -> VAE:
        vae = vaes.opened(prepared.proof_weights, fault)
        for finding in findings:
            finding.fix(vae)
        return vae

    return oracle.change(opened, prepared.inputs, prepared.proof_clean)


def run(
    prepared: Prepared, fault: Fault, places: list[str], cause: list[str], emit: Emit, *, kill: bool = True
) -> None:
    """Says everything about one fault, step by step.

    places  that name it, empty where it is not known
    cause   its class; several for a double fault, none for a mutation
    """
    change = ask_oracle(prepared, fault)
    emit({"oracle": vars(change), "fault": change.fault})
    if kill and VERDICTS["wanted"]:
        emit({"verdict": ask_proof(prepared, fault)})
    if change.fault:
        emit(judge(prepared, fault, places, cause))


def judge(prepared: Prepared, fault: Fault, places: list[str], cause: list[str]) -> dict[str, Any]:
    """`explain` and its score."""
    said, findings = explained(prepared, fault)
    row: dict[str, Any] = {"explain": said}
    if said.get("missing"):
        return row
    row["detected"] = bool(findings) or "refused" in said
    first = findings[0] if findings else None
    units = prepared.units
    if places:
        row["place"], row["exact"] = score.place(first.unit, places, units) if first else (False, False)
    if len(cause) == 1:
        row["named"] = first is not None and score.same_cause(first.cause, cause[0])
        row["fixed"] = first is not None and _fixes(row, prepared, fault, findings)
        row["cause"] = row["named"] and row["fixed"]
        row["unaided"] = row["cause"] and not looked_up(prepared, fault, places[0], findings)
    elif cause:
        row["both"] = bool(findings) and _fixes(row, prepared, fault, findings)
    return row


def looked_up(prepared: Prepared, fault: Fault, path: str, findings: list[Any]) -> bool:
    """Whether an answer is the class that the fault replaced: which the library would not hold for a new port."""
    right = sites.rewritten(vaes.opened(prepared.weights, fault), path)
    return right is not None and any(right in finding.change.split() for finding in findings)


def _fixes(row: dict[str, Any], prepared: Prepared, fault: Fault, findings: list[Any]) -> bool:
    left = fixed(prepared, fault, findings)
    row["left"] = vars(left)
    return not left.fault


def clean_units(prepared: Prepared) -> dict[str, Any]:
    """The aligned units of the clean pair, and what is said of it."""
    explain = explainer()
    if explain is None:
        return {"units": []}
    try:
        found = explain(vaes.proof_of(prepared, None, dtypes=()))
    except Exception as error:
        return {"units": [], "crashed": f"{type(error).__name__}: {error}"}
    compared = [row.unit for row in found.units if row.status != "not compared"]
    return {"units": compared, "findings": [score.plain(f) for f in found.findings]}
