"""Population (a): all kinds of faults, by name."""

from __future__ import annotations

from bench.drift import (
    kinds_activation,
    kinds_attention,
    kinds_condition,
    kinds_conv,
    kinds_latent,
    kinds_media,
    kinds_norm,
    kinds_structure,
    kinds_weight,
)
from bench.drift.sites import KINDS, Kind, Site

__all__ = ["FILES", "KINDS", "Kind", "Site"]

FILES = (
    kinds_latent,
    kinds_media,
    kinds_norm,
    kinds_conv,
    kinds_weight,
    kinds_activation,
    kinds_attention,
    kinds_structure,
    kinds_condition,
)
"""Those that enter their kinds."""
