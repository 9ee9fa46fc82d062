"""Flows of both sides, and weights drawn by what a flow says of them."""

from __future__ import annotations

import contextlib
import hashlib
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vaeport.configs import LatentContract
from vaeport.mapping import Plan
from vaeport.mapping.flow import Flow
from vaeport.mapping.trace import trace
from vaeport.proof.calling import Caller, Outputs
from vaeport.proof.draw import draw_input, draw_media
from vaeport.proof.seeded import OUTPUT_GAIN, QUERY_GAIN, gains
from vaeport.proof.sides import ReferenceSide
from vaeport.vae import VAE

UNREAD = "read by neither encode nor decode"

Shape = tuple[int, ...]


def foreign_flow(side: ReferenceSide, media: Shape, latent: Shape) -> Flow:
    """The flow of an official implementation, without computing anything where its code bears that."""
    with contextlib.suppress(Exception):
        return _flow(side.open("meta"), media, latent, "meta")
    caller = side.open()
    caller.module.float()
    caller.cast("cpu", torch.float32)
    return _flow(caller, media, latent, "cpu")


def _flow(caller: Caller, media: Shape, latent: Shape, device: str) -> Flow:
    x, z = torch.zeros(media, device=device), torch.zeros(latent, device=device)
    return trace(
        caller.module,
        calls={
            "encoded": ("media", x, lambda t: list(caller.encode(t).values())),
            "decoded": ("latent", z, caller.decode),
        },
    )


def native_flow(vae: VAE, media: Shape, latent: Shape) -> Flow:
    """The flow of a native VAE on the meta device."""
    x, z = torch.zeros(media, device="meta"), torch.zeros(latent, device="meta")
    return trace(
        vae,
        calls={
            "encoded": ("media", x, lambda t: vae.encode(t).latent_dist.parameters),
            "decoded": ("latent", z, lambda t: vae.decode(t).sample),
        },
    )


def foreign_values(side: ReferenceSide, media: Shape, latent: Shape, weights: str) -> dict[str, Any]:
    """The flow with sums over every result, in float64, on drawn inputs and weights from a file; as JSON."""
    caller = side.open()
    caller.module.load_state_dict(load_file(weights), strict=True)
    with _in_float64(caller.module):
        caller.cast("cpu", torch.float64)
        return _measured(caller.module, caller.encode, caller.decode, media, latent).to_json()


def native_values(vae: VAE, media: Shape, latent: Shape, *, normalized: bool) -> Flow:
    """The same of a native VAE; `normalized`: the latent is as the diffusion model sees it."""
    with _in_float64(vae):
        return _measured(
            vae,
            lambda x: {"moments": vae.encode(x).latent_dist.parameters},
            lambda z: vae.decode(vae.denormalize(z) if normalized else z).sample,
            media,
            latent,
        )


def _measured(
    module: nn.Module,
    encode: Callable[[Tensor], Outputs],
    decode: Callable[[Tensor], Tensor],
    media: Shape,
    latent: Shape,
) -> Flow:
    x, z = draw_media("flow media", media, 0), draw_input("flow latent", latent, 0)
    calls = {"encoded": ("media", x, lambda t: list(encode(t).values())), "decoded": ("latent", z, decode)}
    return trace(module, calls=calls, values=True)


@contextlib.contextmanager
def _in_float64(module: nn.Module) -> Iterator[None]:
    nn.Module.to(module, torch.float64)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def shapes_of(contract: LatentContract) -> tuple[Shape, Shape]:
    """Media and latent on which flows are made: the shortest that shows every rule (1 + 2k frames)."""
    counts = {"image": (2, 3), "video": (2, 2, 3), "audio": (4,)}[contract.modality]
    lengths = tuple(a.offset + a.multiple * n for a, n in zip(contract.axes, counts, strict=True))
    media = (1, contract.channels, *lengths)
    return media, contract.latent_shape(media)


def draw_by_flow(flow: Flow, seed: int, gains: Mapping[str, float]) -> dict[str, Tensor]:
    """Weights by what is done with them, not by name: matrices N / sqrt(fan in), gains 1 + 0.2 N, all others 0.2 N.

    The length of weight norm is the smaller of the two weights of its operand. `gains` are factors by key.
    """
    kinds: dict[str, str] = {}
    for use in flow.uses:
        for operand in use.operands:
            largest = max(operand.keys, key=lambda key: math.prod(flow.shapes[key.partition("#")[0]]))
            for key in operand.keys:
                kind = operand.kind if operand.shape or operand.kind in ("linear", "transposed") else "log"
                kinds[key.partition("#")[0]] = "scale" if len(operand.keys) > 1 and key != largest else kind
    return {
        key: _drawn(key, shape, kinds.get(key, "log"), seed) * gains.get(key, 1.0) for key, shape in flow.shapes.items()
    }


def drawn_for(flow: Flow, mapped: Plan, seed: int, *, clamped: bool) -> dict[str, Tensor]:
    """Official weights on which a fault shows: activations of unit size, attention that is neither flat nor sharp."""
    return draw_by_flow(flow, seed, {**flow_gains(flow, clamped=clamped), **gains(mapped, clamped=clamped)})


def flow_gains(flow: Flow, *, clamped: bool) -> dict[str, float]:
    """Factors on drawn weights that a flow asks for: sharper queries and keys, a quieter output if it is clamped."""
    found: dict[str, float] = {}

    def matrix(use: int | str) -> None:
        while isinstance(use, int):
            first = flow.uses[use].operands[0]
            if first.kind == "linear":
                found.update({key.partition("#")[0]: QUERY_GAIN for key in first.keys})
                return
            use = next(iter(flow.uses[use].inputs)).use

    for use in flow.uses:
        for source in use.inputs:
            if source.softmax:
                matrix(source.use)
    for source in flow.outputs.get("decoded", ()) if clamped else ():
        if isinstance(source.use, int):
            found.update(dict.fromkeys(flow.uses[source.use].keys, OUTPUT_GAIN))
    return found


def _drawn(key: str, shape: Shape, kind: str, seed: int) -> Tensor:
    digest = hashlib.sha256(f"{seed}/{key}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    normal = torch.randn(shape, generator=generator)
    if kind in ("linear", "transposed"):
        return normal * math.sqrt(shape[0] / math.prod(shape)) if len(shape) > 1 else normal
    return 1 + 0.2 * normal if kind == "scale" else 0.2 * normal


@contextlib.contextmanager
def drawn_file(drawn: Mapping[str, Tensor]) -> Iterator[Path]:
    """A weight file of drawn weights, as long as it is needed."""
    with tempfile.TemporaryDirectory(prefix="vaeport-") as folder:
        file = Path(folder) / "drawn.safetensors"
        save_file({key: tensor.contiguous() for key, tensor in drawn.items()}, file)
        yield file


def load_drawn(module: nn.Module, drawn: Mapping[str, Tensor]) -> None:
    """Puts weights into a module, strictly."""
    module.load_state_dict(dict(drawn), strict=True)
