"""What somebody leaves who runs a reference elsewhere: its activation trace, on inputs and weights that were given."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from tests import narrow
from vaeport.configs import VAEArchConfig
from vaeport.drift.activations import record
from vaeport.drift.fastvideo_trace import Record, write_trace


def left_by_diffusers(
    arch: VAEArchConfig, given: Path, trace: Path, dtype: torch.dtype = torch.float64, prefix: str = ""
) -> list[Record]:
    """Writes the trace of Diffusers' class in a type, made of the folder `given`."""
    theirs, inputs = narrow.reference(arch), load_file(given / "inputs.safetensors")
    theirs.load_state_dict(load_file(given / "weights.diffusers.safetensors"), strict=True)
    theirs = theirs.to(dtype)

    def run() -> None:
        theirs.encode(inputs["media"].to(dtype))
        theirs.decode(inputs["latent"].to(dtype))

    found = record(theirs, run)
    found = [Record(**{**vars(one), "module": prefix + one.module}) for one in found]
    write_trace(found, trace)
    return found
