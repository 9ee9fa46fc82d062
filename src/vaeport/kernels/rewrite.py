"""`faster`: a copy of a layer tree in which layers that follow each other run by the operators of this package.

The copy has the same combinators and parameters and obeys the same contract, so streams, bands and shards are as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from typing import Any, Literal

from torch import Tensor

from vaeport.kernels.attention import fast_attention
from vaeport.kernels.conv import FastConv, RepeatingConv, UpsampledConv
from vaeport.kernels.cpu import CausalConv, SummedRMSNorm
from vaeport.kernels.folded_upsample import FoldedUpsample
from vaeport.kernels.moved import FastEdges, ShuffledChannels, UnshuffledChannels
from vaeport.kernels.norm import FastGroupNorm, FastNorm
from vaeport.kernels.single_frame import SingleFrame
from vaeport.kernels.waveform import FastSnake, FastWaveConv, FastWaveUp
from vaeport.kernels.winograd import MinimalConv
from vaeport.layers import (
    Chain,
    ChannelRMSNorm,
    Conv,
    GroupNorm,
    Layer,
    NearestUpsample,
    Pad,
    PixelNorm,
    SelfAttention,
    SiLU,
    Snake,
)

Found = tuple[int, list[Layer]]
"""How many layers a rule replaces, and by which"""
Rule = Callable[[Sequence[Layer]], Found | None]
"""Looks at the beginning of a row of layers"""


class NormThenEdges(Chain):
    """A group norm, and the edges that a convolution behind it sees, in one pass where nothing cuts between them."""

    opens = False

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, *axes] -> with edges."""
        norm, edges = self.layers
        if isinstance(norm, FastGroupNorm) and isinstance(edges, Pad):
            return norm.with_edges(x, edges)
        return super().forward(x)  # of a shard


def faster(layer: Layer, way: Literal["cpu", "hopper"]) -> Layer:
    """The copy, for a CPU in float32 or for Hopper in a 16-bit type; the layer itself where no rule fits."""
    return _faster(layer, _RULES[way])


def _faster(layer: Layer, rules: Sequence[Rule]) -> Layer:
    if isinstance(layer, Chain):
        return _chain(layer, rules)
    if found := _applied([layer], rules):
        (only,) = found[1] if len(found[1]) == 1 else [Chain(*found[1])]
        return only
    children = {name: _faster(child, rules) for name, child in layer.named_children() if isinstance(child, Layer)}
    return _with(layer, children)


def _chain(chain: Chain, rules: Sequence[Rule]) -> Layer:
    """Rules see the layers of inner chains as one row; what they replace leaves the first one's place."""
    row = list(_row(chain, ""))
    made: dict[str, Layer | None] = {}
    i = 0
    while i < len(row):
        found = _applied([layer for _, layer in row[i:]], rules)
        if found is None:
            made[row[i][0]] = _faster(row[i][1], rules)
            i += 1
            continue
        count, new = found
        for k in range(count):
            made[row[i + k][0]] = new[k] if k < len(new) else None
        i += count
    return _rebuilt(chain, "", made)


def _row(chain: Chain, prefix: str) -> Iterator[tuple[str, Layer]]:
    for name, child in _members(chain):
        if isinstance(child, Chain):
            yield from _row(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", child


def _rebuilt(chain: Chain, prefix: str, made: dict[str, Layer | None]) -> Chain:
    twin = copy(chain)
    twin._modules = dict(chain._modules)
    for name, child in _members(chain):
        if isinstance(child, Chain):
            twin._modules[name] = _rebuilt(child, f"{prefix}{name}.", made)
        elif (new := made[f"{prefix}{name}"]) is not None:
            twin._modules[name] = new
        else:
            del twin._modules[name]
    return twin


def _members(chain: Chain) -> list[tuple[str, Layer]]:
    """The layers of a chain by name; what else a chain may hold is none of its row."""
    inside = {id(layer) for layer in chain.layers}
    return [(name, child) for name, child in chain._modules.items() if isinstance(child, Layer) and id(child) in inside]


def _with(layer: Layer, children: dict[str, Layer]) -> Layer:
    if all(child is layer._modules[name] for name, child in children.items()):
        return layer
    twin = copy(layer)
    twin._modules = {**layer._modules, **children}
    return twin


def _applied(layers: Sequence[Layer], rules: Sequence[Rule]) -> Found | None:
    return next((found for rule in rules if (found := rule(layers)) is not None), None)


def _norm(layers: Sequence[Layer]) -> Found | None:
    """A norm, the activation behind it, and the edges behind both."""
    norm = layers[0]
    if not isinstance(norm, ChannelRMSNorm | PixelNorm | GroupNorm) or not _serves(norm):
        return None
    count = 2 if len(layers) > 1 and type(layers[1]) is SiLU else 1
    pads, time, space = _edges(layers[count:])
    if isinstance(norm, GroupNorm):
        fast: Layer = FastGroupNorm(norm, count == 2)
        if space is not None:
            fast = NormThenEdges(norm=fast, edges=FastEdges.of(space))
    else:
        fast = FastNorm(norm, count == 2, space)
    if space is None:
        return count, [fast]
    if time is None:
        return count + pads, [fast]
    behind, new = _repeating(time, layers[count + pads :]) or (0, [FastEdges.of(time)])
    return count + pads + behind, [fast, *new]


def _serves(norm: Layer) -> bool:
    """Groups of powers of two, as kernels are laid out."""
    if not isinstance(norm, GroupNorm):
        return True
    return all(n & (n - 1) == 0 for n in (norm.groups, norm.weight.numel()))


def _edges(layers: Sequence[Layer]) -> tuple[int, Pad | None, Pad | None]:
    """How many pads lead the row, and those in time and in space."""
    time: Pad | None = None
    space: Pad | None = None
    count = 0
    for layer in layers:
        if type(layer) is not Pad or layer.mode == "constant":
            break
        in_time = len(layer.pads) == 3 and any(layer.pads[0])
        in_space = any(any(side) for side in layer.pads[-2:])
        if (in_time and (time is not None or layer.mode != "replicate")) or (in_space and space is not None):
            break
        if in_time:
            time = Pad("replicate", (layer.pads[0], (0, 0), (0, 0)))
        if in_space:
            space = Pad(layer.mode, (*((0, 0),) * (len(layer.pads) - 2), *layer.pads[-2:]))
        count += 1
    return count, time, space


def _convolution(layers: Sequence[Layer]) -> Found | None:
    """A convolution, and what makes positions of its channels."""
    conv = layers[0] if layers else None
    if not isinstance(conv, Conv) or not FastConv.serves(conv):
        return None
    if len(layers) > 1 and FastConv.joins(conv, layers[1]):
        return 2, [FastConv.of(conv, layers[1])]
    return 1, [FastConv.of(conv)]


def _repeating(time: Pad, layers: Sequence[Layer]) -> Found | None:
    """The convolution at the beginning of the row, which repeats frames itself."""
    found = _convolution(layers)
    if found is None:
        return None
    count, (conv,) = found
    assert isinstance(conv, FastConv)
    fits = len(conv.kernel) == 3 and conv.pad[0] == (0, 0)
    return (count, [RepeatingConv(time, conv)]) if fits else None


def _repeated(layers: Sequence[Layer]) -> Found | None:
    """Frames that are repeated in front of a convolution, and edges in front of one."""
    pads, time, space = _edges(layers)
    if not pads:
        return None
    count, new = (time and _repeating(time, layers[pads:])) or (0, [] if time is None else [FastEdges.of(time)])
    return pads + count, [*([] if space is None else [FastEdges.of(space)]), *new]


def _upsampled(layers: Sequence[Layer]) -> Found | None:
    """Repeated positions, of which a convolution sees few that differ."""
    for count in (2, 3):
        if len(layers) >= count and (found := UpsampledConv.of(list(layers[:count]))) is not None:
            return count, [found]
    return None


def _moved(layers: Sequence[Layer]) -> Found | None:
    """Channels to positions or back, between changes of their number that have no parameters."""
    found = ShuffledChannels.of(layers) or UnshuffledChannels.of(layers)
    return None if found is None else (found[0], [found[1]])


def _attention(layers: Sequence[Layer]) -> Found | None:
    attention = layers[0]
    return (1, [fast_attention(attention)]) if isinstance(attention, SelfAttention) else None


def _one(*kinds: Any) -> Rule:
    """A layer by the first of these classes that serves it."""

    def rule(layers: Sequence[Layer]) -> Found | None:
        kind = next((kind for kind in kinds if kind.serves(layers[0])), None)
        return None if kind is None else (1, [kind.of(layers[0])])

    return rule


def _snake(layers: Sequence[Layer]) -> Found | None:
    return (1, [FastSnake.of(layers[0])]) if type(layers[0]) is Snake else None


def _folded(layers: Sequence[Layer]) -> Found | None:
    if len(layers) < 2 or not FoldedUpsample.serves(layers[0], layers[1]):
        return None
    assert isinstance(layers[0], NearestUpsample)
    assert isinstance(layers[1], Conv)
    return 2, [FoldedUpsample.of(layers[0], layers[1])]


_RULES: dict[str, tuple[Rule, ...]] = {
    "hopper": (_norm, _upsampled, _repeated, _convolution, _moved, _attention, _snake, _one(FastWaveConv, FastWaveUp)),
    "cpu": (_folded, _one(CausalConv, SingleFrame, MinimalConv, SummedRMSNorm)),
}
