"""Every rule that a packet or the record of a port can break, in one table; a broken one becomes a `Finding`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic_core import InitErrorDetails, PydanticCustomError

from vaeport.checkpoint.text import cut

RULES = {
    # form
    "missing-field": "a field of the contract is missing",
    "unknown-field": "a field that the contract does not have",
    "allowed-values": "a value that the contract does not allow",
    "wrong-form": "a value of another form than the contract asks for",
    # text
    "token-value": "a secret stands in the text",
    "machine-path": "a path of one machine stands in the text",
    "large-text": "a large dump stands in the text",
    "plain-text": "a value that no text file can hold",
    "unfilled": "a placeholder of a template stands where a value belongs",
    # paths and start
    "unknown-path": "an unknown path does not say which search was made",
    "relative-path": "a path is not relative to the project",
    "work-starts": "work cannot start",
    "scaffold-only": "a placeholder stands where the mode needs the real thing",
    "vae-packet": "the packet of a VAE is not whole",
    # steps, prototype and parity
    "step-evidence": "a step does not say when or why",
    "key-dumps": "the key dumps of both sides are missing",
    "prototype-end": "a prototype cannot end like this",
    "reuse-evidence": "the verdict on reuse lacks what it rests on",
    "pass-only": "parity-debug succeeds with non_skip_pass alone",
    "pass-result": "the result of pytest contradicts the pass",
    "verdict-hash": "a pass does not name its verdict",
    "status-cause": "the status of the parity test does not name its cause",
    "cleanup-gate": "what debugging left behind is handed over",
    # conversion
    "retry-request": "a conversion is to be repeated without a request",
    "conversion-edited": "a component port changed the conversion itself",
    "allowed-keys": "non-strict loading does not list its allowed keys",
    "named-drops": "exclusions are not named with their reasons",
    # questions to the user
    "ask-user": "the user is asked without an escape hatch",
    "hatch-row": "the escape hatch has no open row in the state file",
    "hatch-question": "an escape hatch asks exactly one question",
    "hatch-options": "an escape hatch has one to three options, each with its consequence",
    "hatch-matter": "the user is asked what the workflow decides itself",
    # rows
    "row-ids": "two rows have one id",
    "row-resolution": "a resolved row does not say how",
    "rows-stay": "a row or its resolution is lost",
    # files
    "file-form": "the file is not a packet that can be read",
    "unknown-contract": "no contract has these fields",
    "missing-section": "a section of the state file is missing",
}


@dataclass(frozen=True)
class Finding:
    """One broken rule: its id in `RULES`, the dotted place, what is wrong, and what to do."""

    rule: str
    where: str
    what: str
    expected: str = ""
    found: str = ""
    fix: str = ""

    def __str__(self) -> str:
        rows = (("expected", self.expected), ("found", self.found), ("fix", self.fix))
        head = f"{self.rule}: {self.where}: {self.what}" if self.where else f"{self.rule}: {self.what}"
        return "\n".join([head, *(f"  {name}: {text}" for name, text in rows if text)])


def finding(rule: str, where: str, expected: str = "", found: object = "", fix: str = "") -> Finding:
    """A broken rule, in the words of the table; `found` is cut to a line."""
    return Finding(rule, where, RULES[rule], expected, cut(str(found)), fix)


def broken(rule: str, expected: str = "", found: object = "", fix: str = "") -> PydanticCustomError:
    """The same as an error for a validator of one field to raise."""
    return _error(finding(rule, "", expected, found, fix))


def line_of(finding: Finding, loc: tuple[int | str, ...] | None = None, value: Any = None) -> InitErrorDetails:
    """The finding as a line of a `ValidationError`, so that it travels up through nested records."""
    place = tuple(finding.where.split(".")) if loc is None and finding.where else loc or ()
    return InitErrorDetails(type=_error(finding), loc=place, input=value)


def _error(finding: Finding) -> PydanticCustomError:
    told = {"expected": finding.expected, "found": finding.found, "fix": finding.fix}
    text = "; ".join([finding.what, *(f"{name}: {text}" for name, text in told.items() if text)])
    return PydanticCustomError(finding.rule, "{text}", {"text": text, "what": finding.what, **told})
