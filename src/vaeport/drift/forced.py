"""A run of the native model in which every aligned unit gets the reference's own input, and its output is replaced.

So an error shows where it is made and nowhere else: units behind it get what they should have got, and one run finds
several faults. What a unit's children are given and give belongs to the unit, what happens between them is its glue.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from vaeport.drift.align import Unit
from vaeport.drift.passage import FORCE, FREE, SKIP, Difference, DoneError, Learned, Mode, Passage, Spot, replaced
from vaeport.drift.truth import HALVES, LIMIT, STAGES, Truth, error_of
from vaeport.proof import gates
from vaeport.proof.jobs import in_float64
from vaeport.proof.precision import ClampTap
from vaeport.proof.sides import NativeSide
from vaeport.vae import VAE


@contextmanager
def in_one_piece(vae: VAE) -> Iterator[None]:
    """Within, nothing is cut: a network that runs in pieces is not called, and its hooks are not either."""
    before = vae.encode_pieces, vae.decode_pieces
    vae.encode_pieces = vae.decode_pieces = None
    try:
        yield
    finally:
        vae.encode_pieces, vae.decode_pieces = before


class Forcing(Learned):
    """A native VAE between hooks, under one case; `foreign` is shared by all cases."""

    def __init__(
        self, side: NativeSide, vae: VAE, units: Sequence[Unit], truth: Truth, foreign: set[str] | None = None
    ) -> None:
        replaceable = {unit.within for unit in units if unit.within}
        super().__init__(truth, replaceable, set() if foreign is None else foreign)
        self.side, self.vae, self.units = side, vae, units

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
                except DoneError:
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
                state = Passage(self, unit, mode, stack, found, unit.native == until)
                if mode == SKIP:
                    hooks.enter_context(replaced(module, state.skipped(module.forward)))
                for handle in (
                    module.register_forward_pre_hook(state.entered),
                    module.register_forward_hook(state.left),
                ):
                    hooks.callback(handle.remove)
            yield
