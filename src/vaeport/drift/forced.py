"""A run of the native model in which every aligned unit gets the reference's own input, and its output is replaced.

So an error shows where it is made and nowhere else: units behind it get what they should have got, and one run finds
several faults. What a unit's children are given and give belongs to the unit, what happens between them is its glue.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from vaeport.drift.align import Unit
from vaeport.drift.hidden import hidden
from vaeport.drift.layouts import fitted
from vaeport.proof import gates
from vaeport.proof.jobs import in_float64
from vaeport.proof.noise import active_noise
from vaeport.proof.precision import ClampTap
from vaeport.proof.recording import Captured, first_tensor
from vaeport.proof.sides import NativeSide
from vaeport.vae import VAE

LIMIT = 1e-11
"""Of a unit alone; a fault of 1e-10 in an output may be less where it is made."""
ENCODE, DECODE = "@encode", "@decode"
"""The reference's calls themselves, which are the native halves' counterparts."""
STAGES = {"encode": ("moments", "mean", "std", "normalized"), "decode": ("unclamped", "decoded")}
"""Outputs in the order in which one is made of the other."""
HALVES = tuple(STAGES)


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


class Truth:
    """One case of the reference: inputs, outputs, and what its modules took and gave."""

    def __init__(
        self, media: Tensor, latent: Tensor, outputs: Mapping[str, Tensor], captured: Captured, raw: bool
    ) -> None:
        self.media, self.latent, self.outputs, self.captured = media, latent, outputs, captured
        self._ends = {
            (ENCODE, "in"): [media],
            (ENCODE, "out"): [outputs[name] for name in ("moments",) if name in outputs],
            (DECODE, "in"): [latent] if raw else [],
            (DECODE, "out"): [outputs["unclamped"]],
        }
        self._calls = lru_cache(maxsize=4)(captured.calls)
        self._kept: dict[tuple[Any, ...], Tensor | None] = {}
        self.keeping = False

    @property
    def batch(self) -> int:
        """Samples."""
        return len(self.media)

    def calls(self, unit: str, end: str) -> list[Tensor]:
        """Tensors "in" or "out" of the calls of one of its modules."""
        return self._ends[unit, end] if unit in (ENCODE, DECODE) else self._calls(unit, end)

    def fitted(self, unit: str, end: str, shape: Sequence[int], call: int) -> Tensor | None:
        """As a tensor of the native module's shape, which may be written to."""
        key = unit, end, tuple(shape), call
        with hidden():
            found = self._kept[key] if key in self._kept else fitted(self.calls(unit, end), shape, self.batch, call)
            if self.keeping:
                self._kept[key] = found
            return None if found is None else found.clone()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """What is asked for within stays in memory."""
        self.keeping = True
        try:
            yield
        finally:
            self.keeping = False
            self._kept.clear()


def error_of(found: Tensor, wanted: Tensor) -> float:
    """Gate S's figure: the worst slice's relative rms difference."""
    with hidden():
        return _error_of(found, wanted)


def _error_of(found: Tensor, wanted: Tensor) -> float:
    if found.shape != wanted.shape:
        return float("inf")
    if not found.isfinite().all():
        return float("inf")
    worst, scale = (found - wanted).abs().amax().item() if found.numel() else 0.0, gates.rms(wanted)
    if worst <= 1e-14 * scale:
        return worst / scale if scale else 0.0
    while found.dim() < 3:
        found, wanted = found.unsqueeze(1), wanted.unsqueeze(1)
    if found.dim() > 5:
        found, wanted = found.flatten(4), wanted.flatten(4)
    return gates.same_function("", found, wanted).figure


@contextmanager
def in_one_piece(vae: VAE) -> Iterator[None]:
    """Within, nothing is cut: a network that runs in pieces is not called, and its hooks are not either."""
    before = vae.encode_pieces, vae.decode_pieces
    vae.encode_pieces = vae.decode_pieces = None
    try:
        yield
    finally:
        vae.encode_pieces, vae.decode_pieces = before


Mode = str
"""FORCE: enter with the reference's input, compare, give its output. SKIP: compare the input, give the output without
running. OPEN: enter with its input, compare nothing. FREE: run as it is."""
FORCE, SKIP, OPEN, FREE = "force", "skip", "open", "free"


class Forcing:
    """A native VAE between hooks.

    foreign     units that are cut otherwise than the reference's, as one case has shown; what stands by is compared
    """

    def __init__(
        self, side: NativeSide, vae: VAE, units: Sequence[Unit], truth: Truth, foreign: set[str] | None = None
    ) -> None:
        self.side, self.vae, self.units, self.truth = side, vae, units, truth
        self.foreign = set() if foreign is None else foreign
        self.replaceable = {unit.within for unit in units if unit.within}
        self.shapes: dict[tuple[str, int], tuple[int, ...]] = {}
        self.parents: dict[str, str] = {}
        self.fitting: set[str] = set()
        self.draws: dict[tuple[str, int], int] = {}
        self.unfit: dict[str, Tensor | None] = {}
        self.compared: set[tuple[str, str, int]] = set()

    def run(
        self, halves: Sequence[str], modes: Mapping[str, Mode], default: Mode = FORCE, until: str | None = None
    ) -> list[Difference]:
        """The differences in the order of the run, which ends with unit `until`; `modes` by native path."""
        found: list[Difference] = []
        stack: list[str] = [""]
        self.compared.clear()
        with in_one_piece(self.vae), self._hooks(modes, default, stack, found, until):
            for half in halves:
                try:
                    outputs = self.outputs(half)
                except _DoneError:
                    break
                except Exception as error:  # a wrong port may raise anything
                    # what it was given had another shape already
                    while stack[-1] in self.unfit:
                        stack.pop()
                    says = f"{type(error).__name__}: {error}"
                    found.append(Difference(Spot(stack[-1], "after"), float("inf"), says=says, raised=True))
                    del stack[1:]
                    continue
                found += self._stages(half, outputs)
        return found

    @torch.no_grad()
    def outputs(self, half: str) -> dict[str, Tensor]:
        """Encode or decode as users run them, in float64."""
        with in_float64(), ClampTap() as tap:
            return self.side.half(half, self.vae, self.truth.media, self.truth.latent, tap)

    def right(self, half: str, found: Mapping[str, Tensor] | None = None) -> bool:
        """Gate S on what it gives, or gave."""
        found, wanted = self.outputs(half) if found is None else found, self.truth.outputs
        return all(error_of(found[n], wanted[n]) <= gates.SAME_FUNCTION for n in found.keys() & wanted.keys())

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

    def seen(self) -> Forcing:
        """Itself, after a run that showed how units lie in each other."""
        if not self.parents:
            self.run(HALVES, {})
        return self

    def _stages(self, half: str, outputs: Mapping[str, Tensor]) -> Iterator[Difference]:
        """The first output of a half that differs; those made of it are receivers."""
        for name in STAGES[half]:
            wanted, found = self.truth.outputs.get(name), outputs.get(name)
            if wanted is None or found is None:
                continue
            self.compared.add(("", name, 0))
            error = error_of(found, wanted)
            if error > LIMIT:
                yield Difference(Spot("", name), error, found, wanted)
                if name != "std":
                    return

    @contextmanager
    def _hooks(
        self, modes: Mapping[str, Mode], default: Mode, stack: list[str], found: list[Difference], until: str | None
    ) -> Iterator[None]:
        with ExitStack() as hooks:
            for unit in self.units:
                mode = modes.get(unit.native, default)
                if mode == FREE:
                    continue
                try:
                    module = self.vae.get_submodule(unit.native)
                except AttributeError:  # a change took it away
                    continue
                state = _Passage(self, unit, mode, stack, found, unit.native == until)
                if mode == SKIP:
                    hooks.enter_context(_replaced(module, state.skipped(module.forward)))
                for handle in (
                    module.register_forward_pre_hook(state.entered),
                    module.register_forward_hook(state.left),
                ):
                    hooks.callback(handle.remove)
            yield


class _DoneError(Exception):
    """All that was asked for has been seen."""


@dataclass
class _Passage:
    """One unit during one run."""

    run: Forcing
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
            raise _DoneError
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
        elif self.mode == FORCE and self.fits:
            self.found.append(Difference(Spot(self.unit.native, "after"), float("inf"), y, None, "another shape"))
            calls = self.run.truth.calls(self.unit.reference, "out")
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
def _replaced(module: nn.Module, forward: Any) -> Iterator[None]:
    before = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before
