"""The parts of a port's record: source, weights, target, reuse, conversion, parity."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from vaeport.port.contracts.blocks import Conversion, Exclusion
from vaeport.port.contracts.fields import (
    ConfigFile,
    ConfigValidation,
    CoverageScope,
    Json,
    LaterPath,
    LaterStrictness,
    Library,
    Lines,
    Names,
    OfficialPath,
    ParityState,
    ProjectPath,
    ReuseVerdict,
    Sha256,
    SourceLayout,
    StrictLoad,
    Text,
)
from vaeport.port.contracts.record import Record
from vaeport.port.contracts.rules import Finding, finding


class Source(Record):
    """The official side as the user gave it; the one place that may hold paths of this machine.

    official_ref    its public name: repository and commit, package and version
    weights         checkpoint path or hub id
    python          the interpreter of another environment, or `none`
    """

    given: Text
    official_ref: Text = "unknown"
    official_ref_dir: OfficialPath
    python: Text = "none"
    weights: OfficialPath
    local_weights_dir: Text = "none"
    hf_revision: Text = "none"
    source_layout: SourceLayout = "raw_official"


class WeightSource(Record):
    """Where the component's weights stand within `Source.weights`."""

    file: OfficialPath
    subfolder: str = ""
    prefix: str = ""
    passthrough: str = ""

    def text(self) -> str:
        """All of it in one line."""
        parts = {"subfolder": self.subfolder, "prefix": self.prefix, "passthrough": self.passthrough}
        return ", ".join([self.file, *(f"{name} {value}" for name, value in parts.items() if value)])

    def place(self) -> str:
        """Prefix or path of the component in the source: the narrowest that is known."""
        return self.prefix or self.subfolder or self.file


class Target(Record):
    """The native side: where the class is imported from, and its files."""

    name: Text = "unknown"
    import_path: Text = "unknown"
    class_name: Text = "unknown"
    model: ProjectPath
    config: ProjectPath
    weight_map: ProjectPath | None = None

    def files(self) -> tuple[str, ...]:
        """Model, config and weight map, each file once."""
        return tuple(dict.fromkeys(path for path in (self.model, self.config, self.weight_map) if path))


class Stub(Record):
    """A module that the official source imports and that a stub stands in for."""

    module: Text
    reason: Text


class Reuse(Record):
    """Whether a native class can be reused as it is, with other arguments, or not at all."""

    verdict: ReuseVerdict = "not_run"
    native: str = ""
    arguments: Json = Field(default_factory=dict)
    evidence: Lines = ()
    differences: Lines = ()

    def _rule_evidence(self) -> Iterator[Finding]:
        needs = {"reuse": ("native", "evidence"), "reuse_with_arguments": ("native", "arguments", "evidence")}
        needs["port"] = ("differences",)
        for name in needs.get(self.verdict, ()):
            if not getattr(self, name):
                fix = "run the reuse proof and record what it found"
                yield finding("reuse-evidence", name, f"{name} of the verdict {self.verdict}", "nothing", fix)


class Converted(Conversion):
    """The conversion with what only the record keeps; `strict`, until another loader says otherwise."""

    script: LaterPath = "not_created"
    converted_component_dir: LaterPath = "not_created"
    model_index_library: Library = "unknown"
    config_file: ConfigFile = "unknown"
    mapping_notes: Text = "not_created"
    production_loader_strictness: LaterStrictness = "strict"
    strict_load: StrictLoad = "not_run"
    exclusions: tuple[Exclusion, ...] = ()
    allowed_keys: tuple[Exclusion, ...] = ()
    config_validation: ConfigValidation | Literal["not_run"] = "not_run"

    def _rule_strictness(self) -> Iterator[Finding]:
        lax = self.production_loader_strictness == "non_strict_with_allowed_keys"
        if lax and not self.allowed_keys:
            fix = "list every key that may be missing or unexpected, with its reason"
            yield finding("allowed-keys", "allowed_keys", "at least one key", "none", fix)
        if lax and self.strict_load == "pass":
            fix = "say pass_with_documented_exclusions"
            yield finding("allowed-keys", "strict_load", "pass_with_documented_exclusions", "pass", fix)
        if self.strict_load == "pass_with_documented_exclusions" and not (self.exclusions or self.allowed_keys):
            fix = "name each dropped key with its reason, or say pass"
            yield finding("named-drops", "exclusions", "at least one key with its reason", "none", fix)


class Parity(Record):
    """The parity test and how it last ended.

    missing     what a scaffold skips for, or what blocks: native_class, converted_weights, official_import, ...
    result      the short result of pytest
    verdict     file of the proof's verdict and its hash, which a pass needs
    """

    test: ProjectPath
    status: ParityState = "scaffold_skip"
    missing: Names = ()
    coverage_scope: CoverageScope = "both"
    command: Text = "not_run"
    result: Text = "not_run"
    verdict: ProjectPath | None = None
    verdict_sha256: Sha256 | None = None

    def _rule_status(self) -> Iterator[Finding]:
        if self.status in ("scaffold_skip", "blocked") and not self.missing:
            fix = "name it, e.g. native_class, converted_weights, official_import"
            yield finding("status-cause", "missing", f"what {self.status} is for", "nothing", fix)
        if self.status != "non_skip_pass":
            return
        if self.verdict_sha256 is None:
            fix = "run the proof and record the SHA-256 of its verdict; a reused component needs one too"
            yield finding("verdict-hash", "verdict_sha256", "64 hexadecimal digits", "nothing", fix)
        yield from pass_result("result", self.result)
        if self.missing:
            fix = "a test that passed without a skip misses nothing"
            yield finding("pass-result", "missing", "nothing", ", ".join(self.missing), fix)


class Cleanup(Record):
    """The cleanup gate as it was last checked: its outcome and what was left behind or could not be looked at."""

    outcome: Literal["not_run", "pass", "fail", "incomplete"] = "not_run"
    leftovers: Lines = ()

    def _rule_leftovers(self) -> Iterator[Finding]:
        if (self.outcome in ("fail", "incomplete")) != bool(self.leftovers):
            fix = "run `vaeport port` again; the gate is checked, not told"
            yield finding("cleanup-gate", "leftovers", "leftovers exactly without a pass", self.outcome, fix)

    def lines(self) -> tuple[str, ...]:
        """The gate as a hand-over tells it: its verdict, then each leftover; nothing before it ran."""
        return () if self.outcome == "not_run" else (f"[cleanup-gate] {self.outcome.upper()}", *self.leftovers)


def pass_result(where: str, result: str) -> Iterator[Finding]:
    """A finding if the short result of a pass tells of no pass, or of skips, failures or errors."""
    bad = re.search(r"\b[1-9]\d* (?:skipped|xfailed|failed|errors?|deselected)\b", result, re.I)
    if bad or not re.search(r"\bpass(?:ed)?\b", result, re.I):
        fix = "run the test again with --no-skip and record its last line"
        yield finding("pass-result", where, "`N passed` and no skip", bad[0] if bad else result, fix)
