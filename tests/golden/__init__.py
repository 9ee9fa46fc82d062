"""Captured outputs of official code, with provenance; see README.md."""

from .load import Golden, golden_names, load_golden, subsample

__all__ = ["Golden", "golden_names", "load_golden", "subsample"]
