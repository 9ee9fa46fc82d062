"""`Report`: what `report.json` holds. Everything that is shown is made of it alone.

The same run gives the same text: keys are sorted, and no time of day and no duration is kept.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

SCHEMA: Literal["vaeport.report"] = "vaeport.report"
VERSION: Literal[1] = 1
Figure = Annotated[float, Field(allow_inf_nan=False)] | Literal["Infinity", "-Infinity", "NaN"]
"""A number; what JSON has no number for is a string."""
Shape = tuple[int, ...]
Picture = Annotated[str, StringConstraints(pattern=r"^data:image/png;base64,[A-Za-z0-9+/]+={0,2}$", max_length=600_000)]
"""A PNG of at most 256 x 256 as a data URI."""
Cell = Annotated[float, Field(ge=0, allow_inf_nan=False)] | None


def _named(gate: str) -> str:
    if not gate:
        raise ValueError("a gate has a name")
    return gate


# StringConstraints would refuse half of a surrogate pair, which a proof's own texts may hold
Gate = Annotated[str, AfterValidator(_named)]


class Part(BaseModel):
    """A part of a report: no other fields than those named, and no change once it is made."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Row(Part):
    """See `vaeport.proof.verdict.Row`."""

    gate: Gate
    case: str
    output: str
    slice: str
    figure: Figure
    limit: Figure
    passed: bool


class Failure(Part):
    """See `vaeport.proof.verdict.Failure`."""

    gate: Gate
    name: str
    where: str
    says: str


class Implementation(BaseModel):
    """One side: its name, its source files with their SHA-256, versions; a side may tell more."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = "unknown"
    files: dict[str, str] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    defined_in: str | None = None


class Proved(Part):
    """The JSON of `vaeport.proof.verdict.Verdict`, as `vaeport prove --json` prints it too."""

    format: Literal[1]
    passed: bool
    reference: Implementation
    native: Implementation
    evidence: dict[str, Any] = Field(default_factory=dict)
    rows: tuple[Row, ...] = ()
    failures: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()


class Term(Part):
    """One term of the latent contract; `same` is None where one side does not say."""

    name: str
    native: str
    reference: str
    same: bool | None


class Mapped(Part):
    """One native weight: the reference's keys that it is made of, the rule, and what happens to its shape."""

    native: str
    reference: tuple[str, ...]
    rule: str
    how: str
    shape: Shape


class Dropped(Part):
    """A key of the reference that no native weight is made of."""

    key: str
    reason: str


class Unit(Part):
    """One aligned unit in the order of the run; errors are the worst slice's, relative, in float64.

    own         on the reference's own input, with the reference's results for the units within
    inherited   of what reaches it in an ordinary run
    after       of what it gives in an ordinary run
    """

    unit: str
    reference: str
    own: Figure | None
    inherited: Figure | None
    after: Figure | None


class Frame(Part):
    """Pictures of one frame, image or spectrogram of both sides; `peak` is where the difference is brightest."""

    label: str
    native: Picture | None
    reference: Picture | None
    difference: Picture | None


class Comparison(Part):
    """One output of one case under gate S.

    error       rms of the difference over rms of the reference, of the whole
    peak        largest difference
    heat        rms of the difference over the reference's rms in the cells of a grid over `axes`, which are two,
                32 x 32 at most, None where it is not finite
    along       the same along `along_axis`, at most 64 values
    """

    case: str
    output: str
    shape: Shape | None
    reference_shape: Shape
    error: Figure | None
    peak: Figure | None
    axes: tuple[str, ...] = ()
    heat: tuple[Annotated[tuple[Cell, ...], Field(min_length=1)], ...] = Field(default=(), max_length=64)
    along_axis: str = ""
    along: tuple[Cell, ...] = Field(default=(), max_length=64)
    frames: tuple[Frame, ...] = ()

    @model_validator(mode="after")
    def _is_a_grid(self) -> Self:
        if self.heat and len(self.axes) != 2:
            raise ValueError(f"heat lies over two axes, axes has {len(self.axes)}")
        lengths = sorted({len(row) for row in self.heat})
        if len(lengths) > 1:
            raise ValueError(f"rows of heat have {lengths[0]} to {lengths[-1]} cells, not all the same number")
        return self


class Attempt(Part):
    """A change that was tried; `remaining` is None for one that cannot be made there."""

    cause: str
    module: str
    change: str
    remaining: Figure | None


class Found(Part):
    """See `vaeport.drift.explanation.Finding`."""

    unit: str
    reference_unit: str
    where: str
    module: str
    cause: str | None
    change: str
    error: Figure
    remaining: Figure | None = None
    places: tuple[str, str] = ("unknown", "unknown")
    operations: tuple[str, str] | None = None
    tried: int = 0
    attempts: tuple[Attempt, ...] = ()
    gate: str = "S"


class Explained(Part):
    """Why it differs; `explained`: with all changes the gate holds in every case."""

    findings: tuple[Found, ...]
    explained: bool
    left_out: tuple[str, ...] = ()


class Stage(Part):
    """One step of a port."""

    name: str
    status: str
    note: str = ""


class Command(Part):
    """A command line and what it is for."""

    purpose: str
    line: str


class Report(Part):
    """One proof or one port.

    contract_from   where the reference's side of the contract is from
    absent          name of a section -> why it has nothing
    lines           what is told beside the verdict: the explanation of a port, its leftovers, its questions
    """

    schema_name: Literal["vaeport.report"] = Field(default=SCHEMA, alias="schema")
    version: Literal[1] = VERSION
    kind: Literal["prove", "port"]
    title: str
    passed: bool
    proved: Proved | None
    explanation: Explained | None = None
    contract: tuple[Term, ...] = ()
    contract_from: str = ""
    layout: str = ""
    weights: tuple[Mapped, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    units: tuple[Unit, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    stages: tuple[Stage, ...] = ()
    lines: tuple[str, ...] = ()
    environment: dict[str, str] = Field(default_factory=dict)
    commands: tuple[Command, ...] = ()
    absent: dict[str, str] = Field(default_factory=dict)

    def to_text(self) -> str:
        """The text of `report.json`."""
        plain = self.model_dump(mode="json", by_alias=True)
        return json.dumps(plain, indent=1, sort_keys=True, allow_nan=False) + "\n"
