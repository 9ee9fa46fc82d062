"""The one question that waits for the user."""

from __future__ import annotations

from typing import ClassVar, Self

from vaeport.port.contracts.record import accept
from vaeport.port.contracts.rows import EscapeHatch
from vaeport.port.state import PortState
from vaeport.port.views.view import View, open_hatch, pytest_output


class EscapeHatchView(View, EscapeHatch):
    """An escape hatch as a packet of its own."""

    NAME: ClassVar[str] = "escape_hatch"
    WRAPPED: ClassVar[bool] = True

    @classmethod
    def from_state(cls, state: PortState) -> Self:
        """The first open hatch of this record, or one that says that nothing is asked."""
        hatch = open_hatch(state)
        fields = hatch.plain() if hatch else _nothing(state)
        return accept(cls, fields, "the record does not give an escape hatch")


def _nothing(state: PortState) -> dict[str, object]:
    words = dict.fromkeys(("question", "recommended_option", "safe_default"), "none")
    snapshot: dict[str, object] = {"phase": state.phase, "files_changed": state.files_changed}
    snapshot |= {"command_or_test": pytest_output(state), "evidence": "nothing is asked"}
    said = {"needs_user_input": "no", "decision_type": "blocker", "options": (), "blocked_until_answered": "no"}
    return {**words, **said, "state_snapshot": snapshot}
