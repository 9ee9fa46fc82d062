"""What the nodes of a scrambled module run where it is not the reference's own code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.port.leaves import Pointwise


class Node(nn.Module):
    """A module that runs what it was given."""

    def __init__(self, run: Callable[..., Any]) -> None:
        super().__init__()
        self.run = run

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.run(*args, **kwargs)


@dataclass
class Attend:
    """Attention of one head over the positions of each image or frame, inside a residual."""

    norm: Callable[[Tensor], Tensor]
    project: Sequence[Pointwise]
    order: Sequence[int]
    out: Pointwise
    hard: bool

    def __call__(self, x: Tensor, **_: Any) -> Tensor:
        frames = x.transpose(1, 2).flatten(0, 1) if x.dim() == 5 else x
        tokens = self.norm(frames).flatten(2).transpose(1, 2)
        parts = [part for project in self.project for part in project(tokens).chunk(3 // len(self.project), -1)]
        q, k, v = (parts[self.order.index(i)] for i in range(3))
        if self.hard:
            y = torch.bmm(torch.bmm(q, k.transpose(1, 2)).mul(q.shape[-1] ** -0.5).softmax(-1), v)
        else:
            y = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        y = self.out(y).transpose(1, 2).reshape(frames.shape)
        return x + (y.unflatten(0, (x.shape[0], -1)).transpose(1, 2) if x.dim() == 5 else y)


@dataclass
class InOrder:
    steps: Sequence[Callable[[Tensor], Tensor]]

    def __call__(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(x)
        return x
