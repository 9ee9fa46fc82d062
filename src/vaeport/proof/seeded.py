"""Checkpoints with seeded weights in published layouts: what stands in for files that cannot be downloaded."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from vaeport.configs import VAEArchConfig
from vaeport.mapping import Layout, plan
from vaeport.mapping.plan import Plan
from vaeport.proof.draw import draw_state
from vaeport.registry import Registration
from vaeport.runtime.reading import native_shapes

# Wan's output is clamped: a third of a unit-variance output would be cut off, and faults with it.
OUTPUT_GAIN = 0.5
# Neighbouring tokens are alike and would share their attention evenly, so that a fault in it moved nothing.
QUERY_GAIN = 2.0
# Residual branches without a norm would double the activations, unit after unit.
BRANCH_GAIN = 0.25


def gains(mapped: Plan, *, clamped: bool) -> dict[str, float]:
    """Stored key -> factor on its drawn weights, so that activations stay where faults can be seen."""
    by_ending = {"attention.qkv.weight": QUERY_GAIN, "main.conv2.weight_g": BRANCH_GAIN}
    if clamped:
        by_ending |= {"decoder.conv_out.weight": OUTPUT_GAIN, "decoder.conv_out.bias": OUTPUT_GAIN}
    return {k: g for s in mapped.steps for end, g in by_ending.items() if s.native.endswith(end) for k in s.stored}


def write_seeded(
    path: Path, registration: Registration, arch: VAEArchConfig, layout: Layout, prefix: str, seed: int
) -> Path:
    """Writes a `.safetensors` or `.pth` file in `layout`, every key behind `prefix`, at the full width of `arch`."""
    mapped = plan(layout, native_shapes(registration.model, arch))
    shapes = {block.key: s.stored_shape(block) for s in mapped.steps for block in s.blocks}
    clamped = registration.model.contract_of(arch).clamp is not None
    drawn = draw_state(shapes, seed, scale=gains(mapped, clamped=clamped))
    state = {prefix + key.removeprefix(mapped.prefix): tensor for key, tensor in drawn.items()}
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path
