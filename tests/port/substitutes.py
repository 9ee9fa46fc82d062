"""What takes the place of a reference's parameterised modules, and a record of where each parameter went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import WanAttentionBlock, WanCausalConv3d, WanRMS_norm
from diffusers.models.autoencoders.autoencoder_oobleck import Snake1d
from torch import Tensor, nn

from tests.port.leaves import (
    Convolution,
    GroupNorm,
    Leaf,
    Names,
    NormedConvolution,
    NormedLinear,
    Pointwise,
    RMSNorm,
    Snake,
)
from tests.port.runs import Attend

WEIGHT_NORMS = (
    ("weight_g", "weight_v"),
    ("parametrizations.weight.original0", "parametrizations.weight.original1"),
)
Rows = tuple[int, int]
"""first and one past the last, of the output channels; None instead for all"""


@dataclass(frozen=True)
class Pair:
    """Rows of a reference's parameter and the same numbers in the scrambled module, in another shape.

    original[rows] has the elements of (scrambled.T if transposed else scrambled)[scrambled_rows], in the same order.
    """

    original: str
    rows: Rows | None
    scrambled: str
    scrambled_rows: Rows | None
    transposed: bool


@dataclass
class Substitutes:
    """Makes them, with choices drawn from `rng`."""

    rng: Random
    names: Names
    hard: bool
    found: list[tuple[str, Rows | None, Leaf, int, Rows | None]] = field(default_factory=list)
    """original key, its rows, leaf, role in the leaf, rows there"""

    def truth(self, root: nn.Module) -> tuple[Pair, ...]:
        """What was found, with the keys that the leaves have in `root`."""
        paths = {id(module): name for name, module in root.named_modules()}
        return tuple(
            Pair(key, rows, f"{paths[id(leaf)]}.{leaf.roles[role]}", there, leaf.transposed(role))
            for key, rows, leaf, role, there in self.found
        )

    def kept(self, leaf: Leaf, *keys: str) -> Any:
        """The leaf, with the whole of each parameter noted under its key in the reference."""
        for role, (key, tensor) in enumerate(zip(keys, leaf.tensors(), strict=True)):
            if tensor is not None:
                self.found.append((key, None, leaf, role, None))
        return leaf

    def attention(self, module: Any, name: str) -> tuple[Attend, list[nn.Module]]:
        order = self.rng.sample(range(3), 3)
        if isinstance(module, WanAttentionBlock):
            norm, out, out_name = self.leaf(module.norm, f"{name}norm."), module.proj, f"{name}proj."
            project = [self.third(module.to_qkv, f"{name}to_qkv.", which) for which in order]
        else:
            norm, out, out_name = (
                self.leaf(module.group_norm, f"{name}group_norm."),
                module.to_out[0],
                f"{name}to_out.0.",
            )
            project = [self.fused([getattr(module, f"to_{'qkv'[i]}") for i in order], name, order)]
        last = self.kept(self.pointwise(out, -1), f"{out_name}weight", f"{out_name}bias")
        return Attend(norm, project, order, last, self.hard), [norm, *project, last]

    def third(self, conv: Any, name: str, which: int) -> Pointwise:
        """The rows of q, k or v of a fused projection."""
        n = conv.out_channels // 3
        rows = (which * n, which * n + n)
        part = Pointwise(self.names, conv.weight[slice(*rows)], conv.bias[slice(*rows)], self.form(conv), -1)
        self.found += [(f"{name}{key}", rows, part, role, None) for role, key in enumerate(("weight", "bias"))]
        return part

    def fused(self, linears: Sequence[nn.Linear], name: str, order: Sequence[int]) -> Pointwise:
        """Three projections as one."""
        weight, bias = (torch.cat([getattr(m, key) for m in linears]) for key in ("weight", "bias"))
        whole, n = Pointwise(self.names, weight, bias, self.form(linears[0]), -1), linears[0].out_features
        for i, which in enumerate(order):
            for role, key in enumerate(("weight", "bias")):
                self.found.append((f"{name}to_{'qkv'[which]}.{key}", None, whole, role, (i * n, i * n + n)))
        return whole

    def form(self, module: nn.Module) -> str:
        """Another form than it has: convolutions become linear, linear ones convolutions."""
        if isinstance(module, nn.Linear):
            return self.rng.choice(("conv1d", "conv2d", "matmul") if self.hard else ("conv1d", "conv2d"))
        return self.rng.choice(("linear", "matmul"))

    def pointwise(self, module: Any, axis: int) -> Pointwise:
        return Pointwise(self.names, module.weight, module.bias, self.form(module), axis)

    def gain(self, tensor: Tensor) -> Tensor:
        """In hard mode with other unit axes: none, or for a plain vector two."""
        if not self.hard:
            return tensor
        return tensor[:, None, None] if tensor.dim() == 1 else tensor.flatten()

    def leaf(self, module: Any, name: str) -> Any:
        if isinstance(module, nn.GroupNorm):
            norm = GroupNorm(self.names, module, self.gain(module.weight), self.gain(module.bias))
            return self.kept(norm, f"{name}weight", f"{name}bias")
        if isinstance(module, WanRMS_norm):
            return self.kept(RMSNorm(self.names, self.gain(module.gamma)), f"{name}gamma")
        if isinstance(module, Snake1d):
            return self.kept(
                Snake(self.names, self.gain(module.alpha), self.gain(module.beta)), f"{name}alpha", f"{name}beta"
            )
        if isinstance(module, nn.Linear):
            return self.kept(self.pointwise(module, -1), f"{name}weight", f"{name}bias")
        return self.convolution(module, name)

    def convolution(self, module: Any, name: str) -> Any:
        one = set(module.kernel_size) == set(module.stride) == {module.groups} == {1} and not any(module.padding)
        values = dict(module.named_parameters())
        for g, v in WEIGHT_NORMS:
            if g in values:
                size, direction = self.gain(values[g]), values[v].flatten(1) if one else values[v]
                kind = NormedLinear if one else NormedConvolution
                conv = kind(self.names, module, size, direction, module.bias)
                conv.plain = self.hard
                return self.kept(conv, f"{name}{g}", f"{name}{v}", f"{name}bias")
        if one:
            return self.kept(self.pointwise(module, 1), f"{name}weight", f"{name}bias")
        causal = module._padding if isinstance(module, WanCausalConv3d) else None
        leaf = Convolution(self.names, module, module.weight, module.bias, causal=causal)
        return self.kept(leaf, f"{name}weight", f"{name}bias")
