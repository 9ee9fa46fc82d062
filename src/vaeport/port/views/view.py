"""What all views share: derived from the record, written as JSON or YAML, with `none` where a block is absent."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from vaeport.port.contracts.blocks import exclusion_lines
from vaeport.port.contracts.parts import pass_result
from vaeport.port.contracts.record import Document
from vaeport.port.contracts.rows import EscapeHatch
from vaeport.port.contracts.rules import Finding, finding
from vaeport.port.contracts.yaml_text import write_yaml
from vaeport.port.state import PortState

T = TypeVar("T")
_VERDICT = re.compile(r"\b[0-9a-f]{64}\b")
_HATCH_ID = re.compile(r"\bE\d{3,}\b")


class View(Document):
    """A packet. NAME is its contract's name; WRAPPED says that a file names it at the top."""

    NAME: ClassVar[str]
    WRAPPED: ClassVar[bool] = False

    @classmethod
    def from_state(cls, state: PortState) -> Self:
        """The view of this record.

        Raises:
            ConfigError: the record is not far enough for it; the rules that it would break are told.
        """
        raise NotImplementedError

    def _packet(self) -> dict[str, Any]:
        return {self.NAME: self.plain()} if self.WRAPPED else self.plain()

    def to_json(self) -> str:
        """The packet as JSON text."""
        return json.dumps(self._packet(), indent=2, ensure_ascii=False) + "\n"

    def to_yaml(self) -> str:
        """The packet as YAML text."""
        return write_yaml(self._packet())


class _NoneWord:
    """None is read and written as the word `none`."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        write = core_schema.wrap_serializer_function_ser_schema(lambda value, h: "none" if value is None else h(value))
        read = core_schema.no_info_before_validator_function(
            lambda value: None if value == "none" else value, handler(source)
        )
        return {**read, "serialization": write}

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        told = handler({**schema, "serialization": None})
        return {**told, "anyOf": [*told["anyOf"], {"const": "none"}]}


# A block, or the word `none`.
OrNone = Annotated[T | None, _NoneWord()]


def pass_rules(where: str, status: str, result: str, texts: Iterable[str]) -> Iterator[Finding]:
    """Rules of a view about a pass: its result says so, and some text names the verdict by its hash."""
    if status == "non_skip_pass":
        yield from pass_result(where, result) if result else ()
        if not any(_VERDICT.search(text) for text in (result, *texts)):
            fix = "run `vaeport prove`, and write `verdict sha256 <digest>` behind the result; a reused component too"
            yield finding("verdict-hash", where, "the SHA-256 of a verdict", "none", fix)


def asking_rules(asks: bool, hatch: EscapeHatch | None) -> Iterator[Finding]:
    """Rules between a next step and an escape hatch: the one asks exactly if the other does, and names its row."""
    if asks != (hatch is not None and hatch.needs_user_input == "yes"):
        where = "escape_hatch" if asks else "next_step"
        found = "next_step asks the user" if asks else "the escape hatch asks the user, next_step does not"
        fix = "give the escape hatch and `next_step: ask_user` together, or neither"
        yield finding("ask-user", where, "ask_user exactly with an escape hatch", found, fix)
    if asks and hatch is not None and not _HATCH_ID.search(hatch.state_snapshot.evidence):
        fix = "add a row to Escape Hatches of the state file and name its id, such as E001, in the evidence"
        evidence = hatch.state_snapshot.evidence
        yield finding("hatch-row", "escape_hatch.state_snapshot.evidence", "the id of the row", evidence, fix)


def open_hatch(state: PortState) -> EscapeHatch | None:
    """The first escape hatch that waits for an answer; its evidence names its row."""
    for row in state.open_rows("escape_hatches"):
        snapshot = row.hatch.state_snapshot
        if row.id in snapshot.evidence:
            return row.hatch  # type: ignore[no-any-return]
        told = {**snapshot.plain(), "evidence": f"{row.id}: {snapshot.evidence}"}
        return EscapeHatch.model_validate({**row.hatch.plain(), "state_snapshot": told})
    return None


def pytest_output(state: PortState) -> str:
    """Command and short result of the parity test, and the hash of the verdict behind a pass."""
    parity = state.parity
    verdict = f"; verdict sha256 {parity.verdict_sha256}" if parity.verdict_sha256 else ""
    return f"{parity.command}: {parity.result}{verdict}" if parity.command != "not_run" else "not_run"


def concerns(state: PortState) -> list[str]:
    """The concerns, with the open questions and issues and all keys that loading leaves out."""
    rows = [f"{row.id}: {row.question}" for row in state.open_rows("questions")]
    rows += [f"{row.id}: {row.issue}" for row in state.open_rows("issues")]
    return [*state.concerns, *rows, *exclusion_lines(state.conversion.exclusions, state.conversion.allowed_keys)]


def blocker(state: PortState) -> str:
    """The precise cause that stops the port, or `none`."""
    waits = [state.step.note] if state.step.status == "blocked" else []
    if state.parity.status == "blocked":
        waits.append("missing " + ", ".join(state.parity.missing))
    if state.parity.status == "debug_red":
        waits.append(f"the parity test is red: {state.parity.result}")
    return "; ".join(waits) or "none"


def converted_weights_dir(state: PortState) -> str:
    """The folder that the component folders are converted into."""
    held = state.conversion.converted_component_dir
    return held.rpartition("/")[0] if "/" in held else f"converted_weights/{state.model_family}"
