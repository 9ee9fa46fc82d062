"""`plan`: the fastest exact way to run a half of a VAE within a memory budget."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from vaeport.errors import ConfigError, InputError
from vaeport.kernels.running import running
from vaeport.layers.layer import HEIGHT, SAMPLES, TIME, Barrier, Layer
from vaeport.runtime.foretold import foretold
from vaeport.runtime.passes import Pass
from vaeport.runtime.plan import Cost, Half, Kind, Plan, Stop, size
from vaeport.runtime.profile import Profile, profile_of
from vaeport.runtime.program import Apply, Op, is_barrier, lengths, steps_of
from vaeport.runtime.rehearsal import Rehearsal
from vaeport.runtime.search import Search
from vaeport.runtime.shards.rehearsed import busiest
from vaeport.runtime.shards.run import longer_axis
from vaeport.runtime.survey import Survey
from vaeport.vae import VAE

Cut = Literal["space", "time"]
ALL_ROWS = 2**31
"""More rows than there are: a pass without windows"""
_TRIES, _FITS = 12, 2
"""passes that are rehearsed, and how many of them that fit are compared, since the search for them only estimates"""


class Planner:
    """Plans for one half on one shape.

    out_given   the result has memory of its own, perhaps on the host, and takes none of the budget
    may_cut     what a plan may cut; the pieces in time that a model always runs in are its own
    ranks       how many devices share the work, each of which runs its own stripe whole or in pieces of time
    overlap     of the ranks (see `Ranks`)
    """

    def __init__(
        self,
        vae: VAE,
        half: Half,
        shape: Sequence[int],
        *,
        profile: Profile | None = None,
        out_given: bool = False,
        may_cut: Collection[Cut] = ("space", "time"),
        ranks: int = 1,
        overlap: int = 64,
    ) -> None:
        require_shape(vae, half, shape)
        self.vae, self.half, self.shape = vae, half, tuple(shape)
        self.device, self.dtype = vae.device, vae.half_dtype(half)
        self._costs: dict[tuple[Pass, ...], Cost] = {}
        self.profile = profile or profile_of(self.device, self.dtype)
        self.out_given, self.may_cut = out_given, may_cut
        with torch.device("meta"):
            twin = type(vae)(vae.arch).to(self.dtype).requires_grad_(False)
            setattr(twin, half, running(getattr(twin, half), self.device, self.dtype, vae.config.precision))
            self.x = torch.empty(self.shape, dtype=self.dtype)
        layer = twin.decoder_at() if half == "decoder" else twin.encoder
        assert layer is not None
        self.layer: Layer = layer
        self.time = {"video": TIME, "audio": SAMPLES}.get(vae.contract.modality)
        self.axis = SAMPLES if self.time == SAMPLES else HEIGHT
        self.whole = self.uncut = self._in_one_piece()
        self.ranks, self.shared = ranks, None if ranks == 1 else longer_axis(vae, self.x)
        if self.shared is not None:
            self.layer, self.x = busiest(self.layer, self.x, self.shared, ranks, overlap)
            self.uncut = self._in_one_piece()
        self.streams = (
            self.time is not None and self.time != self.shared and self.layer.needs((0, 1), self.time) is not None
        )

    def _in_one_piece(self) -> Cost:
        with torch.no_grad(), Rehearsal(self.profile) as counted:
            y = self.layer(self.x)
        if unknown := counted.kernels - self.profile.rate.keys():
            self.profile.measure(unknown, self.device, self.dtype)
            return self._in_one_piece()
        return Cost(counted.peak - (y.nbytes if self.out_given else 0), counted.seconds)

    @cached_property
    def cuts_space(self) -> bool:
        """Whether passes may run in windows of rows."""
        return "space" in self.may_cut and self.ranks == 1 and self._whole_only is None

    @cached_property
    def _whole_only(self) -> str | None:
        """A layer that sees all of an axis and takes no notes, if there is one."""
        found = (op for op in steps_of(self.layer, self.shape[0]) if isinstance(op, Apply))
        return next(
            (_name(op) for op in found if is_barrier(op, self.axis) and not isinstance(op.layer, Barrier)), None
        )

    def plan(self, budget: int | None = None) -> Plan:
        """The fastest within that many bytes beside the weights; None: what is free on the device.

        InputError with the least budget that would do, if this one is too small.
        """
        budget = free_memory(self.device) if budget is None else budget
        found = self.within(budget)
        if found is None:
            least = self.least(budget)
            raise InputError(
                f"no plan fits into this budget for a {self.half} on {list(self.shape)}",
                expected=f"at least {size(least)} beside the weights",
                found=size(budget),
                fix="give more, or a smaller input, or use a type of fewer bits",
            )
        return found

    def within(self, budget: int) -> Plan | None:
        """The fastest plan of at most `budget` bytes, or None."""
        fits = (p for p in self.candidates(budget) if p.cost.peak <= budget)
        return min(fits, key=lambda p: p.cost.seconds, default=None)

    def candidates(self, budget: int) -> Iterator[Plan]:
        """Plans that may fit into a budget, up to where others are slower than one that does."""
        if self.streams:
            return self._streams(budget)
        return self._bands(budget) if self.cuts_space else iter((self._uncut(),))

    def least(self, above: int) -> int:
        """About the least budget that has a plan, which is more than `above`."""
        if self.streams:
            return min(p.cost.peak for p in self._streams(0))
        if not self.cuts_space:
            return self.uncut.peak
        low, high = above, max(self.whole.peak, 2 * above)
        while high - low > high // 16:
            middle = (low + high) // 2
            low, high = (low, middle) if self._passes(middle) is not None else (middle, high)
        while self.within(high) is None:
            high += high // 16
        return high

    def _uncut(self) -> Plan:
        p = Pass(0, len(steps_of(self.layer)), ALL_ROWS)
        why = "one piece" if self._whole_only is None else f"one piece, since {self._whole_only} runs whole only"
        return self._made("whole", self.axis, (p,), self._rehearsed((p,), self.axis, opened=False), why)

    def _bands(self, budget: int) -> Iterator[Plan]:
        """Passes over rows, for what sees all of time and space."""
        survey, aim = self._survey, budget
        shares = tuple(
            Stop(op.name, type(op.layer).__name__, survey.rows[i].seconds / self.whole.seconds, survey.rows[i].notes)
            for i, op in enumerate(survey.ops)
            if i in survey.barriers and isinstance(op, Apply)
        )
        tried: set[tuple[Pass, ...]] = set()
        fits = 0
        while len(tried) < _TRIES and (passes := self._passes(aim)) is not None:
            aim = int(0.97 * aim)
            if passes in tried:
                continue
            tried.add(passes)
            cost = self._rehearsed(passes, HEIGHT, opened=True)
            one = len(passes) == 1 and passes[0].rows >= survey.rows_after(len(survey.ops))
            why = "one piece" if one else f"{len(passes)} passes over bands of rows, nothing blended"
            yield self._made("whole" if one else "bands", HEIGHT, passes, cost, why, barriers=shares, frames=True)
            fits += cost.peak <= budget
            if fits == _FITS or (fits and one):
                return

    @cached_property
    def _survey(self) -> Survey:
        """Of the steps with image layers opened."""
        return Survey(steps_of(self.layer, self.shape[0]), self.x, HEIGHT, self.profile)

    def _passes(self, budget: int) -> tuple[Pass, ...] | None:
        out = 0 if self.out_given else self._survey.out.nbytes
        return Search(self._survey, budget, out=out, host=self.device.type == "cuda").passes()

    def _streams(self, budget: int) -> Iterator[Plan]:
        """Pieces of time, in windows of rows where one frame is too much."""
        axis = self.axis
        if not self._own_pieces and self.uncut.peak <= budget:
            yield self._uncut()
        for pieces in self._pieces():
            p = Pass(0, len(steps_of(self.layer)), ALL_ROWS, pieces)
            cost = self._rehearsed((p,), axis, opened=False)
            yield self._made("stream", axis, (p,), cost, f"pieces of {pieces[1]} along {self._along}")
            if cost.peak <= budget:
                return
        if self.time != TIME or not self.cuts_space:
            return
        yield from self._windows_in_time(axis, pieces, budget)

    def _windows_in_time(self, axis: int, pieces: tuple[int, int], budget: int) -> Iterator[Plan]:
        """Two passes: one in pieces of whole frames, one in windows of rows where frames are largest."""
        survey = Survey(steps_of(self.layer), self.x, axis, self.profile)
        ops, end, decoding = survey.ops, len(survey.ops), self.half == "decoder"
        last = max((i for i, op in enumerate(ops) if is_barrier(op, axis)), default=-1)
        places = [i for i in survey.places if 0 < i < end and _changes_size(ops[i if decoding else i - 1], axis)]
        waiting = 0 if self.device.type == "cuda" else None
        for k in places:
            if (k > last) != decoding:
                continue
            for count in (2, 4, 8, 16):
                windows = (0 if decoding else -(-survey.rows_after(k) // count), -(-survey.rows_after(end) // count))
                first = Pass(0, k, ALL_ROWS if decoding else windows[0], pieces, waiting)
                second = Pass(k, end, windows[1] if decoding else ALL_ROWS, self._pieces_behind(ops[:k], pieces))
                cost = self._rehearsed((first, second), axis, opened=False)
                where = f"from {_name(ops[k])} on" if decoding else f"up to {_name(ops[k - 1])}"
                why = f"pieces of {pieces[1]} along time, {where} in {count} windows of rows"
                yield self._made("bands", axis, (first, second), cost, why)
                if cost.peak <= budget:
                    break  # more windows are slower

    def _pieces_behind(self, ops: Sequence[Op], pieces: tuple[int, int]) -> tuple[int, int]:
        """The pieces that a first and another piece become behind the steps."""
        assert self.time is not None
        one, two = (lengths(ops, [n], self.time)[-1] for n in (pieces[0], sum(pieces)))
        return max(one, 1), max(two - one, 1)

    @property
    def _along(self) -> str:
        return self.vae.contract.axes[0].name

    @property
    def _own_pieces(self) -> tuple[int, int] | None:
        return self.vae.decode_pieces if self.half == "decoder" else self.vae.encode_pieces

    def _pieces(self) -> Iterable[tuple[int, int]]:
        """Lengths of pieces, the longest first."""
        if self._own_pieces is not None:
            return [self._own_pieces]
        if "time" not in self.may_cut:
            n = self.shape[2]
            return [(n, n)]
        rule = self.vae.contract.axes[0]
        counts = (256, 64, 16) if self.time == SAMPLES and self.vae.contract.modality == "audio" else (16, 8, 4, 2, 1)
        each = rule.multiple if self.half == "encoder" else 1
        return [(rule.offset or count * each, count * each) for count in counts]

    def _rehearsed(self, passes: tuple[Pass, ...], axis: int, *, opened: bool) -> Cost:
        if passes not in self._costs:
            self._costs[passes] = self._cost(passes, axis, opened=opened)
        return self._costs[passes]

    def _cost(self, passes: tuple[Pass, ...], axis: int, *, opened: bool) -> Cost:
        ops = steps_of(self.layer, self.shape[0] if opened else None)
        return foretold(ops, self.layer, self.x, passes, axis, self.time, self.profile, out_given=self.out_given)

    def _made(self, kind: Kind, axis: int, passes: tuple[Pass, ...], cost: Cost, why: str, **fields: Any) -> Plan:
        device = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        dtype = str(self.dtype).removeprefix("torch.")
        known = {
            "half": self.half,
            "shape": self.shape,
            "device": device,
            "dtype": dtype,
            "whole": self.whole,
            "ranks": self.ranks,
            "shared": self.shared,
            **fields,
        }
        return Plan(kind=kind, axis=axis, passes=passes, cost=cost, why=why, **known)


def require_shape(vae: VAE, half: Half, shape: Sequence[int]) -> None:
    """InputError for a shape that the half does not take."""
    contract, decoding = vae.contract, half == "decoder"
    if getattr(vae, half) is None:
        raise InputError(f"this VAE was loaded without its {half}", fix=f"load it with load_{half}=True")
    channels = contract.latent_channels if decoding else contract.channels
    if len(shape) != 2 + len(contract.axes) or shape[1] != channels:
        expected = f"{contract.layout} with {channels} channels"
        raise InputError(f"the {half} takes another shape", expected=expected, found=list(shape))
    for rule, n in zip(contract.axes, shape[2:], strict=True):
        least = 1 if decoding else rule.least
        if n < least:
            raise InputError("the input is too short", where=f"axis {rule.name}", expected=f"at least {least}", found=n)


def free_memory(device: torch.device) -> int:
    """Bytes that can be had on a device, with a tenth kept back."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    else:
        meminfo = Path("/proc/meminfo")
        if not meminfo.exists():
            raise ConfigError("this system does not tell how much memory is free", fix="give a budget")
        free = int(meminfo.read_text().partition("MemAvailable:")[2].split()[0]) << 10
    return int(0.9 * free)


def _changes_size(op: Op, axis: int) -> bool:
    return isinstance(op, Apply) and op.layer.rate(axis) != 1


def _name(op: Op) -> str:
    return op.name if isinstance(op, Apply) else "a shortcut"
