"""`explain_gates`: why gate S or gate D fails, as one explanation."""

from __future__ import annotations

import time
from collections.abc import Collection

from vaeport.drift.casts import explain_casts
from vaeport.drift.explain import explain
from vaeport.drift.explanation import Explanation
from vaeport.drift.prepare import Prepared
from vaeport.proof.prove import Proof


def explain_gates(proof: Proof, failed: Collection[str] | None = None, *, given: Prepared | None = None) -> Explanation:
    """Why gate S fails; where the function is the same, why gate D does.

    failed      the gates that are known to have failed; None: each of the two may have
    given       what the reference did, if it has run already

    ProofError if the reference does not run.
    """
    asked = {"S", "D"} if failed is None else set(failed)
    explanation = explain(proof, given=given) if "S" in asked else Explanation()
    if "D" in asked and proof.dtypes and explanation.explained and not explanation.findings:
        begun = time.monotonic()
        findings = explain_casts(proof)
        explanation.findings += findings
        explanation.explained = all(finding.cause is not None for finding in findings)
        explanation.seconds["types"] = time.monotonic() - begun
    if failed is not None and not explanation.findings:
        explanation.explained = False
        gates = " and ".join(sorted(asked))
        explanation.left_out.append(f"gate {gates} failed, by something that is not run here, such as the round trip")
    return explanation
