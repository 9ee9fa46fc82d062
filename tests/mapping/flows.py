"""Small modules whose flow is known, and how a test reads a flow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.narrow import MODELS, on_meta, reference
from vaeport.mapping.derive import Graph
from vaeport.mapping.flow import Flow
from vaeport.mapping.trace import trace
from vaeport.port.flows import native_flow, shapes_of
from vaeport.vae import VAE


class Run(nn.Module):
    """Weights of the given shapes, or layers, and what is computed with them: run(module, x)."""

    def __init__(self, run: Callable[[Any, Tensor], Any], **parts: tuple[int, ...] | nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            if isinstance(part, nn.Module):
                self.add_module(name, part)
            else:
                self.register_parameter(name, nn.Parameter(torch.randn(part)))

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


def flow_of(module: nn.Module, *shape: int, device: str = "cpu", values: bool = False) -> Flow:
    """The flow of `module(x)` for a random x of this shape."""
    x = torch.randn(shape, device=device)
    return trace(module.to(device), calls={"encoded": ("media", x, lambda t: [module(t)])}, values=values)


def edges(flow: Flow) -> set[tuple[str, Any, str, str]]:
    """(key or input that data comes from, output channels, "softmax" or "", key of the reader), outputs included."""
    rows = [(source, use.keys[0]) for use in flow.uses for source in use.inputs]
    rows += [(source, name) for name, sources in flow.outputs.items() for source in sources]
    return {
        (s.use if isinstance(s.use, str) else flow.uses[s.use].keys[0], s.part, "softmax" * s.softmax, reader)
        for s, reader in rows
    }


def operands(flow: Flow) -> list[list[tuple[str, tuple[str, ...], tuple[int, ...]]]]:
    """(kind, keys, shape) of each operand, use by use."""
    return [[(o.kind, o.keys, o.shape) for o in use.operands] for use in flow.uses]


def native(name: str) -> tuple[VAE, Flow]:
    """A narrow native model on the meta device, with its flow."""
    vae = on_meta(*MODELS[name])
    return vae, native_flow(vae, *shapes_of(vae.contract))


def foreign(name: str, device: str = "meta", change: Callable[[Any], Any] = lambda module: None) -> Flow:
    """The flow of Diffusers' model of the same config; `change` alters it before."""
    model, arch = MODELS[name]
    media, latent = shapes_of(model.contract_of(arch))
    with torch.device(device):
        theirs = reference(arch)
        change(theirs)
        x, z = torch.zeros(media), torch.zeros(latent)
    calls: dict[str, Any] = {
        "encoded": ("media", x, lambda t: theirs.encode(t).latent_dist.parameters),
        "decoded": ("latent", z, lambda t: theirs.decode(t).sample),
    }
    return trace(theirs, calls=calls)


def graphs(name: str, change: Callable[[Any], Any] = lambda module: None) -> tuple[Graph, Graph]:
    """Native and Diffusers' graph."""
    return Graph.of(native(name)[1]), Graph.of(foreign(name, change=change))
