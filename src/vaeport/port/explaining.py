"""A failed comparison of a port, explained in lines for its record."""

from __future__ import annotations

from vaeport.drift import explain_gates
from vaeport.errors import VaeportError
from vaeport.proof.prove import Proof


def explanation(proof: Proof) -> list[str]:
    """Why the proof fails; a cause that cannot be looked for is told too."""
    try:
        return explain_gates(proof).lines()
    except VaeportError as error:
        return [f"no cause was looked for: {error}"]
