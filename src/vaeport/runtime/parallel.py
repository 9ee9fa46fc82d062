"""`ParallelTiledVAE`: a VAE that encodes and decodes by plan, within a memory budget, on one device or several."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal, overload

import torch
from torch import Tensor

from vaeport.errors import BlockedError, ConfigError, InputError, VaeportError
from vaeport.layers import DiagonalGaussian, Layer, SpatialNoise
from vaeport.layers.random import default_generator
from vaeport.runtime.bands import cuts
from vaeport.runtime.passes import Passes, is_out_of_memory
from vaeport.runtime.plan import Half, Plan
from vaeport.runtime.planner import Cut, Planner, free_memory
from vaeport.runtime.shards import Ranks, decode_sharded, encode_sharded
from vaeport.runtime.shards.ranks import RefusedError
from vaeport.vae import VAE, DecoderOutput, EncoderOutput

_LESS = (0.7, 0.9)
"""of the memory that a plan should have taken when it did not fit, what another may take; the first that there is"""


class ParallelTiledVAE:
    """Encodes and decodes any size and length as the VAE itself does, by plan. Nothing is blended; no gradients.

    budget      bytes beside the weights, or "6GiB"; None: what is free when it runs
    ranks       the devices that work together (`Ranks()` under torchrun); None: this one alone

    Everything else is the VAE's own: `normalize`, `contract`, `config`, ...
    The config's flags say which cuts a plan may make: `use_tiling` in space, `use_temporal_tiling` in time,
    `use_parallel_tiling` over ranks; with none of them set, it may make all. A tiling that is asked for by name
    (`tiling="official"`) is approximate, and belongs to `vaeport.load(..., tiling=...)`: ConfigError.
    """

    def __init__(self, vae: VAE, *, budget: int | str | None = None, ranks: Ranks | None = None) -> None:
        if vae.config.tiling is not None:
            fix = "wrap the VAE as it is without tiling"
            raise ConfigError("plans are exact, this tiling is not", found=f"tiling {vae.config.tiling!r}", fix=fix)
        self.vae = vae
        self.ranks = Ranks() if ranks is None and vae.config.use_parallel_tiling else ranks
        self.budget = None if budget is None else bytes_of(budget)
        self._planners: dict[tuple[Half, tuple[int, ...], bool], Planner] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.vae, name)

    def plan(self, shape: Sequence[int], half: Half = "decoder", *, out_given: bool = False) -> Plan:
        """The plan for an input of that shape; InputError with the least budget that would do."""
        return self._planner(half, tuple(shape), out_given).plan(self._bytes())

    @overload
    def encode(self, x: Tensor, return_dict: Literal[True] = True) -> EncoderOutput: ...
    @overload
    def encode(self, x: Tensor, return_dict: Literal[False]) -> tuple[DiagonalGaussian]: ...
    def encode(self, x: Tensor, return_dict: bool = True) -> EncoderOutput | tuple[DiagonalGaussian]:
        """As `VAE.encode`. On several ranks, the whole on each."""
        vae = self.vae
        if (ranks := self._several()) is not None:
            with ranks.together():
                found = encode_sharded(vae, x, ranks, gather="all", plan=self._agreed("encoder", x, ranks))
            assert found is not None
            posterior = found
        else:
            encoder = vae._running("encoder")
            least = [(a.name, a.least) for a in vae.contract.axes]
            vae._check(x, vae.contract.channels, least, vae.half_dtype("encoder"))
            vae._require_legal(vae.contract.axes, x.shape[2:])
            posterior = vae._posterior(self._run("encoder", encoder, x, None))
        return EncoderOutput(posterior) if return_dict else (posterior,)

    @overload
    def decode(
        self,
        z: Tensor,
        return_dict: Literal[True] = True,
        *,
        timestep: float | Tensor | None = None,
        generator: torch.Generator | None = None,
        out: Tensor | None = None,
    ) -> DecoderOutput: ...
    @overload
    def decode(
        self,
        z: Tensor,
        return_dict: Literal[False],
        *,
        timestep: float | Tensor | None = None,
        generator: torch.Generator | None = None,
        out: Tensor | None = None,
    ) -> tuple[Tensor]: ...
    def decode(
        self,
        z: Tensor,
        return_dict: bool = True,
        *,
        timestep: float | Tensor | None = None,
        generator: torch.Generator | None = None,
        out: Tensor | None = None,
    ) -> DecoderOutput | tuple[Tensor]:
        """As `VAE.decode`. On several ranks, the whole on each.

        out     where the media goes, beside the budget: on the device or in host memory (pinned is faster). ConfigError
                on several ranks, where `decode_sharded(on_stripe=...)` hands over every part
        """
        vae = self.vae
        if (ranks := self._several()) is not None:
            if out is not None:
                fix = "use vaeport.runtime.shards.decode_sharded(on_stripe=...)"
                raise ConfigError("`out` is for one rank", found=f"{ranks.size} ranks", fix=fix)
            with ranks.together():
                plan = self._agreed("decoder", z, ranks)
                given: dict[str, Any] = {"timestep": timestep, "generator": generator}
                found = decode_sharded(vae, z, ranks, gather="all", plan=plan, **given)
            assert found is not None
            return DecoderOutput(found) if return_dict else (found,)
        decoder = vae.decoder_at(timestep, generator)
        least = [(a.name, 1) for a in vae.contract.axes]
        vae._check(z, vae.contract.latent_channels, least, vae.half_dtype("decoder"))
        if out is not None:
            self._require_room(z, out)
        with torch.no_grad():
            sample = vae._clamped(self._run("decoder", decoder, vae._raw(z), out))
        return DecoderOutput(sample) if return_dict else (sample,)

    def stream_decode(
        self, z: Tensor, *, timestep: float | Tensor | None = None, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """The decoded media in chunks along time or samples, as soon as each is finished.

        What cannot be finished piece by piece comes as one chunk, in host memory; the chunks take none of the budget.
        """
        if self._several() is not None:
            yield self.decode(z, timestep=timestep, generator=generator).sample
            return
        plan = self.plan(tuple(z.shape), out_given=True)
        if plan.kind == "stream":
            (only,) = plan.passes
            assert only.pieces is not None
            pieces = (z[:, :, a:b] for a, b in cuts(z.shape[2], *only.pieces))
            yield from self.vae.stream_decode(pieces, timestep=timestep, generator=generator)
        else:
            shape = self.vae.contract.decoded_shape(tuple(z.shape))
            out = torch.empty(shape, dtype=z.dtype, pin_memory=z.is_cuda)
            yield self.decode(z, timestep=timestep, generator=generator, out=out).sample

    def _run(self, half: Half, layer: Layer, x: Tensor, out: Tensor | None, budget: int | None = None) -> Tensor:
        """By plan; when memory turns out to be less, by the next smaller one, from the last finished frame."""
        planner, budget = self._planner(half, tuple(x.shape), out is not None), budget or self._bytes()
        plan = planner.plan(budget)
        run = Passes(plan.steps(layer), x, plan.axis, out)
        drawn = _states(layer, x.device)
        while True:
            try:
                with torch.no_grad():
                    return run.run(plan.passes)
            except (BlockedError, RuntimeError) as error:
                if not (isinstance(error, BlockedError) or is_out_of_memory(error)):
                    raise
                budgets = [int(share * min(budget, plan.cost.peak)) for share in _LESS]
                smaller = next(((b, found) for b in budgets if (found := planner.within(b)) is not None), None)
                if smaller is None:
                    what = "out of memory, and no smaller plan is left"
                    fix = "free memory on the device, or decode a smaller piece; the latents are as they were"
                    raise BlockedError(what, found=plan.why, fix=fix) from error
                budget, plan = smaller
            for generator, state in drawn:  # the same noise again
                generator.set_state(state)
            done, result = run.finished, run.out
            if done and result is not None and self._rest(half, layer, x, result, done, budget, given=out is not None):
                return result
            run = Passes(plan.steps(layer), x, plan.axis, out)

    def _rest(self, half: Half, layer: Layer, x: Tensor, out: Tensor, done: int, budget: int, *, given: bool) -> bool:
        """What comes after `done` frames, from a shorter clip: the first frame, and all that the rest needs.

        given   `out` takes none of the budget, nor does what else lies where it does
        False if no plan for the shorter clip fits.
        """
        time = -1 if x.dim() == 3 else -3
        first = self._first_piece(half)
        needs = layer.needs((done, done + 1), time)
        assert needs is not None
        step = max(1, layer.rate(time).denominator)
        start = max(first, first + (needs[0] - first) // step * step)
        n = x.shape[time]
        shorter = torch.cat((x.narrow(time, 0, first), x.narrow(time, start, n - start)), time)
        skipped = int((start - first) * layer.rate(time))
        if self._planner(half, tuple(shorter.shape), given).within(budget) is None:
            return False
        rest = out.shape[time] - done
        beside = out.new_empty((*out.shape[:2], out.shape[time] - skipped, *out.shape[3:])) if given else None
        y = self._run(half, layer, shorter, beside, budget)
        out.narrow(time, done, rest).copy_(y.narrow(time, done - skipped, rest))
        return True

    def _several(self) -> Ranks | None:
        return self.ranks if self.ranks is not None and self.ranks.size > 1 else None

    def _agreed(self, half: Half, x: Tensor, ranks: Ranks) -> Plan:
        """Rank 0's plan for the least budget of all ranks: each has to do the same, whatever its own profile says."""
        budget = min(ranks.agree(self._bytes()))
        plan: Plan | None = None
        error: VaeportError | None = None
        if ranks.rank == 0:
            try:
                plan = self._planner(half, tuple(x.shape), False).plan(budget)
            except VaeportError as found:
                error = found
        agreed: Plan | None
        (agreed, said), *_ = ranks.agree((plan, None if error is None else str(error)))
        if agreed is None:
            raise RefusedError(error or InputError(f"rank 0 made no plan: {said}", where=f"rank {ranks.rank}"))
        return agreed

    def _first_piece(self, half: Half) -> int:
        rule = self.vae.contract.axes[0]
        return max(1, rule.offset) * (1 if half == "decoder" or rule.offset else rule.multiple)

    def _planner(self, half: Half, shape: tuple[int, ...], out_given: bool) -> Planner:
        key = (half, shape, out_given)
        if key not in self._planners:
            config = self.vae.config
            flags: dict[Cut, bool] = {"space": config.use_tiling, "time": config.use_temporal_tiling}
            may_cut = [cut for cut, may in flags.items() if may or not any(flags.values())]
            shards: dict[str, Any] = {}
            if self.ranks is not None:
                shards = {"ranks": self.ranks.size, "overlap": self.ranks.overlap}
            self._planners[key] = Planner(self.vae, half, shape, out_given=out_given, may_cut=may_cut, **shards)
        return self._planners[key]

    def _bytes(self) -> int:
        return free_memory(self.vae.device) if self.budget is None else self.budget

    def _require_room(self, z: Tensor, out: Tensor) -> None:
        wanted = self.vae.contract.decoded_shape(tuple(z.shape))
        if tuple(out.shape) != wanted or out.dtype != z.dtype:
            found = f"{list(out.shape)}, {out.dtype}"
            raise ConfigError("`out` does not fit the media", expected=f"{list(wanted)}, {z.dtype}", found=found)


def _states(layer: Layer, device: torch.device) -> list[tuple[torch.Generator, Tensor]]:
    """The generators that the layer draws noise from, as they are."""
    noise = [m.generator or default_generator(device) for m in layer.modules() if isinstance(m, SpatialNoise)]
    return [(generator, generator.get_state()) for generator in {id(g): g for g in noise}.values()]


def bytes_of(size: int | str) -> int:
    """ "4GiB", "500 MiB" or a number of bytes; ConfigError for anything else."""
    if isinstance(size, int):
        return size
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*(?:([KMGT])i?B?)?\s*", size, re.IGNORECASE)
    if found is None:
        raise ConfigError("not an amount of memory", expected='such as "6GiB" or "500MiB"', found=repr(size))
    return int(float(found[1]) * 1024 ** " KMGT".index((found[2] or " ").upper()))
