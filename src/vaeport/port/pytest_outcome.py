"""How one parity test ended: its status, and all that a report says about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from vaeport.errors import VaeportError

if TYPE_CHECKING:
    from vaeport.port.parity import Parity
    from vaeport.proof.verdict import Verdict

SCOPES = ("production_loader", "implementation_subcomponent", "both")


@dataclass
class Outcome:
    """What one call of the fixture `parity` found.

    coverage_scope  as declared; a proof that covers less fails
    result          one line for summaries
    details         the table of the verdict, or the rest of an error
    crash           an error that vaeport did not raise on purpose
    """

    test: str
    family: str
    component: str
    coverage_scope: str
    status: Literal["scaffold_skip", "debug_red", "non_skip_pass", "blocked"]
    result: str
    missing: tuple[str, ...] = ()
    details: tuple[str, ...] = ()
    verdict: Verdict | None = None
    crash: Exception | None = None
