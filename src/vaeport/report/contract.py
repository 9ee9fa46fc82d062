"""The latent contract side by side: what the native class says, and what the reference was seen to do."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vaeport.configs import LatentContract
from vaeport.proof.cases import Case
from vaeport.proof.jobs import Capture
from vaeport.report.schema import Term

OBSERVED = "measured on the reference's outputs in the cases of gate S"
PROBED = "found by probing the official code"
_NEAR = 1e-6
UNSEEN = "not shown by its outputs"


def term(name: str, native: object, reference: object, same: bool | None = None) -> Term:
    """One row; equal texts are the same unless told otherwise."""
    ours, theirs = _text(native), _text(reference)
    if theirs == UNSEEN:
        return Term(name=name, native=ours, reference=theirs, same=None)
    return Term(name=name, native=ours, reference=theirs, same=ours == theirs if same is None else same)


def observed(contract: LatentContract, cases: Mapping[str, tuple[Case, Capture]]) -> tuple[Term, ...]:
    """Terms of the native contract beside what the reference's captures of gate S show."""
    given = {name: both for name, both in cases.items() if both[1].outputs}
    if not given:
        return ()
    return tuple(_observed(contract, given))


def _observed(contract: LatentContract, cases: Mapping[str, tuple[Case, Capture]]) -> Iterator[Term]:
    first = next(iter(cases.values()))[1].outputs
    latent = first.get("mean", first.get("normalized"))
    yield term("layout", contract.layout, {3: "B C S", 4: "B C H W", 5: "B C T H W"}[first["decoded"].dim()])
    yield term("media channels", contract.channels, first["decoded"].shape[1])
    if latent is not None:
        yield term("latent channels", contract.latent_channels, latent.shape[1])
    for name, (case, capture) in cases.items():
        found = capture.outputs.get("mean", capture.outputs.get("normalized"))
        if found is not None:
            yield term(
                f"latent of {_shape(case.media)} ({name})",
                _shape(contract.latent_shape(case.media)),
                _shape(found.shape),
            )
        yield term(
            f"media of {_shape(case.latent)} ({name})",
            _shape(contract.decoded_shape(case.latent)),
            _shape(capture.outputs["decoded"].shape),
        )
    yield term("posterior", contract.posterior, _posterior(first))
    yield from _normalisation(contract, first)
    yield _clamp(contract, [capture for _, capture in cases.values()])
    for name in ("sample_rate", "decode_timestep", "decode_noise_scale"):
        value = getattr(contract, name)
        if value is not None:
            yield term(name.replace("_", " "), value, UNSEEN)


def _clamp(contract: LatentContract, captures: Sequence[Capture]) -> Term:
    """What the reference clamped to, as far as its values came to it."""
    name, limits = "clamp of the decoded media", contract.clamp
    mine = "none" if limits is None else "{:.3g} to {:.3g}".format(*limits)
    values = [capture.outputs["decoded"] for capture in captures]
    low, high = min(float(v.min()) for v in values), max(float(v.max()) for v in values)
    seen = f"{low:.3g} to {high:.3g}"
    if any(capture.clamped for capture in captures):
        same = limits is not None and low >= limits[0] and high <= limits[1] and (low == limits[0] or high == limits[1])
        return term(name, mine, f"clamps; values from {seen}", same)
    if limits is None or low < limits[0] or high > limits[1]:
        return term(name, mine, f"none; values from {seen}", limits is None)
    return term(name, mine, UNSEEN)


def _posterior(outputs: Mapping[str, Tensor]) -> str:
    moments, std = outputs.get("moments"), outputs.get("std")
    if moments is None or std is None or moments.shape[1] != 2 * std.shape[1]:
        return UNSEEN
    spread = moments.chunk(2, 1)[1]
    forms = {
        "gaussian-logvar": torch.exp(0.5 * spread.clamp(-30, 20)),
        "gaussian-softplus": F.softplus(spread) + 1e-4,
    }
    return next((name for name, form in forms.items() if (form - std).abs().max() < _NEAR), "another")


def _normalisation(contract: LatentContract, outputs: Mapping[str, Tensor]) -> Iterator[Term]:
    mean, normalized = outputs.get("mean"), outputs.get("normalized")
    fitted = None if mean is None or normalized is None or mean.shape != normalized.shape else _affine(mean, normalized)
    for at, name in enumerate(("shift", "scale")):
        ours = getattr(contract, name)
        if ours is None:
            yield term(f"latent {name}", "as the checkpoint has it", UNSEEN if fitted is None else _numbers(fitted[at]))
            continue
        numbers = list(ours) if isinstance(ours, tuple) else [float(ours)] * contract.latent_channels
        if fitted is None:
            yield term(f"latent {name}", _numbers(numbers), UNSEEN)
            continue
        theirs = fitted[at]
        same = len(theirs) == len(numbers) and all(
            abs(a - b) <= 1e-6 * max(1.0, abs(a)) for a, b in zip(numbers, theirs, strict=True)
        )
        yield term(f"latent {name}", _numbers(numbers), _numbers(theirs), same)


def _affine(mean: Tensor, normalized: Tensor) -> tuple[list[float], list[float]] | None:
    """Shift and scale per channel, normalized = (mean - shift) * scale; None if it is not of this form."""
    x, y = (t.double().transpose(0, 1).flatten(1) for t in (mean, normalized))
    if x.shape[1] < 2:
        return None
    centre_x, centre_y = x.mean(1, keepdim=True), y.mean(1, keepdim=True)
    spread = (x - centre_x).square().sum(1)
    if not (spread > 0).all():
        return None
    scale = ((x - centre_x) * (y - centre_y)).sum(1) / spread
    shift = (centre_x[:, 0] - centre_y[:, 0] / scale) if (scale != 0).all() else torch.zeros_like(scale)
    if ((x - shift[:, None]) * scale[:, None] - y).abs().max() > _NEAR * max(1.0, float(y.abs().max())):
        return None
    return shift.tolist(), scale.tolist()


def probed(contract: LatentContract, found: Mapping[str, Any]) -> tuple[Term, ...]:
    """Terms of the native contract beside what `vaeport.port.probe` found of the official code."""
    terms = [
        term("modality", contract.modality, found.get("modality", UNSEEN)),
        term("layout", contract.layout, found.get("layout", UNSEEN)),
        term("media channels", contract.channels, found.get("channels", UNSEEN)),
        term("latent channels", contract.latent_channels, found.get("latent_channels", UNSEEN)),
    ]
    axes = {axis["name"]: axis for axis in found.get("axes", ())}
    for rule in contract.axes:
        ours = f"{rule.offset} + {rule.multiple} k" if rule.offset else f"{rule.multiple} k"
        terms.append(term(f"lengths along {rule.name}", ours, axes.get(rule.name, {}).get("rule", UNSEEN)))
    posterior = term("posterior", contract.posterior, found.get("posterior", UNSEEN))
    # where the probe cannot tell, it says why
    known = posterior.reference in typing.get_args(typing.get_type_hints(LatentContract)["posterior"])
    terms.append(posterior if known else posterior.model_copy(update={"same": None}))
    decode = found.get("decode") or {}
    clamp = decode.get("clamp", UNSEEN)
    mine = None if contract.clamp is None else list(contract.clamp)
    terms.append(term("clamp of the decoded media", mine, clamp))
    normalization = dict(found.get("normalization") or {})
    where = normalization.get("where", UNSEEN)
    if where == "inside":
        for name in ("shift", "scale"):
            ours, theirs = getattr(contract, name), normalization.get(name, UNSEEN)
            numbers = [ours] if isinstance(ours, int | float) else list(ours or ())
            others = [theirs] if isinstance(theirs, int | float) else theirs
            terms.append(
                term(f"latent {name}", _numbers(numbers), _numbers(others) if isinstance(others, list) else others)
            )
    else:
        says = "left to the caller" if where == "caller" else where
        terms += [
            Term(name=f"latent {name}", native=_numbers(getattr(contract, name)), reference=says, same=None)
            for name in ("shift", "scale")
        ]
    for name in ("moments_order", "logvar_clamp"):
        if found.get(name) is not None:
            terms.append(
                Term(name=name.replace("_", " "), native="as the class has it", reference=_text(found[name]), same=None)
            )
    return tuple(terms)


def _numbers(values: Any) -> str:
    if values is None:
        return "as the checkpoint has it"
    listed = [values] if isinstance(values, int | float) else list(values)
    texts = [f"{0.0 if abs(value) < 1e-12 else value:.6g}" for value in listed]
    if len(set(texts)) == 1:
        return texts[0]
    shown = ", ".join(texts[:8])
    return f"{shown}, and {len(texts) - 8} more" if len(texts) > 8 else shown


def _shape(shape: Any) -> str:
    return " x ".join(map(str, shape))


def _text(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, list | tuple):
        return ", ".join(f"{v:.6g}" if isinstance(v, float) else str(v) for v in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)
