"""From files to a running VAE and back: `load` and `save`.

The architecture comes from `config.json`, or, for an official single file, from the keys and shapes alone. Loading is
always strict: a plan accounts for every key before any tensor is read, and tensors stay memory-mapped until used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path

import torch
from torch import Tensor

from vaeport.checkpoint import Checkpoint, open_checkpoint, read_config, resolve, save_folder
from vaeport.configs import VAEArchConfig
from vaeport.errors import CheckpointError, ConfigError, InputError, UnknownModelError
from vaeport.mapping import Layout, Plan, plan
from vaeport.registry import ModelRegistry, Registration
from vaeport.vae import VAE

_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Candidate:
    """An architecture that a checkpoint may hold, and how its keys would be read."""

    registration: Registration
    variant: str | None
    arch: VAEArchConfig
    plan: Plan


def load(
    path_or_hub_id: str | Path,
    *,
    subfolder: str | None = None,
    revision: str | None = None,
    variant: str | None = None,
    model: str | None = None,
    model_variant: str | None = None,
    load_encoder: bool = True,
    load_decoder: bool = True,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | str | None = None,
) -> VAE:
    """A VAE in evaluation mode, without gradients.

    path_or_hub_id, subfolder, revision, variant
                    a Diffusers component folder or hub id (variant: "fp16", ...), or an official single file
    model, model_variant
                    native name ("autoencoder_kl") and published configuration ("flux1"), where the file cannot tell
    load_encoder, load_decoder
                    a half that is False is never read
    dtype           type to convert to; None keeps the stored one

    Raises ConfigError, CheckpointError (with KeyMismatchError, CorruptFileError, UnsafePickleError) or BlockedError.
    """
    path = resolve(path_or_hub_id, subfolder=subfolder, revision=revision, variant=variant)
    wanted = _dtype(dtype)
    with open_checkpoint(path, variant=variant) as checkpoint:
        found = identify(checkpoint, model=model, model_variant=model_variant)
        config = found.registration.model.config_class(
            load_encoder=load_encoder,
            load_decoder=load_decoder,
            dtype=None if wanted is None else str(wanted).removeprefix("torch."),
            pretrained_path=str(path_or_hub_id),
            subfolder=subfolder,
            revision=revision,
            variant=variant,
        )
        with torch.device("meta"):
            vae = found.registration.model(found.arch, config)
        kept = vae.state_dict().keys()
        steps = tuple(step for step in found.plan.steps if step.native in kept)
        wanted = wanted or _common_dtype(checkpoint, [key for step in steps for key in step.stored])
        tensors = replace(found.plan, steps=steps).convert(checkpoint.tensor)
        vae.load_state_dict(dict(_ready(tensors, torch.device(device), wanted, path)), strict=True, assign=True)
    return vae.eval().requires_grad_(False)


def identify(checkpoint: Checkpoint, *, model: str | None = None, model_variant: str | None = None) -> Candidate:
    """The one architecture and layout that accounts for every key; an error says why there is none or more than one."""
    shapes = {name: entry.shape for name, entry in checkpoint.entries.items()}
    folder = checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent
    if model_variant is None and (folder / "config.json").exists():
        config = read_config(folder)
        registration = ModelRegistry.find_published(config, where=folder / "config.json")
        if model is not None and ModelRegistry.find(model) != registration:
            raise ConfigError("config.json is another model's", where=folder, expected=model, found=registration.name)
        candidates = _candidates(registration, None, registration.model.arch_class.from_published(config), shapes)
        fix = "check that config.json and the weights belong together"
        return _best(candidates, checkpoint, fix)
    if checkpoint.path.is_dir() and model is None:
        raise ConfigError("the folder has no config.json", where=folder, fix="add it, or name the architecture: model=..., model_variant=...")
    registrations = ModelRegistry.registrations() if model is None else (ModelRegistry.find(model),)
    archs = [(r, v, a) for r in registrations for v, a in r.model.variants.items() if model_variant in (None, v)]
    if not archs:
        known = ", ".join(v for r in registrations for v in r.model.variants)
        raise ConfigError(f"no published configuration is called `{model_variant}`", expected=f"one of {known}")
    candidates = [c for r, v, a in archs for c in _candidates(r, v, a, shapes)]
    fitting = [c for c in candidates if c.plan.fits]
    marked = [c for c in fitting if _is_marked(c, shapes)]
    distinct = {repr(c.arch): c for c in reversed(marked or fitting)}
    if len(distinct) == 1:
        return next(iter(distinct.values()))
    if distinct:
        names = ", ".join(sorted(str(c.variant) for c in distinct.values()))
        raise ConfigError(
            "keys and shapes fit several published configurations, which differ in constants only",
            where=checkpoint.path,
            found=names,
            fix="say which: model_variant=... (--variant)",
        )
    fix = "see what it holds with `vaeport inspect`; name the architecture with model=..., model_variant=..."
    if model is None and not any(c.plan.steps for c in candidates):
        raise UnknownModelError("no registered architecture has these keys", where=checkpoint.path, fix=fix)
    return _best(candidates, checkpoint, fix)


def save(vae: VAE, folder: str | Path, *, max_shard_size: int | str = "10GB", variant: str | None = None) -> tuple[Path, ...]:
    """Writes config.json and weights in the Diffusers layout; `load` reads them back bit-equal. Returns the files."""
    if vae.encoder is None or vae.decoder is None:
        raise InputError("a VAE that was loaded without its encoder or decoder cannot be saved", fix="load both halves")
    registration = ModelRegistry.find(type(vae).__name__)
    state = vae.state_dict()
    steps = plan(registration.layouts[0], {k: tuple(v.shape) for k, v in state.items()}).require(folder, "mend the map").steps
    tensors = {key: tensor for step in steps for key, tensor in step.write(state[step.native]).items()}
    return save_folder(Path(folder), tensors, vae.arch.to_published(), max_shard_size=max_shard_size, variant=variant)


def native_shapes(model: type[VAE], arch: VAEArchConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all native weights, without memory for them."""
    with torch.device("meta"):
        return {name: tuple(t.shape) for name, t in model(arch).state_dict().items()}


def _candidates(
    registration: Registration, variant: str | None, arch: VAEArchConfig, shapes: dict[str, tuple[int, ...]]
) -> list[Candidate]:
    native = native_shapes(registration.model, arch)
    return [Candidate(registration, variant, arch, plan(layout, native, shapes)) for layout in registration.layouts]


def _best(candidates: list[Candidate], checkpoint: Checkpoint, fix: str) -> Candidate:
    best = min(candidates, key=lambda c: len(c.plan.missing) + len(c.plan.unexpected) + len(c.plan.misshapen))
    best.plan.require(checkpoint.path, fix)
    return best


def _is_marked(candidate: Candidate, shapes: dict[str, tuple[int, ...]]) -> bool:
    layout: Layout = candidate.plan.layout
    marker = layout.variants.get(candidate.variant or "")
    return marker is not None and any(re.fullmatch(marker, key) for key in shapes)


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if dtype is not None and found not in _DTYPES:
        raise ConfigError("a VAE does not run in this type", expected=", ".join(map(str, _DTYPES)), found=dtype)
    return found


def _common_dtype(checkpoint: Checkpoint, keys: list[str]) -> torch.dtype:
    dtypes = {checkpoint.entries[key].dtype for key in keys}
    odd = dtypes - set(_DTYPES)
    if odd:
        raise CheckpointError(
            "weights are stored in a type that a VAE does not run in",
            where=checkpoint.path,
            found=", ".join(map(str, odd)),
            fix="dtype=... converts floating-point types; quantised weights must be expanded by the tool that made them",
        )
    return reduce(torch.promote_types, dtypes)


def _ready(
    tensors: Iterator[tuple[str, Tensor]], device: torch.device, dtype: torch.dtype, path: Path
) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in tensors:
        if not tensor.is_floating_point():
            raise CheckpointError("weights are not floating-point numbers", where=f"{path}: {name}", found=tensor.dtype)
        low, high = torch.aminmax(tensor)
        if not (low.isfinite() and high.isfinite()):
            raise CheckpointError(
                "weights are not finite", where=f"{path}: {name}", found=f"{low.item()} to {high.item()}", fix="get the file again"
            )
        converted = tensor.to(device, dtype)
        if tensor.dtype != dtype and not torch.aminmax(converted)[1].isfinite():
            raise CheckpointError(f"weights overflow in {dtype}", where=f"{path}: {name}", found=high.item(), fix="use bfloat16 or float32")
        yield name, converted
