"""From names to a proof: what `vaeport prove` and the tests call."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vaeport.checkpoint import read_config, resolve
from vaeport.configs import LatentContract, VAEArchConfig
from vaeport.errors import ConfigError, ProofError
from vaeport.proof.calling import Convention
from vaeport.proof.cases import Case, cases_of
from vaeport.proof.importing import import_object
from vaeport.proof.judge import DTYPES
from vaeport.proof.prove import Proof
from vaeport.proof.remote import RemoteSide
from vaeport.proof.sides import NativeSide, ReferenceSide, Side
from vaeport.proof.verdict import Verdict
from vaeport.registry import ModelRegistry, Registration, checked
from vaeport.runtime.load import load_as
from vaeport.runtime.tiling import tiled, tiling_names, tiling_policy
from vaeport.vae import VAE


def prove(**options: Any) -> Verdict:
    """Sets up both sides and carries out the proof; `options` as for `proof_of`."""
    return proof_of(**options).run()


def proof_of(
    *,
    reference: str,
    native: str,
    variant: str | None = None,
    config: Path | None = None,
    reference_args: Mapping[str, Any] | None = None,
    adapter: Path | None = None,
    reference_python: str | None = None,
    capture: Path | None = None,
    weights: str | Path | None = None,
    subfolder: str | None = None,
    filename: str | None = None,
    tiling: str | None = None,
    seed: int = 0,
    dtypes: Sequence[str] = ("float32", "bfloat16"),
    device: str = "cpu",
    convention: Convention | None = None,
) -> Proof:
    """Both sides of a proof, ready to run.

    reference       "package.module:Class"; built with reference_args, by default the native model's published config
    native          native name or "package.module:Class"
    variant         published configuration; the only one, if there is but one
    capture         folder that keeps the reference's outputs; they are read again if weights and inputs are the same
    weights, subfolder, filename
                    file, folder or hub id with what to take from it; None: weights are drawn from the seed
    tiling          a published tiling of the native model, for a reference that tiles so too; None: both run whole
    convention      how the reference is called; by default, a decode that knows a timestep is told the contract's, and
                    Diffusers' switches of tiling are set as `tiling` says

    Raises ProofError or ConfigError if the proof cannot be set up; a proof that fails is a false verdict.
    """
    for name in dtypes:
        if name not in DTYPES:
            raise ProofError(f"no gate P for `{name}`", expected=f"one of {', '.join(DTYPES)}")
    registration = native_of(native)
    model = registration.model
    arch = _arch(model, variant, config)
    arguments = arch.to_published() if reference_args is None else dict(reference_args)
    file = None if adapter is None else str(adapter)
    contract = model.contract_of(arch)
    called = convention or Convention(decode_arguments=timestep_argument(reference, contract.decode_timestep))
    side: Side
    if reference_python is None and capture is None:
        side = ReferenceSide(reference, arguments, file, device, called)
        if convention is None:
            side.convention = replace(called, attributes=_switches(side.open("meta").built, tiling))
    else:
        side = RemoteSide(reference, arguments, file, device, reference_python, capture, called)

    def opened(path: Path) -> VAE:
        vae = load_as(registration, arch, path, device=device)
        return vae if tiling is None else tiled(vae, tiling)

    label = " ".join(filter(None, (native, variant, tiling)))
    return Proof(
        side,
        NativeSide(label, lambda: model(arch), opened, device),
        registration.layouts,
        seed=seed,
        weights=None if weights is None else resolve(weights, subfolder=subfolder, filename=filename),
        dtypes=dtypes,
        cases=(*cases_of(contract), *_beyond_tiles(registration.name, arch, contract, tiling)),
    )


def _switches(built: object, tiling: str | None) -> dict[str, bool]:
    """Diffusers' switches as they are set for a tiling, those that the class has."""
    framewise = tiling in ("diffusers", "diffusers-framewise")
    wanted = {"use_tiling": tiling in ("diffusers", "diffusers-spatial")}
    wanted |= {"use_framewise_encoding": framewise, "use_framewise_decoding": framewise}
    return {name: value for name, value in wanted.items() if hasattr(built, name)}


def _beyond_tiles(name: str, arch: VAEArchConfig, contract: LatentContract, tiling: str | None) -> Iterator[Case]:
    """A case larger than a tile of what is cut; in time, where a reference could be cutting, without tiling too."""
    known = tiling_names(name, arch)
    cut = tiling or "diffusers-framewise"
    if cut not in known:
        return
    policy = tiling_policy(name, arch, cut)
    media = []
    for rule in contract.axes:
        axis = policy.encode.along(rule)
        media.append(rule.padded(axis.tile + axis.stride // 2) if axis else rule.decoded(2 + (rule.name == "width")))
    shape = (1, contract.channels, *media)
    yield Case("beyond a tile", shape, contract.latent_shape(shape))


def native_of(name: str) -> Registration:
    """The model of a native name, or of an import path "package.module:Class" outside the library."""
    if ":" not in name:
        return ModelRegistry.find(name)
    model = checked(import_object(name))
    module = model.__module__.replace(".models.", ".weights.")
    try:
        layouts = getattr(model, "layouts", None) or importlib.import_module(module).LAYOUTS
    except (ImportError, AttributeError) as error:
        fix = "write it, with the model's file name, or give the class an attribute `layouts`"
        raise ProofError("the native model has no weight map", where=module, fix=fix) from error
    return Registration(name, (model.__name__,), lambda: model, lambda: layouts)


def timestep_argument(reference: str, value: float | None) -> dict[str, Any]:
    """The argument by which the reference's `decode` is told a timestep, in every sample."""
    if value is None:
        return {}
    known = inspect.signature(import_object(reference).decode).parameters
    return {name: {"per_sample": value} for name in ("temb", "timestep") if name in known}


def _arch(model: type[VAE], variant: str | None, config: Path | None) -> VAEArchConfig:
    if config is not None:
        published = read_config(config)
        reason = model.arch_class.misfit(published)
        if published["_class_name"] not in model.arch_class.class_names or reason:
            expected = " or ".join(model.arch_class.class_names)
            found = reason or published["_class_name"]
            raise ConfigError("the config is another model's", where=config, expected=expected, found=found)
        return model.arch_class.from_published(published)
    if variant is None and len(model.variants) == 1:
        return next(iter(model.variants.values()))
    if variant not in model.variants:
        raise ConfigError(
            f"{model.__name__} has no configuration `{variant}`"
            if variant
            else f"{model.__name__} has several configurations",
            expected=f"one of {', '.join(model.variants)}",
            fix="name it with --variant, or give a --config file",
        )
    return model.variants[variant]
