"""What a helper hands back after a prototype or after parity-debug."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator

from vaeport.port.contracts.blocks import KeyDumps, RetryRequest, loading_rules
from vaeport.port.contracts.fields import Lines, NextStep, ParityState, ProjectPath, StrictLoad, Strictness, Text, YesNo
from vaeport.port.contracts.record import accept
from vaeport.port.contracts.rows import EscapeHatch
from vaeport.port.contracts.rules import Finding, finding
from vaeport.port.contracts.steps import STEPS
from vaeport.port.state import PortState
from vaeport.port.views.view import (
    OrNone,
    View,
    asking_rules,
    blocker,
    concerns,
    converted_weights_dir,
    open_hatch,
    pass_rules,
    pytest_output,
)

_CONVERSION_FOLDERS = ("converted_weights/", "scripts/checkpoint_conversion/")


def _as_dumps(value: Any) -> Any:
    if value is None or value == "none":
        return {"official": "none", "native": "none"}
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")]
    return dict(zip(("official", "native"), value, strict=False)) if isinstance(value, list | tuple) else value


class ComponentHandoff(View):
    """The hand-over of one component, from prototype or parity-debug."""

    NAME: ClassVar[str] = "component_skill_handoff"

    component: Text
    mode: Literal["prototype", "parity-debug"]
    files_changed: Lines
    official_files_used: Lines
    prototype_key_dumps: Annotated[KeyDumps, BeforeValidator(_as_dumps)]
    port_state_file: ProjectPath
    concerns_or_unknowns: Lines
    parity_test: ProjectPath
    parity_status: ParityState
    production_loader_strictness: Strictness
    strict_load: StrictLoad
    pytest_output: Text
    blocker: Text
    conversion_retry_request: OrNone[RetryRequest]
    readme_updated: YesNo
    next_step: NextStep
    escape_hatch: OrNone[EscapeHatch]

    def _rule_prototype(self) -> Iterator[Finding]:
        if self.mode != "prototype":
            return
        if self.next_step not in ("ask_user", "blocked"):
            yield from self.prototype_key_dumps.missing("prototype_key_dumps.")
        if self.parity_status not in ("scaffold_skip", "blocked"):
            fix = "hand over numbers from parity-debug, after the conversion"
            yield finding("prototype-end", "parity_status", "scaffold_skip or blocked", self.parity_status, fix)
        if self.next_step not in ("phase_5_conversion", "ask_user", "blocked"):
            fix = "a prototype goes on to the conversion"
            yield finding("prototype-end", "next_step", "phase_5_conversion, ask_user or blocked", self.next_step, fix)

    def _rule_success(self) -> Iterator[Finding]:
        stopped = self.blocker != "none" or self.conversion_retry_request or self.escape_hatch
        if self.mode == "parity-debug" and self.parity_status != "non_skip_pass" and not stopped:
            fix = "go on until the test passes without a skip, or name the blocker, a retry request or an escape hatch"
            yield finding("pass-only", "parity_status", "non_skip_pass, or what stops it", self.parity_status, fix)
        loaded = self.strict_load in ("pass", "pass_with_documented_exclusions")
        if self.parity_status == "non_skip_pass" and not loaded and self.production_loader_strictness != "stateless":
            fix = "load the converted folder strictly through the production loader first"
            yield finding("pass-only", "strict_load", "pass", self.strict_load, fix)

    def _rule_pass(self) -> Iterator[Finding]:
        texts = self.concerns_or_unknowns
        yield from pass_rules("pytest_output", self.parity_status, self.pytest_output, texts)

    def _rule_cause(self) -> Iterator[Finding]:
        if "blocked" in (self.parity_status, self.next_step) and self.blocker == "none" and not self.escape_hatch:
            fix = "name the missing dependency or weights, or the mismatch, exactly"
            yield finding("status-cause", "blocker", "the exact cause of `blocked`", "none", fix)

    def _rule_retry(self) -> Iterator[Finding]:
        asked = self.conversion_retry_request is not None
        others = ("ask_user", "blocked") if asked else ()
        if (self.next_step == "phase_5_conversion_retry") != asked and self.next_step not in others:
            fix = "give the request and `next_step: phase_5_conversion_retry` together, or neither"
            found = f"next_step {self.next_step}"
            yield finding("retry-request", "conversion_retry_request", "a request exactly for a retry", found, fix)

    def _rule_conversion(self) -> Iterator[Finding]:
        for path in self.files_changed:
            if path.startswith(_CONVERSION_FOLDERS):
                fix = "undo it, and file a conversion_retry_request"
                yield finding("conversion-edited", "files_changed", "no file of the conversion", path, fix)

    def _rule_loading(self) -> Iterator[Finding]:
        texts = (*self.concerns_or_unknowns, self.pytest_output)
        yield from loading_rules(self.production_loader_strictness, self.strict_load, texts)

    def _rule_asking(self) -> Iterator[Finding]:
        yield from asking_rules(self.next_step == "ask_user", self.escape_hatch)

    def _rule_cleanup(self) -> Iterator[Finding]:
        failed = any(re.search(r"\[cleanup-gate\]\s+FAIL", text, re.I) for text in self.concerns_or_unknowns)
        if failed and self.blocker == "none":
            fix = "remove each leftover and check again, or hand over as blocked by them"
            yield finding("cleanup-gate", "concerns_or_unknowns", "[cleanup-gate] PASS", "[cleanup-gate] FAIL", fix)

    @classmethod
    def from_state(cls, state: PortState) -> Self:
        """The hand-over of this record; what the conversion itself wrote stands in its own hand-over."""
        made = (converted_weights_dir(state) + "/", state.conversion.script)
        changed = [path for path in state.files_changed if not path.startswith(made)]
        retries = state.open_rows("retries")
        written = [path for name in STEPS for path in state.steps.of(name).artifacts]
        files = [*(file.path for file in state.definition_files), *(file.path for file in state.instantiation_files)]
        fields = {
            "component": state.component,
            "mode": "parity-debug" if state.mode == "parity-debug" else "prototype",
            "files_changed": changed,
            "official_files_used": list(dict.fromkeys(files)),
            "prototype_key_dumps": state.key_dumps,
            "port_state_file": state.status_file,
            "concerns_or_unknowns": [*concerns(state), *state.cleanup.lines()],
            "parity_test": state.parity.test,
            "parity_status": state.parity.status,
            "production_loader_strictness": state.conversion.production_loader_strictness,
            "strict_load": state.conversion.strict_load,
            "pytest_output": pytest_output(state),
            "blocker": blocker(state),
            "conversion_retry_request": retries[0].request if retries else None,
            "readme_updated": "yes" if state.readme in (*written, *state.files_changed) else "no",
            "next_step": state.next_step,
            "escape_hatch": open_hatch(state),
        }
        return accept(cls, fields, "the record is not far enough for a component's hand-over")
