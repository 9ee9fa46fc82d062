"""From files to a running VAE and back: `load` and `save`.

Loading is always strict: a plan accounts for every key before any tensor is read, and tensors stay memory-mapped until
used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial, reduce
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from vaeport.checkpoint import Checkpoint, open_checkpoint, resolve, save_folder
from vaeport.configs import VAEArchConfig, VAEConfig
from vaeport.errors import BlockedError, CheckpointError, ConfigError, InputError
from vaeport.mapping import plan
from vaeport.mapping.plan import Step
from vaeport.registry import ModelRegistry, Registration
from vaeport.runtime.identify import HALVES, Candidate, fit, identify
from vaeport.runtime.tiling import tiled, tiling_policy
from vaeport.vae import VAE

DEFAULT = Path(__file__).parents[1] / "default"
"""the small VAE that comes with the package; docs/default.md"""
_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def load(
    path_or_hub_id: str | Path | None = None,
    *,
    subfolder: str | None = None,
    filename: str | None = None,
    revision: str | None = None,
    variant: str | None = None,
    model: str | None = None,
    model_variant: str | None = None,
    load_encoder: bool = True,
    load_decoder: bool = True,
    latents: Literal["raw", "normalized"] = "raw",
    device: str | torch.device = "cpu",
    dtype: torch.dtype | str | None = None,
    encoder_dtype: torch.dtype | str | None = None,
    decoder_dtype: torch.dtype | str | None = None,
    precision: Literal["exact", "high"] = "high",
    graphs: bool = False,
    tiling: str | None = None,
) -> VAE:
    """A VAE in evaluation mode, without gradients.

    path_or_hub_id, subfolder, revision, variant
                    a Diffusers component folder or hub id (variant: "fp16", ...), or an official single file;
                    None: the small Wan that comes with the package, for stills and video, in float32 unless told
    filename        official single file in the folder or hub repository, e.g. "ae.safetensors"
    model, model_variant
                    native name ("autoencoder_kl") and published configuration ("flux1"), where the file cannot tell
    load_encoder, load_decoder
                    a half that is False is never read, and the file may lack it
    latents         "normalized": `encode` gives and `decode` takes latents as the diffusion model sees them
    dtype           type to convert to; None keeps the stored one, and of several takes one that holds them all
    encoder_dtype, decoder_dtype
                    the same for one half, such as an encoder in float32 beside a decoder in bfloat16; None: `dtype`
    precision       "high": kernels that sum in another order where there are faster ones; "exact": none of them
    graphs          what runs at once, or as a piece of a stream, and comes again runs by CUDA graphs, which keep memory
    tiling          "official", "diffusers", ...: run tile by tile as that code does, which is approximate; None: exact

    Raises ConfigError, CheckpointError (with KeyMismatchError, CorruptFileError, UnsafePickleError), BlockedError, or
    InputError for a path that leads out of its folder.
    """
    if path_or_hub_id is None:
        path_or_hub_id, dtype = DEFAULT, dtype or torch.float32
    wanted, *own = (dtype_of(given) for given in (dtype, encoder_dtype, decoder_dtype))
    device = device_of(device)
    halves = tuple(half for half, kept in zip(HALVES, (load_encoder, load_decoder), strict=True) if kept)
    path = resolve(path_or_hub_id, subfolder=subfolder, revision=revision, variant=variant, filename=filename)
    with open_checkpoint(path, variant=variant) as checkpoint:
        found = identify(checkpoint, model=model, model_variant=model_variant, halves=halves)
        config = found.registration.model.config_class(
            load_encoder=load_encoder,
            load_decoder=load_decoder,
            latents=latents,
            dtype=_name(wanted),
            encoder_dtype=_name(own[0]),
            decoder_dtype=_name(own[1]),
            precision=precision,
            use_graphs=graphs,
            pretrained_path=str(path_or_hub_id),
            subfolder=subfolder,
            revision=revision,
            variant=variant,
            tiling=tiling,
        )
        if tiling is not None:
            tiling_policy(found.registration.name, found.arch, tiling)  # refused before anything is read
        dtypes = {half: one or wanted for half, one in zip(HALVES, own, strict=True) if half in halves}
        vae = _built(checkpoint, found, config, device, dtypes)
        return vae if tiling is None else tiled(vae)


def load_as(registration: Registration, arch: VAEArchConfig, path: str | Path, *, device: str = "cpu") -> VAE:
    """A VAE of one given class and architecture, whatever a config.json beside the weights says."""
    with open_checkpoint(Path(path)) as checkpoint:
        found = fit(checkpoint, registration, arch)
        config = registration.model.config_class(pretrained_path=str(path))
        return _built(checkpoint, found, config, device_of(device), dict.fromkeys(HALVES))


def _built(
    checkpoint: Checkpoint,
    found: Candidate,
    config: VAEConfig,
    device: torch.device,
    dtypes: Mapping[str, torch.dtype | None],
) -> VAE:
    with torch.device("meta"):
        vae = found.registration.model(found.arch, config)
    kept = vae.state_dict().keys()
    steps = [step for step in found.plan.steps if step.native in kept]
    stored = _stored_dtype(checkpoint, steps)
    weights = _weights(checkpoint, steps, device, {half: dtype or stored for half, dtype in dtypes.items()})
    vae.load_state_dict(dict(weights), strict=True, assign=True)
    return vae.eval().requires_grad_(False)


def save(
    vae: VAE, folder: str | Path, *, max_shard_size: int | str = "10GB", variant: str | None = None
) -> tuple[Path, ...]:
    """Writes config.json and weights in the Diffusers layout; `load` reads them back bit-equal. Returns the files."""
    if vae.encoder is None or vae.decoder is None:
        what = "a VAE that was loaded without its encoder or decoder cannot be saved"
        raise InputError(what, where=folder, fix="load both halves")
    layout = ModelRegistry.find_class(type(vae)).layouts[0]
    state = vae.state_dict()
    mapped = plan(layout, {k: tuple(v.shape) for k, v in state.items()}).require(folder, "mend the map")
    tensors = dict(mapped.write(state.__getitem__))
    config = vae.arch.to_published()
    return save_folder(Path(folder), tensors, config, max_shard_size=max_shard_size, variant=variant)


def dtype_of(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """A type by name; ConfigError for one that a VAE does not run in."""
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if dtype is not None and found not in _DTYPES:
        raise ConfigError("a VAE does not run in this type", expected=", ".join(map(str, _DTYPES)), found=dtype)
    return found


def _name(dtype: torch.dtype | None) -> str | None:
    return None if dtype is None else str(dtype).removeprefix("torch.")


def device_of(device: str | torch.device) -> torch.device:
    """The device, tried out before anything is read."""
    try:
        found = torch.device(device)
    except RuntimeError as error:
        fix = 'such as "cpu", "cuda" or "cuda:1"'
        raise ConfigError("no such kind of device", found=repr(device), fix=fix) from error
    try:
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:  # each kind refuses in its way
        reason = str(error).partition("\n")[0]
        raise BlockedError("the device cannot be used", where=device, found=reason, fix='use device="cpu"') from error
    return found


def _stored_dtype(checkpoint: Checkpoint, steps: Sequence[Step]) -> torch.dtype:
    """The least type that holds all weights as they are stored."""
    stored = {key: checkpoint.entries[key].dtype for step in steps for key in step.stored}
    odd = [f"{key} {dtype}" for key, dtype in stored.items() if dtype not in _DTYPES]
    if odd:
        raise CheckpointError(
            "weights are stored in a type that a VAE does not run in",
            where=checkpoint.path,
            expected=", ".join(map(str, _DTYPES)),
            found=f"{len(odd)} of {len(stored)}: " + ", ".join(odd[:4]),
            fix="get the unquantised weights, or expand them with the tool that made them",
        )
    return reduce(torch.promote_types, stored.values())


def _weights(
    checkpoint: Checkpoint, steps: Sequence[Step], device: torch.device, dtypes: Mapping[str, torch.dtype]
) -> Iterator[tuple[str, Tensor]]:
    """Native keys and weights, one after the other; mapped from the file where nothing has to change.

    What belongs to neither half, the statistics of latents, gets a type that holds what both would get.
    """
    shared = reduce(torch.promote_types, dtypes.values())
    for step in steps:
        dtype = dtypes.get(step.native.partition(".")[0], shared)
        yield step.native, step.read(partial(_finite, checkpoint, dtype)).to(device, dtype)


def _finite(checkpoint: Checkpoint, dtype: torch.dtype, key: str) -> Tensor:
    """A stored tensor whose values are finite, also in `dtype`."""
    tensor = checkpoint.tensor(key)
    extremes = torch.stack(torch.aminmax(tensor))
    if extremes.to(dtype).isfinite().all():
        return tensor
    low, high = extremes.tolist()
    where, found = f"{checkpoint.entries[key].file}: {key}", f"{low:g} to {high:g}"
    if not extremes.isfinite().all():
        raise CheckpointError("weights are not finite", where=where, found=found, fix="get the file again")
    raise CheckpointError(f"weights overflow in {dtype}", where=where, found=found, fix="use bfloat16 or float32")
