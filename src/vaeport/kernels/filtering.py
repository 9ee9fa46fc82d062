"""Minimal filtering of three taps g: fewer products than taps times outputs, for neighbouring outputs y of inputs d.

    PAIRS, F(2, 3)      four products instead of six
    QUADS, F(4, 3)      six instead of twelve, by the points 0, 1, -1, 1/2 and -2

Product i is a convolution over the other axes, of a sum of inputs with a sum of taps. Rounding errors of a pair are
those of the plain sum or less; a quad's are two to three times as large, and a tenth larger behind a whole decoder.

Source: Lavin and Gray, arXiv 1509.09308; on the choice of points Barabasz et al., arXiv 1803.10986.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Product = Callable[..., Tensor]
"""number of a product, sum of inputs, whether the bias is added -> what it gives, a new tensor"""


@dataclass(frozen=True)
class Scheme:
    """How `size` outputs come about.

    filters     weight [O, C, 3, *kernel] -> sums of its taps, one for each product: [O, C, *kernel]
    outputs     the inputs under d[0] .. d[size + 1], written into y[0] .. y[size - 1]; d stays as it is
    """

    size: int
    filters: Callable[[Tensor], tuple[Tensor, ...]]
    outputs: Callable[[Sequence[Tensor], Product, Sequence[Tensor]], Any]


def _pair_filters(weight: Tensor) -> tuple[Tensor, ...]:
    g0, g1, g2 = weight.double().unbind(2)
    return _rounded(weight, g0, (g0 + g1 + g2) / 2, (g0 - g1 + g2) / 2, g2)


def _pairs(d: Sequence[Tensor], product: Product, y: Sequence[Tensor]) -> None:
    v = d[0].new_empty(d[0].shape)
    p1 = product(1, torch.add(d[1], d[2], out=v), True)
    p2 = product(2, torch.sub(d[2], d[1], out=v))
    torch.add(product(0, torch.sub(d[0], d[2], out=v)).add_(p1), p2, out=y[0])
    torch.sub(p1.sub_(p2), product(3, torch.sub(d[1], d[3], out=v)), out=y[1])


def _quad_filters(weight: Tensor) -> tuple[Tensor, ...]:
    g0, g1, g2 = weight.double().unbind(2)
    half, twice = 4 * g0 + 2 * g1 + g2, g0 - 2 * g1 + 4 * g2
    return _rounded(weight, g0, (g0 + g1 + g2) / 3, (g0 - g1 + g2) / -3, half * (-4 / 15), twice / 15, g2)


def _quads(d: Sequence[Tensor], product: Product, y: Sequence[Tensor]) -> None:
    v = d[0].new_empty(d[0].shape)
    e1, e2 = d[3] - d[1], d[4] - d[2]
    q1, q2 = torch.add(e1, d[2], alpha=1.5), torch.add(e2, d[3], alpha=1.5)
    p1, p2 = product(1, torch.add(q2, q1, out=v), True), product(2, torch.sub(q2, q1, out=v))
    del q1
    p3, p4 = (product(i, torch.add(e2, e1, alpha=a, out=v)) for i, a in ((3, 2.0), (4, -0.5)))
    p0 = product(0, torch.add(e2, e1, alpha=1.5, out=v).add_(d[0]).sub_(d[2]))
    p5 = product(5, torch.add(d[5], e2, alpha=1.5, out=v).sub_(d[3]).sub_(e1))
    del e1, e2, q2, v
    even, odd = p1 + p2, p1.sub_(p2)
    torch.add(p0.add_(even).add_(p3), p4, out=y[0])
    torch.add(torch.add(odd, p3, alpha=0.5, out=p2), p4, alpha=-2, out=y[1])
    torch.add(even.add_(p3, alpha=0.25), p4, alpha=4, out=y[2])
    torch.add(p5.add_(odd).add_(p3, alpha=0.125), p4, alpha=-8, out=y[3])


def _rounded(weight: Tensor, *sums: Tensor) -> tuple[Tensor, ...]:
    return tuple(g.to(weight.dtype).contiguous() for g in sums)


PAIRS, QUADS = Scheme(2, _pair_filters, _pairs), Scheme(4, _quad_filters, _quads)
