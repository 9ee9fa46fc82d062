"""The contract of an official implementation, found by running it: `probe`.

Shapes are found on the meta device, without computing; the rest on weights drawn by the role that each weight has.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from vaeport.errors import ProofError
from vaeport.mapping.flow import Flow
from vaeport.port.flows import draw_by_flow, foreign_flow, load_drawn
from vaeport.port.posterior import posterior_of
from vaeport.proof.calling import Caller, Convention
from vaeport.proof.sides import ReferenceSide

AXES = {"image": ("height", "width"), "video": ("time", "height", "width"), "audio": ("samples",)}
LARGE = {"image": (64, 96), "video": (9, 64, 96), "audio": (65536,)}
_FLAGS = re.compile(r"til(e|ing)|slic|chunk|frame_batch|frames_batch")


def probe(side: ReferenceSide) -> dict[str, Any]:
    """Everything that a run can tell, as JSON: see the keys; `convention` is how it must be called.

    Raises ProofError if no call of encode and decode succeeds.
    """
    caller = _Patient(side, "meta")
    try:
        modality, channels, sizes, latent, failures = _first_call(caller, side.convention)
    except ProofError:  # code that looks at values must compute
        caller = _Patient(side, "cpu")
        modality, channels, sizes, latent, failures = _first_call(caller, side.convention)
    side.convention = caller.convention
    axes = [_axis(caller, (1, channels, *sizes), latent, i, name) for i, name in enumerate(AXES[modality])]
    media = (1, channels, *(a["legal"] for a in axes))
    small = (1, latent[1], *(a["latents"] for a in axes))
    flow = foreign_flow(side, media, small)
    real = side.open()
    load_drawn(real.module, draw_by_flow(flow, 0, {}))
    real.module.double()
    real.cast("cpu", torch.float64)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        found = posterior_of(real, torch.rand(media) * 1.6 - 0.8)
        decoding = _decoding(real, torch.randn(small), flow)
        reach = _reach(real, media, small, axes)
    finally:
        torch.set_default_dtype(before)
    convention = replace(
        caller.convention, moments=found.pop("module"), normalized=found["normalization"]["where"] == "inside"
    )
    return {
        "modality": modality,
        "channels": channels,
        "latent_channels": latent[1],
        "layout": {"image": "B C H W", "video": "B C T H W", "audio": "B C S"}[modality],
        "axes": axes,
        "media": list(media),
        "latent": list(small),
        **found,
        "decode": decoding,
        "reach": reach,
        "chunks": {"encode": _lengths(flow, "media"), "decode": _lengths(flow, "latent")}
        if modality == "video"
        else {},
        "flags": _flags(real.built),
        "unused_weights": flow.unused(),
        "calls_that_failed": failures,
        "convention": asdict(convention),
        "flow": flow.to_json(),
    }


class _Patient:
    """Calls on a device; after one that failed the implementation is built anew: it may keep a torn state."""

    def __init__(self, side: ReferenceSide, device: str) -> None:
        self.side, self.convention, self.device = side, side.convention, device
        self.caller = self._open()

    def _open(self) -> Caller:
        caller = self.side.open(self.device)
        caller.module.float()
        caller.cast(self.device, torch.float32)
        return caller

    def encoded(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the latent of media of a shape."""
        out = self._tried("encode", shape)
        return tuple((out["mean"] if "mean" in out else out["normalized"]).shape)

    def decoded(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the media of a latent of a shape."""
        return tuple(self._tried("decode", shape).shape)

    def _tried(self, method: str, shape: tuple[int, ...]) -> Any:
        self.caller.convention = self.convention
        try:
            with torch.no_grad():
                return getattr(self.caller, method)(torch.zeros(shape, device=self.device))
        except Exception:
            self.caller = self._open()
            raise


def _first_call(
    caller: _Patient, convention: Convention
) -> tuple[str, int, tuple[int, ...], tuple[int, ...], list[str]]:
    """Modality, channels, sizes and latent shape of the first call that succeeds, and the calls that failed."""
    ranks = {t.dim() for t in caller.caller.module.state_dict().values()}
    order = [m for m, rank in (("video", 5), ("image", 4), ("audio", 3)) if rank in ranks] or [
        "image",
        "audio",
        "video",
    ]
    failures: list[str] = []
    for modality in order:
        for channels in (2, 1, 3) if modality == "audio" else (3, 1, 4, 2, 6):
            for listed in (convention.listed, not convention.listed):
                caller.convention = replace(convention, listed=listed)
                sizes = LARGE[modality]
                try:
                    latent = caller.encoded((1, channels, *sizes))
                    decoded = caller.decoded(latent)
                    if len(decoded) == 2 + len(sizes) == len(latent):
                        return modality, channels, sizes, latent, failures
                    failures.append(f"{modality}, {channels} channels: gave {list(latent)} and {list(decoded)}")
                except Exception as error:  # foreign code raises what it likes
                    failures.append(f"{modality}, {channels} channels{', listed' * listed}: {_short(error)}")
    raise ProofError(
        "no call of encode and decode succeeds",
        where=type(caller.caller.built).__name__,
        found="; ".join(failures[:6]),
        fix='give further arguments of the methods with --call-args \'{"encode": {...}, "decode": {...}}\'',
    )


def _axis(caller: _Patient, media: tuple[int, ...], latent: tuple[int, ...], axis: int, name: str) -> dict[str, Any]:
    """How one axis is compressed, and what happens to lengths that break the rule."""
    place = 2 + axis

    @cache
    def latents(n: int) -> int:
        return caller.encoded((*media[:place], n, *media[place + 1 :]))[place]

    @cache
    def decoded(n: int) -> int:
        return caller.decoded((*latent[:place], n, *latent[place + 1 :]))[place]

    size = media[place]
    far = size + max(size, 64)
    multiple = round((far - size) / max(1, latents(far) - latents(size)))
    least = _least(decoded)
    step = decoded(least + 1) - decoded(least)
    offset = 1 if decoded(least) - (least - 1) * step == 1 and multiple > 1 else 0
    counts = {"time": 2, "height": 2, "width": 3, "samples": 4}[name]
    legal = offset + multiple * counts
    odd = {}
    for n in sorted({legal, *(legal + r for r in (1, multiple // 2, multiple - 1) if 0 < r < multiple)}):
        try:
            k = latents(n)
            odd[n] = f"{k} latents, {decoded(k)} decoded"
        except Exception as error:
            odd[n] = f"refused: {_short(error)}"
    held = odd[legal] == f"{counts + offset} latents, {legal} decoded"
    rule = f"{offset} + {multiple} k" if offset else f"{multiple} k"
    return {
        "name": name, "multiple": multiple, "offset": offset, "decoded_per_latent": step, "rule": rule,
        "rule_held": held, "legal": legal, "latents": latents(legal), "lengths": {str(n): s for n, s in odd.items()},
    }  # fmt: skip


def _least(decoded: Callable[[int], int]) -> int:
    """The smallest of a few numbers of latents that decode takes."""
    for n in (1, 2, 3, 4):
        try:
            decoded(n)
        except Exception:  # foreign code raises what it likes
            continue
        return n
    return 8


def _decoding(caller: Caller, z: Tensor, flow: Flow) -> dict[str, Any]:
    """The container of decode, and whether it is bounded."""
    with torch.no_grad():
        container = type(caller.raw("decode", z)).__name__
        loud = caller.decode(z * 100)
        again = caller.decode(z)
        same = torch.equal(again, caller.decode(z))
    low, high = loud.min().item(), loud.max().item()
    bounded = [s for s in flow.trails.get("decoded", []) if s.startswith(("clamp", "tanh", "hardtanh", "sigmoid"))]
    clamp = [low, high] if bounded and (loud == high).double().mean().item() > 0.01 else None
    return {"container": container, "clamp": clamp, "bounded_by": bounded, "deterministic": same}


def _reach(
    caller: Caller, media: tuple[int, ...], latent: tuple[int, ...], axes: list[dict[str, Any]]
) -> dict[str, Any]:
    """Which outputs a middle input reaches, per axis: not-a-numbers spread exactly as far as data does."""
    found: dict[str, Any] = {}
    for half, shape in (("encode", media), ("decode", latent)):
        for axis, rule in enumerate(axes, start=2):
            middle = shape[axis] // 2
            hit, of = _spread(caller.decode if half == "decode" else lambda x: _moments(caller, x), shape, axis, middle)
            steps, offset = middle - rule["offset"], rule["offset"]
            first = offset + (steps // rule["multiple"] if half == "encode" else steps * rule["decoded_per_latent"])
            found[f"{half} {rule['name']}"] = {
                "input": f"{middle} of {shape[axis]}",
                "outputs": f"{hit[0]} to {hit[-1]} of {of}" if hit else "none",
                "causal": bool(hit) and hit[0] >= first and hit[0] > 0,
                "all": len(hit) == of,
            }
    return found


def _moments(caller: Caller, x: Tensor) -> Tensor:
    out = caller.encode(x)
    return next(out[name] for name in ("moments", "mean", "normalized") if name in out)


def _spread(call: Callable[[Tensor], Tensor], shape: tuple[int, ...], axis: int, middle: int) -> tuple[list[int], int]:
    """Positions of the result that the middle one of the input reaches, and how many there are."""
    x = torch.zeros(shape)
    x.narrow(axis, middle, 1).fill_(float("nan"))
    with torch.no_grad():
        try:
            y = call(x)
            changed = y.isnan()
        except Exception:  # distributions refuse what is not a number
            x = torch.rand(shape)
            y = call(x)
            x.narrow(axis, middle, 1).neg_()
            changed = (call(x) - y).abs() > 1e-12 * y.abs().max()
    hit = changed.transpose(0, axis).flatten(1).any(1).nonzero().flatten().tolist()
    return hit, y.shape[axis]


def _lengths(flow: Flow, name: str) -> list[int]:
    """Frames per call of the first use of an input, in the order of the calls."""
    first = next((u for u in flow.uses if any(s.use == name for s in u.inputs)), None)
    return [] if first is None else first.lengths[:16]


def _flags(built: Any) -> dict[str, Any]:
    """Attributes that speak of tiles, slices and chunks."""
    return {
        name: value
        for name, value in sorted(vars(built).items() if hasattr(built, "__dict__") else ())
        if _FLAGS.search(name) and isinstance(value, bool | int | float)
    }


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
