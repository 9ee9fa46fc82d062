"""A native VAE against what its reference gave, from data alone: what the script of `vaeport.drift.repro` runs.

A case says what is built, and how its weights are drawn:

    native, config, tiling      class, published configuration, published tiling or None
    seed, shapes, scale         as `vaeport.proof.draw.draw_state` takes them, in the reference's layout
    unit                        where the difference is made; "" for the VAE's own steps
    normalized                  latents to decode are as the diffusion model sees them

Its tensors are `media` and `latent`, which go in; `unit.in.N` and `unit.out.N`, what the reference's unit takes and
gives in call N; `encode.mean`, `decode.decoded`, ..., the reference's outputs. Everything runs in float64.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vaeport.drift.forced import in_one_piece
from vaeport.drift.truth import STAGES, error_of
from vaeport.proof.draw import draw_state
from vaeport.proof.jobs import in_float64
from vaeport.proof.precision import ClampTap
from vaeport.proof.recording import first_tensor
from vaeport.proof.setup import native_of
from vaeport.proof.sides import NativeSide
from vaeport.runtime.load import load_as
from vaeport.runtime.tiling import tiled
from vaeport.vae import VAE

Tensors = Mapping[str, Tensor]


def opened(case: Mapping[str, Any], native: str) -> VAE:
    """The native VAE in float64, its drawn weights loaded strictly from a file in the reference's layout."""
    registration = native_of(native)
    arch = registration.model.arch_class.from_published(case["config"])
    with tempfile.TemporaryDirectory(prefix="vaeport-repro-") as folder:
        path = Path(folder) / "weights.safetensors"
        save_file(draw_state(case["shapes"], case["seed"], scale=case["scale"]), path)
        vae = load_as(registration, arch, path)
        if case["tiling"] is not None:
            vae = tiled(vae, case["tiling"])
        nn.Module.to(vae, torch.float64)  # also lets go of the file
    return vae.eval().requires_grad_(False)


def errors(vae: VAE, case: Mapping[str, Any], tensors: Tensors) -> Iterator[tuple[str, float]]:
    """(name, error by gate S) of the unit on the reference's input, then of every output of encode and decode.

    The halves run twice, since the first run may leave something behind. What raises has an infinite error.
    """
    unit, media, latent = case["unit"], tensors["media"], tensors["latent"]
    given = _numbered(tensors, "unit.in")
    if given:
        try:
            made = [out for _, out in calls(vae, unit, media, latent, given)]
            wanted = _numbered(tensors, "unit.out")
            one = max(map(error_of, made, wanted)) if len(made) == len(wanted) else float("inf")
            yield unit, one
        except Exception as error:  # a wrong port may raise anything
            yield f"{unit} raises {type(error).__name__}: {error}", float("inf")
    for turn in ("", ", second run"):
        for half, names in STAGES.items():
            kept = [name for name in names if f"{half}.{name}" in tensors]
            try:
                outputs = run(vae, half, media, latent, case["normalized"]) if kept else {}
                found = [(f"{half} {name}{turn}", error_of(outputs[name], tensors[f"{half}.{name}"])) for name in kept]
            except Exception as error:
                yield f"{half}{turn} raises {type(error).__name__}: {error}", float("inf")
                continue
            yield from found


@torch.no_grad()
def run(vae: VAE, half: str, media: Tensor, latent: Tensor, normalized: bool = False) -> dict[str, Tensor]:
    """The outputs of "encode" or "decode" by name, in float64, with noise of known values."""
    side = NativeSide("native", lambda: vae, lambda path: vae, normalized=normalized)
    with in_float64(), ClampTap() as tap:
        return side.half(half, vae, media, latent, tap)


class _SeenError(Exception):
    """All calls that were asked for are over."""


def calls(
    vae: VAE, unit: str, media: Tensor, latent: Tensor, given: Sequence[Tensor] = ()
) -> list[tuple[Tensor, Tensor]]:
    """What a unit takes and gives, call by call; with `given`, it takes these instead, and nothing runs after them."""
    found: list[tuple[Tensor, Tensor]] = []
    entering: list[Tensor] = []

    def entered(module: nn.Module, args: Any) -> Any:
        x = first_tensor(args)
        if x is None:
            return None
        wanted = given[len(found)].clone() if given else x
        entering.append(wanted)
        return tuple(wanted if a is x else a for a in args)

    def left(module: nn.Module, args: Any, out: Any) -> None:
        y = first_tensor(out)
        if y is not None and entering:
            found.append((entering.pop(), y))
        if given and len(found) == len(given):
            raise _SeenError

    module = vae.get_submodule(unit)
    with ExitStack() as stack:
        stack.enter_context(in_one_piece(vae))
        # before hooks that count the calls of the module's forward, and change one of them
        stack.callback(module.register_forward_pre_hook(entered, prepend=True).remove)
        stack.callback(module.register_forward_hook(left).remove)
        stack.enter_context(suppress(_SeenError))
        run(vae, "encode" if unit.startswith("encoder") else "decode", media, latent)
    return found


def _numbered(tensors: Tensors, name: str) -> list[Tensor]:
    return [tensors[f"{name}.{i}"] for i in range(sum(key.startswith(f"{name}.") for key in tensors))]
