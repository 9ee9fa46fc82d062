"""One unit during one run: it is given the reference's input, compared, and gives the reference's output."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from vaeport.drift.align import Unit
from vaeport.drift.truth import LIMIT, Truth, error_of
from vaeport.proof.noise import active_noise
from vaeport.proof.recording import first_tensor

Mode = str
"""FORCE: enter with the reference's input, compare, give its output. SKIP: compare the input, give the output without
running. OPEN: enter with its input, compare nothing. FREE: run as it is."""
FORCE, SKIP, OPEN, FREE = "force", "skip", "open", "free"


@dataclass(frozen=True)
class Spot:
    """A place at which both sides are compared.

    unit    the innermost aligned native unit; "" for the VAE's own steps
    at      "inside" (a unit without children, or as a whole), "before CHILD", "around CHILD" (which is cut otherwise
            than the reference's), "after" (its last steps), or an output
    """

    unit: str
    at: str


@dataclass
class Difference:
    """An error where it is made; `found` and `wanted` are both sides' tensors, `raised` what ended the run there."""

    spot: Spot
    error: float
    found: Tensor | None = field(default=None, repr=False)
    wanted: Tensor | None = field(default=None, repr=False)
    says: str = ""
    raised: bool = False


@dataclass
class Learned:
    """What runs have shown of a native model under one case.

    replaceable units that stand for others on the same weights
    foreign     units that are cut otherwise than the reference's, as one case has shown; what stands by is compared
    shapes      of what a call of a unit gives
    parents     the unit around each
    fitting     units whose input and output have a reading in the reference's
    draws       numbers of noise that a call of a unit draws
    unfit       what units were given that has no reading
    compared    (unit or "", end or output, call) of the last run
    """

    truth: Truth
    replaceable: set[str]
    foreign: set[str]
    shapes: dict[tuple[str, int], tuple[int, ...]] = field(default_factory=dict)
    parents: dict[str, str] = field(default_factory=dict)
    fitting: set[str] = field(default_factory=set)
    draws: dict[tuple[str, int], int] = field(default_factory=dict)
    unfit: dict[str, Tensor | None] = field(default_factory=dict)
    compared: set[tuple[str, str, int]] = field(default_factory=set)

    @contextmanager
    def unlearned(self) -> Iterator[None]:
        """What runs within, such as a model with a change in it, teaches nothing of how units lie in each other."""
        known: tuple[Any, ...] = self.foreign, self.shapes, self.parents, self.fitting, self.draws, self.unfit
        before = [held.copy() for held in known]
        try:
            yield
        finally:
            for held, was in zip(known, before, strict=True):
                held.clear()
                held.update(was)


class DoneError(Exception):
    """All that was asked for has been seen."""


@dataclass
class Passage:
    """One unit during one run."""

    run: Learned
    unit: Unit
    mode: Mode
    stack: list[str]
    found: list[Difference]
    final: bool = False
    call: int = 0
    fits: bool = True
    asleep: bool = False
    drawn: int = 0

    def entered(self, module: nn.Module, args: Any) -> Any:
        """Before the unit runs: compares its input, and gives it the reference's."""
        # of two units on the same weights, one within the other, one is compared
        foreign = self.run.foreign
        around = self.unit.within
        self.asleep = self.unit.native in foreign or bool(around and around not in foreign)
        if self.asleep:
            return None
        noise = active_noise()
        self.drawn = noise.drawn if noise else 0
        self.fits = False
        x = first_tensor(args)
        wanted = None
        if x is not None:
            wanted = self.run.truth.fitted(self.unit.reference, "in", x.shape, self.call)
        if wanted is None and self.unit.native in self.run.replaceable:
            foreign.add(self.unit.native)
            self.asleep = True
            return None
        parent = self.stack[-1]
        self.run.parents.setdefault(self.unit.native, parent)
        self.stack.append(self.unit.native)
        if x is None or wanted is None:
            self.run.unfit[self.unit.native] = x
            return None
        self.run.unfit.pop(self.unit.native, None)
        self.fits = True
        if self.mode != OPEN:
            self.run.compared.add((self.unit.native, "in", self.call))
            error = error_of(x, wanted)
            if error > LIMIT:
                self.found.append(Difference(Spot(parent, f"before {self.unit.native}"), error, x, wanted))
        return tuple(wanted if a is x else a for a in args)

    def left(self, module: nn.Module, args: Any, out: Any) -> Any:
        """When it has run: compares its output, and gives the reference's."""
        given = None if self.asleep else self._given(out)
        if self.final:
            raise DoneError
        return given

    def _given(self, out: Any) -> Any:
        self.stack.pop()
        noise = active_noise()
        if noise and self.mode == FORCE:
            self.run.draws[self.unit.native, self.call] = noise.drawn - self.drawn
        y, call = first_tensor(out), self.call
        self.call += 1
        if y is None or not isinstance(out, Tensor):
            return None
        wanted = self.run.truth.fitted(self.unit.reference, "out", y.shape, call)
        if wanted is None and self.unit.native in self.run.replaceable:
            self.run.foreign.add(self.unit.native)
            return None
        if self.mode == FORCE and (wanted is not None or self.fits):
            self.run.compared.add((self.unit.native, "out", call))
        if self.mode == FORCE and wanted is not None:
            if self.fits:
                self.run.fitting.add(self.unit.native)
            self.run.shapes[self.unit.native, call] = tuple(y.shape)
            error = error_of(y, wanted)
            if error > LIMIT:
                leaf = self.unit.native not in self.run.parents.values()
                at = "inside" if leaf else "after"
                spot = Spot(self.unit.native, at) if self.fits else Spot(self.stack[-1], f"around {self.unit.native}")
                self.found.append(Difference(spot, error, y, wanted))
        elif self.mode == FORCE and self.fits and (calls := self.run.truth.calls(self.unit.reference, "out")):
            self.found.append(Difference(Spot(self.unit.native, "after"), float("inf"), y, None, "another shape"))
            if len(calls) == 1 and calls[0].dim() == y.dim():
                return calls[0].clone()
        return wanted if self.mode != OPEN else None

    def skipped(self, forward: Any) -> Any:
        """In place of its run: the reference's output, of the shape that it had before."""

        def skip(*args: Any, **kwargs: Any) -> Any:
            shape = self.run.shapes.get((self.unit.native, self.call))
            wanted = None if shape is None else self.run.truth.fitted(self.unit.reference, "out", shape, self.call)
            if wanted is None:
                return forward(*args, **kwargs)
            noise = active_noise()
            if noise:  # those that come after it get what they would have got
                noise.drawn += self.run.draws.get((self.unit.native, self.call), 0)
            return wanted

        return skip


@contextmanager
def replaced(module: nn.Module, forward: Any) -> Iterator[None]:
    """Another `forward`, within."""
    before = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before
