"""Blended tiling as published code does it: approximate, off unless asked for, and equal to that code when on.

One tiler (`run`), driven by policies that state data (`policy`), found by a model's native name (`published`).
What is exact needs none of it: `vae.stream_encode` and `vae.stream_decode`.
"""

from vaeport.runtime.tiling.policy import Axes, Axis, Policy
from vaeport.runtime.tiling.published import tiling_names, tiling_policy
from vaeport.runtime.tiling.ramps import Ramps
from vaeport.runtime.tiling.run import run_tiled
from vaeport.runtime.tiling.tiled import TiledHalf, tiled
from vaeport.runtime.tiling.trapezoids import Trapezoids

__all__ = [
    "Axes",
    "Axis",
    "Policy",
    "Ramps",
    "TiledHalf",
    "Trapezoids",
    "run_tiled",
    "tiled",
    "tiling_names",
    "tiling_policy",
]
