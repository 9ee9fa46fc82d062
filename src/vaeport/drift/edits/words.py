"""Edits that give a module another formula: that of a word of `vaeport.layers`, on the module's own weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

import vaeport.layers as layers
from vaeport.drift.edits.edit import Edit, Scope, putting, recast
from vaeport.drift.edits.fits import close
from vaeport.layers import Barrier, Conv, Layer, PerFrame, WeightNormConv, WeightNormConvTranspose1d

_IDEAS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("GroupNorm", "ChannelRMSNorm", "PixelNorm", "ChannelLayerNorm"), "norm formula"),
        **dict.fromkeys(("SplitFirst", "DropFrames"), "first frame"),
        **dict.fromkeys(("RepeatChannels", "TileChannels"), "repeat order"),
        **dict.fromkeys(("Shuffle", "Unshuffle", "ChannelsToTime"), "shuffle order"),
        **dict.fromkeys(("SelfAttention", "FrameCausalAttention"), "attention formula"),
        **dict.fromkeys(("WeightNormConv", "WeightNormConvTranspose1d"), "weight norm"),
        "Conv": "convolution formula",
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
_CONVOLUTIONS = (Conv, WeightNormConv, WeightNormConvTranspose1d)


def word_edits(scope: Scope) -> Iterator[Edit]:
    """Each module as each word that could read its weights and constants; and frame by frame, or not."""
    words = [w for w in vars(layers).values() if isinstance(w, type) and issubclass(w, nn.Module)]
    at_edges = scope.found is not None and scope.wanted is not None and differs_at_edges(scope.found, scope.wanted)
    for path, module in scope.own():
        if not path:
            continue
        for word in (*words, nn.Linear):
            if word not in (type(module), Layer, Barrier):
                idea = _IDEAS.get(word.__name__, "layer kind")
                cause = "padding mode" if at_edges and word in _CONVOLUTIONS else idea
                yield Edit(cause, f"it should be computed as {word.__name__} is", path, recast(path, word))
        yield Edit("attention axis", "it should be computed frame by frame", path, putting(path, _per_frame))


def differs_at_edges(found: Tensor, wanted: Tensor) -> bool:
    """Both are equal but near the ends of their axes."""
    if found.shape != wanted.shape or found.dim() < 3:
        return False
    inner: Any = (..., *(slice(n // 3, n - n // 3) for n in found.shape[2:]))
    return close(found[inner], wanted[inner]) and not close(found, wanted)


def _per_frame(inner: nn.Module) -> nn.Module:
    assert isinstance(inner, Layer)
    return PerFrame(inner)
