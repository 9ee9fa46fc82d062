"""Golden captures: what the official code computed, from which weights, and where that code comes from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from vaeport.errors import ProofError
from vaeport.proof.draw import draw_state

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Golden:
    """One capture of an official class at its published configuration, run in float64.

    `inputs` and `outputs` are float64 tensors named `<case>.<tensor>`; `taps` holds the `subsample` of activations,
    named `<case>.<path of the official module>`; `provenance` is described in README.md.
    """

    name: str
    inputs: dict[str, torch.Tensor]
    outputs: dict[str, torch.Tensor]
    taps: dict[str, torch.Tensor]
    provenance: dict[str, Any]

    def state(self, *, prefix: str = "") -> dict[str, torch.Tensor]:
        """Draw the official float32 state dict again, its keys behind `prefix`.

        Raises ProofError when this numpy draws other weights than those that the capture ran on.
        """
        weights = self.provenance["weights"]
        state = draw_state(weights["layout"], weights["seed"], scale=weights["scale"])
        if (found := fingerprint(state)) != weights["fingerprint"]:
            raise ProofError(
                "the weights drawn here are not those that the capture ran on",
                where=self.name,
                expected=weights["fingerprint"],
                found=found,
                fix="compare the numpy version with the provenance, and capture again",
            )
        return {prefix + key: value for key, value in state.items()}

    def published_state(self) -> dict[str, torch.Tensor]:
        """Draw the state dict under the keys of the published file."""
        return self.state(prefix=self.provenance["weights"]["key_prefix"])

    def rms(self, tap: str) -> float:
        """Root mean square of the whole activation that `tap` is a subsample of."""
        return float(self.provenance["taps"][tap]["rms"])


def golden_names() -> list[str]:
    """Names of all captures, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def load_golden(name: str) -> Golden:
    """Read one capture."""
    with safe_open(FOLDER / f"{name}.safetensors", framework="pt") as file:
        provenance = json.loads(file.metadata()["provenance"])
        tensors = {key: file.get_tensor(key).double() for key in file.keys()}  # noqa: SIM118 (not a dict)
    return Golden(
        name=name,
        inputs=_part(tensors, "input."),
        outputs=_part(tensors, "output."),
        taps=_part(tensors, "tap."),
        provenance=provenance,
    )


def subsample(activation: torch.Tensor) -> torch.Tensor:
    """Take evenly spaced elements of [B,C,L], [B,C,H,W] or [B,C,T,H,W], with the first and the last along each axis."""
    most = {3: (2, 6, 12), 4: (2, 6, 4, 4), 5: (2, 4, 3, 4, 4)}[activation.ndim]
    for axis, (size, limit) in enumerate(zip(activation.shape, most, strict=True)):
        count = min(size, limit)
        indices = [round(i * (size - 1) / max(count - 1, 1)) for i in range(count)]
        activation = activation.index_select(axis, torch.tensor(indices))
    return activation


def fingerprint(state: dict[str, torch.Tensor]) -> str:
    """Hash of every key, shape and first 64 elements: enough to see other draws."""
    digest = hashlib.sha256()
    for key, value in sorted(state.items()):
        digest.update(f"{key}{list(value.shape)}".encode())
        digest.update(value.flatten()[:64].numpy().tobytes())
    return digest.hexdigest()


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
