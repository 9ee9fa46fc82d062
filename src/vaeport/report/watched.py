"""`Watched`: a proof of which a report is wanted, from before it runs until it is told."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from vaeport.drift.explanation import Explanation
from vaeport.errors import VaeportError
from vaeport.media.files import extra
from vaeport.proof.prove import Proof
from vaeport.proof.verdict import Verdict
from vaeport.report.build import NO_UNITS, report_of
from vaeport.report.gather import Gathered
from vaeport.report.schema import Report, Unit


class Watched:
    """Keeps what is seen of `proof` while it runs, and what is asked of it afterwards.

    BlockedError without Pillow, which makes the pictures.
    """

    def __init__(self, proof: Proof) -> None:
        with extra("PIL", "report"):
            import PIL  # noqa: F401
        self.proof, self.gathered = proof, Gathered()
        self.gathered.watch(proof)
        self.explanation: Explanation | None = None
        self.units: tuple[Unit, ...] = ()
        self.no_units = NO_UNITS

    def explain(self, failed: Collection[str]) -> Explanation:
        """`explain_gates`, and the errors of all units, from the same run of the reference. ProofError as there."""
        self.measure(failed)
        assert self.explanation is not None
        return self.explanation

    def measure(self, failed: Collection[str] = ()) -> None:
        """The errors of all units; and why, if gate S or D is among the gates that failed.

        ProofError if the reference does not run. Without such a gate it is told in the report instead.
        """
        from vaeport.drift import explain_gates
        from vaeport.drift.prepare import prepared
        from vaeport.report.units import measured_units

        asked = {"S", "D"} & set(failed)
        try:
            with prepared(self.proof) as given:
                if asked:
                    self.explanation = explain_gates(self.proof, failed, given=given)
                self.units = measured_units(self.proof, given)
        except VaeportError as error:
            self.no_units = f"They could not be measured: {error.what}."
            if asked:
                raise

    def report(self, verdict: Verdict, commands: Iterable[tuple[str, str]]) -> Report:
        """The report of the verdict of its run."""
        return report_of(
            verdict,
            self.gathered,
            explanation=self.explanation,
            units=self.units,
            no_units=self.no_units,
            commands=commands,
        )
