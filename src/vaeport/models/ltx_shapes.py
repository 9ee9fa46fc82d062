"""The levels of LTX-Video's and LTX-2's VAEs, read off the shapes of their weights."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

from vaeport.configs import WeightShapes
from vaeport.models.ltx_tables import FACTORS, Down, Up

KINDS = {factors: kind for kind, factors in FACTORS.items() if kind != "conv"}
_BY_SIZE = {prod(factors): factors for factors in KINDS}
_CONV = "main.conv1.conv.weight"
PATCH = 16
"""Pixels of a patch, which no shape shows."""


def read_ends(weights: WeightShapes) -> Iterator[tuple[str, Any]]:
    """Channels of pixels and latents."""
    image = weights.size("encoder.conv_in.conv.weight", 1) or weights.size("decoder.conv_out.conv.weight", 0)
    yield "in_channels", image // PATCH
    yield "out_channels", image // PATCH
    moments = weights.size("encoder.conv_out.conv.weight", 0)
    yield "latent_channels", moments - 1 if moments else weights.size("decoder.conv_in.conv.weight", 1)


def read_downs(weights: WeightShapes) -> list[Down]:
    """The encoder's levels, the middle last; none without an encoder."""
    found: list[Down] = []
    while width := weights.size(f"encoder.levels.{len(found)}.blocks.0.{_CONV}", 0):
        level = f"encoder.levels.{len(found)}"
        folded = weights.size(f"{level}.down.sum.main.conv.conv.weight", 0)
        strided = not folded and weights.size(f"{level}.down.conv.weight", 0)
        if found and found[-1].folded and not folded:
            # in the official list of blocks the middle follows the last way as a level would
            break
        after = weights.size(f"encoder.levels.{len(found) + 1}.blocks.0.{_CONV}", 0)
        after = after or weights.size(f"encoder.middle.blocks.0.{_CONV}", 0)
        way = _BY_SIZE.get(after // folded) if folded else FACTORS["conv"] if strided else None
        found.append(Down(width, weights.count(f"{level}.blocks.{{}}.{_CONV}"), way, bool(folded)))
    middle = weights.size(f"encoder.middle.blocks.0.{_CONV}", 0)
    blocks = weights.count(f"encoder.middle.blocks.{{}}.{_CONV}")
    return [*found, Down(middle, blocks, None)] if found else []


def read_ups(weights: WeightShapes) -> list[Up]:
    """The decoder's levels, the middle first; none without a decoder. Whether a way is residual is not shown."""
    found = [_up(weights, "decoder.middle")]
    while weights.size(f"decoder.levels.{len(found) - 1}.blocks.0.{_CONV}", 0):
        found.append(_up(weights, f"decoder.levels.{len(found) - 1}"))
    return found if len(found) > 1 else []


def _up(weights: WeightShapes, level: str) -> Up:
    width = weights.size(f"{level}.blocks.0.{_CONV}", 0)
    way = weights.shape(f"{level}.up.sum.main.conv.conv.weight")
    blocks = weights.count(f"{level}.blocks.{{}}.{_CONV}")
    noise = bool(weights.has(f"{level}.blocks.0.main.noise1.scale"))
    if not way:
        return Up(width, blocks, noise=noise)
    return Up(width, blocks, _BY_SIZE.get(way[0] // width), way[1] // width, noise=noise)


def read_decoder(ups: list[Up]) -> Iterator[tuple[str, Any]]:
    """Lists of decoder levels that both architectures have."""
    yield "decoder_block_out_channels", tuple(up.width * up.reduction for up in ups[:0:-1])
    yield "decoder_layers_per_block", tuple(up.blocks for up in ups[::-1])
    yield "upsample_factor", tuple(up.reduction for up in ups[:0:-1])
