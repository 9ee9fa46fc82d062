"""`explain_gates`: why gate S or gate D fails, as one explanation."""

from __future__ import annotations

import time
from collections.abc import Collection

from vaeport.drift.casts import explain_casts
from vaeport.drift.explain import explain
from vaeport.drift.explanation import Explanation
from vaeport.proof.prove import Proof


def explain_gates(proof: Proof, gates: Collection[str] = ("S", "D")) -> Explanation:
    """Of those of the two gates that may have failed: the function first, its types if the function is the same.

    ProofError if the reference does not run.
    """
    explanation = explain(proof) if "S" in gates else Explanation()
    if "D" in gates and proof.dtypes and explanation.explained and not explanation.findings:
        begun = time.monotonic()
        findings = explain_casts(proof)
        explanation.findings += findings
        explanation.explained = all(finding.cause is not None for finding in findings)
        explanation.seconds["types"] = time.monotonic() - begun
    return explanation
