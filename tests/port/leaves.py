"""Parameterised operations whose parameters have random names: what a scrambled module is made of.

Each holds its parameters in an order of its own and computes with them at the call, so that whatever replaces a
parameter (`load_state_dict(assign=True)`, `functional_call`) is seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

OPERATIONS: dict[type[nn.Module], Callable[..., Tensor]] = {
    nn.Conv1d: F.conv1d,
    nn.Conv2d: F.conv2d,
    nn.Conv3d: F.conv3d,
    nn.ConvTranspose1d: F.conv_transpose1d,
}
HALF = (torch.float16, torch.bfloat16)


@dataclass
class Names:
    """Words drawn from `rng`, none of them twice, none in `taken`."""

    rng: Random
    taken: set[str]

    def __call__(self) -> str:
        while True:
            word = "".join(self.rng.choices("bcdfghjklmnpqrstvwxz", k=self.rng.randint(2, 6)))
            if word not in self.taken and not hasattr(nn.Module, word):
                self.taken.add(word)
                return word


class Leaf(nn.Module):
    """Parameters under random names, registered in random order; `roles` has the names in the order of use."""

    def __init__(self, names: Names, *tensors: Tensor | None) -> None:
        super().__init__()
        self.roles = tuple(names() for _ in tensors)
        for key, tensor in names.rng.sample(list(zip(self.roles, tensors, strict=True)), len(tensors)):
            self.register_parameter(key, None if tensor is None else nn.Parameter(tensor.detach().clone()))

    def tensors(self) -> list[Any]:
        """The parameters in the order of use."""
        return [getattr(self, key) for key in self.roles]

    def transposed(self, role: int) -> bool:
        """Whether a parameter is stored [in, out]."""
        return False


class Convolution(Leaf):
    """A convolution; `causal` is its padding in F.pad's order, of which frames handed over take the place."""

    def __init__(self, names: Names, conv: Any, *weight: Tensor | None, causal: tuple[int, ...] | None = None) -> None:
        super().__init__(names, *weight)
        self.operation = next(f for kind, f in OPERATIONS.items() if isinstance(conv, kind))
        self.options = {key: getattr(conv, key) for key in ("stride", "padding", "dilation", "groups")}
        if hasattr(conv, "output_padding") and isinstance(conv, nn.ConvTranspose1d):
            self.options["output_padding"] = conv.output_padding
        self.causal = causal

    def forward(self, x: Tensor, before: Tensor | None = None) -> Tensor:
        if self.causal is not None:
            *sides, front, back = self.causal
            if before is not None and front:
                x, front = torch.cat((before, x), 2), front - before.shape[2]
            x = F.pad(x, (*sides, front, back))
        *weight, bias = self.tensors()
        return self.operation(x, self.weight(*weight), bias, **self.options)

    def weight(self, *weight: Tensor) -> Tensor:
        """The weight of the operation."""
        return weight[0]


class NormedConvolution(Convolution):
    """A convolution under weight norm, its lengths and directions two parameters; `plain` is the norm written out."""

    plain = False

    def weight(self, *weight: Tensor) -> Tensor:
        size, direction = weight
        size = size.reshape(-1, *(1,) * (direction.dim() - 1))
        if self.plain:
            return direction * (size / direction.square().flatten(1).sum(1).sqrt().reshape(size.shape))
        return torch._weight_norm(direction, size, 0)


class NormedLinear(NormedConvolution):
    """A convolution of kernel 1 under weight norm, as a linear map."""

    def forward(self, x: Tensor) -> Tensor:
        *weight, bias = self.tensors()
        return F.linear(x.transpose(1, 2), self.weight(*weight), bias).transpose(1, 2).contiguous()


class Pointwise(Leaf):
    """A linear map of the channels on `axis`, as one of `FORMS`."""

    FORMS = ("linear", "matmul", "conv1d", "conv2d")

    def __init__(self, names: Names, weight: Tensor, bias: Tensor | None, form: str, axis: int) -> None:
        weight = weight.flatten(1)
        stored = {"linear": weight, "matmul": weight.T, "conv1d": weight[..., None], "conv2d": weight[..., None, None]}
        super().__init__(names, stored[form].contiguous(), bias)
        self.form, self.axis = form, axis

    def transposed(self, role: int) -> bool:
        return self.form == "matmul" and role == 0

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.tensors()
        if self.form == "linear":
            return F.linear(x.movedim(self.axis, -1), weight, bias).movedim(-1, self.axis).contiguous()
        if self.form == "matmul":
            y = x.movedim(self.axis, -1) @ weight
            return (y if bias is None else y + bias).movedim(-1, self.axis).contiguous()
        first = x.movedim(self.axis, 1)
        flat = first.flatten(2)
        y = F.conv1d(flat, weight, bias) if self.form == "conv1d" else F.conv2d(flat[..., None], weight, bias)[..., 0]
        return y.unflatten(2, first.shape[2:]).movedim(1, self.axis).contiguous()


class GroupNorm(Leaf):
    """Group norm; gains stored as [C, 1, 1] are applied outside of it."""

    def __init__(self, names: Names, norm: nn.GroupNorm, gain: Tensor, shift: Tensor) -> None:
        super().__init__(names, gain, shift)
        self.groups, self.eps = norm.num_groups, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        gain, shift = self.tensors()
        if gain.dim() == 1:
            return F.group_norm(x, self.groups, gain, shift, self.eps)
        return F.group_norm(x, self.groups, None, None, self.eps) * gain + shift


class RMSNorm(Leaf):
    """Channels scaled to the length sqrt(C) and by a gain; types of 16 bits are normalised in float32."""

    def forward(self, x: Tensor) -> Tensor:
        (gain,) = self.tensors()
        y = F.normalize(x.float() if x.dtype in HALF else x, dim=1).to(x.dtype)
        return y * x.shape[1] ** 0.5 * gain.reshape(-1, *(1,) * (x.dim() - 2))


class Snake(Leaf):
    """x + sin(a x)^2 / b, both stored as logarithms."""

    def forward(self, x: Tensor) -> Tensor:
        a, b = (t.reshape(-1, 1).exp() for t in self.tensors())
        return x + (b + 1e-9).reciprocal() * (a * x).sin().square()
