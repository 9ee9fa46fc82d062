"""Edits that give a module another formula: that of a word of `vaeport.layers`, on the module's own weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

import torch
from torch import Tensor, nn

import vaeport.layers as layers
from vaeport.drift.edits.edit import Edit, Scope, putting, recast
from vaeport.drift.edits.fits import differs_at_edges
from vaeport.drift.hidden import copied
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
    for path, module in scope.own():
        if not path:
            continue
        for word in (*words, nn.Linear):
            if word not in (type(module), Layer, Barrier):
                idea = _IDEAS.get(word.__name__, "layer kind")
                yield Edit(idea, f"it should be computed as {word.__name__} is", path, recast(path, word))
        yield Edit("attention axis", "it should be computed frame by frame", path, putting(path, _per_frame))


def renamed(edit: Edit, model: nn.Module, run: Callable[[], object]) -> Edit:
    """A convolution whose formula is changed near the ends of its axes alone pads otherwise."""
    if edit.cause not in {_IDEAS[word.__name__] for word in _CONVOLUTIONS}:
        return edit
    module, seen = model.get_submodule(edit.module), list[Tensor]()
    handle = module.register_forward_pre_hook(lambda m, args: seen.append(copied(args[0])))
    try:
        run()
    finally:
        handle.remove()
    if not seen:
        return edit
    # long enough for an inside that no end reaches
    least = 96 if seen[0].dim() == 3 else 16
    x = seen[0].repeat(1, 1, *(-(-least // n) for n in seen[0].shape[2:]))
    try:
        with torch.no_grad():
            before = module(x)
            with edit.applied(model):
                after = module(x)
    except Exception:  # it runs on nothing else than what it was given
        return edit
    if not differs_at_edges(before, after):
        return edit
    return replace(edit, cause="padding mode", change=f"{edit.change}, which pads otherwise")


def _per_frame(inner: nn.Module) -> nn.Module:
    assert isinstance(inner, Layer)
    return PerFrame(inner)
