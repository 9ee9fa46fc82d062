"""Edits that give a module another formula: that of a word of `vaeport.layers`, on the module's own weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from torch import nn

import vaeport.layers as layers
from vaeport.drift.edits.edit import Edit, Scope, Undo
from vaeport.layers import Layer, PerFrame

_IDEAS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("GroupNorm", "ChannelRMSNorm", "PixelNorm", "ChannelLayerNorm"), "norm formula"),
        **dict.fromkeys(("SplitFirst", "DropFrames"), "first frame"),
        **dict.fromkeys(("RepeatChannels", "TileChannels"), "repeat order"),
        **dict.fromkeys(("Shuffle", "Unshuffle", "ChannelsToTime"), "shuffle order"),
        **dict.fromkeys(("SelfAttention", "FrameCausalAttention"), "attention formula"),
        **dict.fromkeys(("Conv", "WeightNormConv", "WeightNormConvTranspose1d"), "convolution formula"),
        "NearestUpsample": "upsample mode",
        "Pad": "padding mode",
        "Snake": "snake formula",
        "SiLU": "activation",
        "Add": "residual missing",
        "PerFrame": "attention axis",
        "GroupMean": "channel order",
        "Modulation": "modulation",
        "SpatialNoise": "noise",
        "TimestepEmbedding": "timestep embedding",
        "SharedLogvar": "moments order",
        "Linear": "linear map",
    }
)
"""Word -> what is wrong where its formula is missing."""


def word_edits(scope: Scope) -> Iterator[Edit]:
    """Each module as each word that could read its weights and constants; and frame by frame, or not."""
    words = [w for w in vars(layers).values() if isinstance(w, type) and issubclass(w, nn.Module) and w is not Layer]
    for path, module in scope.own():
        if not path:
            continue
        for word in (*words, nn.Linear):
            if word is not type(module) and "forward" in vars(word):
                change = f"it should be computed as {word.__name__} is"
                yield Edit(_IDEAS.get(word.__name__, "layer kind"), change, path, _as(path, word))
        yield Edit("attention axis", "it should be computed frame by frame", path, _per_frame(path))


def _as(path: str, word: type[nn.Module]) -> Callable[[nn.Module], Undo]:
    def apply(model: nn.Module) -> Undo:
        module = model.get_submodule(path)
        before = module.__class__
        module.__class__ = word
        return lambda: setattr(module, "__class__", before)

    return apply


def _per_frame(path: str) -> Callable[[nn.Module], Undo]:
    def apply(model: nn.Module) -> Undo:
        parent, _, name = path.rpartition(".")
        table = model.get_submodule(parent)._modules
        inner = table[name]
        assert isinstance(inner, Layer)
        table[name] = PerFrame(inner)
        return lambda: table.__setitem__(name, inner)

    return apply
