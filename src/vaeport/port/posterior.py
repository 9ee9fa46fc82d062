"""What an official encode gives, read from its values: order of the moments, form of the deviation, normalisation."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaeport.proof.calling import Caller, read
from vaeport.proof.noise import without_noise

NEAR = 1e-6


def posterior_of(caller: Caller, x: Tensor) -> dict[str, Any]:
    """posterior, moments' order, clamp, normalisation and `module` (whose output is the moments, "" if they are given).

    x   media [1, C, *axes] in float64
    """
    seen: dict[str, list[Tensor]] = {}
    handles = [child.register_forward_hook(_hook(name, seen)) for name, child in caller.module.named_modules() if name]
    try:
        result, sampled = without_noise(lambda: caller.raw("encode", x))
    finally:
        for handle in handles:
            handle.remove()
    out = caller.encode(x)
    mean = out["mean"] if "mean" in out else out["normalized"]
    module, moments = "", out.get("moments")
    if moments is None:
        module, moments = _moments(seen, mean)
    found: dict[str, Any] = {
        "module": module,
        "container": type(result).__name__,
        "samples_by_itself": sampled,
        "posterior": "unknown: no output of a module has the mean in it",
        "moments_order": "unknown",
        "logvar_clamp": None,
        "normalization": {"where": "caller"},
    }
    if moments is None:
        return found
    halves = moments.chunk(2, 1)
    fits = [_affine(half, mean) for half in halves]
    which = min((0, 1), key=lambda i: fits[i][2])
    if fits[which][2] > NEAR:
        return found
    shift, scale, _ = fits[which]
    found["moments_order"] = ("mean first", "mean second")[which]
    if (scale - 1).abs().max() > NEAR or shift.abs().max() > NEAR:
        same = bool((scale - scale[0]).abs().max() < NEAR and (shift - shift[0]).abs().max() < NEAR)
        numbers = {"shift": _round(shift, same), "scale": _round(scale, same)}
        found["normalization"] = {"where": "inside", **numbers}
    spread = halves[1 - which]
    if "std" in out:
        forms = {
            "gaussian-logvar": torch.exp(0.5 * spread.clamp(-30, 20)),
            "gaussian-softplus": F.softplus(spread) + 1e-4,
            "gaussian-std": spread,
        }
        std = out["std"] / scale.view(-1, *(1,) * (mean.dim() - 2)).abs()
        near = {form: ((std - value).abs().max() / std.abs().max()).item() for form, value in forms.items()}
        best = min(near, key=lambda form: near[form])
        found["posterior"] = best if near[best] < 1e-5 else f"unknown: nearest is {best}, off by {near[best]:.2g}"
        found["logvar_clamp"] = _clamp(read(result), moments) if best == "gaussian-logvar" else None
    else:
        found["posterior"] = "mode only: the other half of the moments is never used by encode"
    return found


def _hook(name: str, seen: dict[str, list[Tensor]]) -> Any:
    def hook(module: nn.Module, args: Any, out: Any) -> None:
        if isinstance(out, Tensor):
            seen.setdefault(name, []).append(out.detach())

    return hook


def _moments(seen: dict[str, list[Tensor]], mean: Tensor) -> tuple[str, Tensor | None]:
    """The last module whose output, its calls joined in time, is twice as wide as the latent and holds the mean."""
    wanted = [mean.shape[0], 2 * mean.shape[1], *mean.shape[2:]]
    for name, calls in reversed(seen.items()):
        if calls[0].dim() != mean.dim():
            continue
        whole = torch.cat(calls, 2) if len(calls) > 1 else calls[0]
        if list(whole.shape) == wanted and min(_affine(half, mean)[2] for half in whole.chunk(2, 1)) < NEAR:
            return name, whole
    return "", None


def _affine(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, float]:
    """shift, scale per channel of y = (x - shift) * scale, and the relative error of the fit."""
    a, b = (t.detach().double().transpose(0, 1).flatten(1) for t in (x, y))
    centred = a - a.mean(1, keepdim=True)
    scale = (centred * (b - b.mean(1, keepdim=True))).sum(1) / centred.square().sum(1).clamp_min(1e-300)
    shift = a.mean(1) - b.mean(1) / torch.where(scale == 0, torch.ones_like(scale), scale)
    error = ((a - shift[:, None]) * scale[:, None] - b).abs().max() / b.abs().max().clamp_min(1e-300)
    return shift, scale, float(error)


def _round(values: Tensor, same: bool) -> Any:
    rounded = [float(f"{v:.7g}") if abs(v) > 1e-12 else 0.0 for v in values.tolist()]
    return rounded[0] if same else rounded


def _clamp(posterior: Any, moments: Tensor) -> list[float] | None:
    """The range to which the posterior's class clamps log variances, tried with far moments."""
    if isinstance(posterior, Tensor):
        return None
    try:
        std = (
            type(posterior)(torch.ones_like(moments) * 1000).std,
            type(posterior)(torch.ones_like(moments) * -1000).std,
        )
    except Exception:  # a foreign constructor
        return None
    high, low = (2 * torch.log(s.double().max()).item() for s in std)
    return [round(low, 6), round(high, 6)]
