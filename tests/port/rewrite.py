"""How a reference becomes a scrambled module.

Its composite modules become hidden frames: they run their own code, but their children are plain attributes that refer
to rewritten parts, which are registered in a tree that is made anew.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from diffusers.models.attention_processor import Attention
from diffusers.models.autoencoders.autoencoder_kl_wan import WanAttentionBlock, WanCausalConv3d, WanRMS_norm
from diffusers.models.autoencoders.autoencoder_oobleck import Snake1d
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from tests.port.leaves import OPERATIONS, Names
from tests.port.runs import InOrder, Node
from tests.port.substitutes import Substitutes

LEAVES = (*OPERATIONS, WanCausalConv3d, nn.Linear, nn.GroupNorm, WanRMS_norm, Snake1d)
ATTENTIONS = (Attention, WanAttentionBlock)


def refuse_unknown(module: nn.Module) -> None:
    """Raises TypeError for modules that may compute something else than what would take their place."""
    for name, child in module.named_modules():
        kind = type(child).__base__ if is_parametrized(child) else type(child)
        own = next(child.parameters(recurse=False), None) is not None and "parametrizations" not in name
        if (
            (own and kind not in LEAVES)
            or (isinstance(child, ATTENTIONS) and kind not in ATTENTIONS)
            or getattr(child, "padding_mode", "zeros") != "zeros"
            or not getattr(child, "channel_first", True)
            or not getattr(child, "residual_connection", True)
            or {getattr(child, "heads", 1), getattr(child, "rescale_output_factor", 1)} != {1}
        ):
            raise TypeError(f"{name} is a {kind.__name__} as this tool does not know it")


class Rewriter:
    """Rewrites the modules of one reference, with choices drawn from `rng`."""

    def __init__(self, rng: Random, names: Names, hard: bool) -> None:
        self.rng, self.names = rng, names
        self.made = Substitutes(rng, names, hard)

    def adopt(self, parent: nn.Module, parts: list[nn.Module]) -> None:
        """Registers parts in random order, some of them in a group of their own."""
        parts = self.rng.sample(parts, len(parts))
        if len(parts) > 2 and self.rng.random() < 0.5:
            cut = self.rng.randint(1, len(parts) - 1)
            group = nn.Module()
            self.adopt(group, parts[:cut])
            parts = self.rng.sample(rest := [group, *parts[cut:]], len(rest))
        for part in parts:
            parent.add_module(self.names(), part)

    def frame(self, module: nn.Module, name: str) -> list[nn.Module]:
        """Makes the children plain attributes that refer to rewritten parts; the parts, to be registered."""
        parts: list[nn.Module] = []
        for child, value in list(module._modules.items()):
            if value is not None:
                del module._modules[child]
                module.__dict__[child], more = self.rewrite(value, f"{name}{child}.")
                parts += more
        return parts

    def rewrite(self, module: Any, name: str) -> tuple[Any, list[nn.Module]]:
        """What takes the module's place in its parent's code, and the parts of it that are to be registered."""
        if next(module.parameters(), None) is None:
            return module, []
        if isinstance(module, nn.ModuleList | nn.Sequential):
            pairs = [self.rewrite(child, f"{name}{key}.") for key, child in module.named_children()]
            steps, parts = [new for new, _ in pairs], [part for _, more in pairs for part in more]
            return (steps if isinstance(module, nn.ModuleList) else InOrder(steps)), parts
        if isinstance(module, ATTENTIONS):
            return self.node(*self.made.attention(module, name))
        if isinstance(module, LEAVES):
            leaf = self.made.leaf(module, name)
            return leaf, [leaf]
        return self.node(module.forward, self.frame(module, name))

    def node(self, run: Callable[..., Any], parts: list[nn.Module]) -> tuple[Node, list[nn.Module]]:
        node = Node(run)
        self.adopt(node, parts)
        return node, [node]
