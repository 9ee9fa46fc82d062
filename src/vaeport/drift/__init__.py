"""Why a port differs: where the difference starts, what makes it, and the change that removes it."""

from vaeport.drift.explain import explain
from vaeport.drift.explanation import Explanation, Finding, UnitRow
from vaeport.drift.gates import explain_gates

__all__ = ["Explanation", "Finding", "UnitRow", "explain", "explain_gates"]
