"""Whether a fault changes the function: clean and faulty VAE in float64 on random shapes, in plain torch.

It shares no code with the proof: neither its weights, nor its inputs, nor its comparison.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

RUNS = 8
SAME = 1e-9
Outputs = dict[str, Tensor]


@dataclass(frozen=True)
class Run:
    """One random input: media and latent in float64, and the seed of any noise."""

    media: Tensor
    latent: Tensor
    seed: int


@dataclass(frozen=True)
class Change:
    """The largest relative change of any output in any run; infinite for other shapes, errors and other numbers."""

    change: float
    output: str
    error: str = ""

    @property
    def fault(self) -> bool:
        """Whether the function is another one."""
        return not self.change <= SAME


def weights(shapes: Mapping[str, Any], seed: int) -> dict[str, Tensor]:
    """Random weights of a published layout, that keep activations about as large as they are."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, shape in shapes.items():
        name = key.rpartition(".")[2]
        normal = torch.randn(tuple(shape), generator=generator)
        if name == "timestep_scale_multiplier":
            state[key] = torch.full(tuple(shape), 1000.0)
        elif "std" in name:
            state[key] = 0.5 + torch.rand(tuple(shape), generator=generator)
        elif name in ("weight_g", "original0"):
            state[key] = (1 + 0.2 * normal).abs() * (0.3 if ".conv2." in key else 1.0)
        elif name == "gamma" or (name == "weight" and sum(n > 1 for n in shape) <= 1):
            state[key] = 1 + 0.2 * normal
        elif name in ("weight", "weight_v", "original1"):
            state[key] = normal / math.prod(shape[1:]) ** 0.5
        else:
            state[key] = 0.2 * normal
        if key.startswith("decoder.conv_out."):
            state[key] = state[key] / 2
    return state


def write(folder: Path, shapes: Mapping[str, Any], published: Mapping[str, Any], seed: int) -> Path:
    """A component folder with random weights; returns its weight file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(dict(published)))
    path = folder / "diffusion_pytorch_model.safetensors"
    save_file(weights(shapes, seed), path)
    return path


def runs(contract: Any, seed: int) -> list[Run]:
    """Random sizes; the last run has those of the one before it, so that what a run leaves behind is seen."""
    choice = random.Random(seed)
    most = {"image": (4, 4), "video": (2, 3, 3), "audio": (6,)}[contract.modality]
    found: list[Run] = []
    for i in range(RUNS):
        steps = [choice.randint(1 if rule.offset == 0 else 0, n) for rule, n in zip(contract.axes, most, strict=True)]
        batch = choice.choice((1, 1, 2))
        lengths = [
            rule.offset + rule.multiple * n + (over(rule, i, choice) if rule.crops else 0)
            for rule, n in zip(contract.axes, steps, strict=True)
        ]
        shape = (batch, contract.channels, *lengths)
        if contract.modality != "audio":
            # no side of a latent is shorter than 2, where some models cannot mirror
            shape = (
                *shape[:-2],
                *(max(n, 2 * rule.multiple) for n, rule in zip(shape[-2:], contract.axes[-2:], strict=True)),
            )
        if i == RUNS - 1:
            shape = tuple(found[-1].media.shape)
        generator = torch.Generator().manual_seed(seed * RUNS + i)
        media = torch.rand(shape, generator=generator, dtype=torch.float64) * 1.9 - 0.95
        latent = torch.randn(contract.latent_shape(shape), generator=generator, dtype=torch.float64)
        found.append(Run(media, latent, seed * RUNS + i))
    return found


def over(rule: Any, i: int, choice: random.Random) -> int:
    """What is over a legal length: something in the first two runs, so that crops are seen, else by chance."""
    most = rule.multiple - 1
    return choice.randint(1, most) if most and i < 2 else choice.choice((0, choice.randint(0, most)))


@torch.no_grad()
def outputs(vae: Any, run: Run) -> Outputs:
    """What a VAE in float64 makes of an input."""
    torch.manual_seed(run.seed)
    posterior = vae.encode(run.media.clone()).latent_dist
    mean = posterior.mode()
    found = {"mean": mean, "std": posterior.std, "normalized": vae.normalize(mean)}
    found["decoded"] = vae.decode(run.latent.clone(), generator=torch.Generator().manual_seed(run.seed)).sample
    return {name: value.clone() for name, value in found.items()}


def relative(found: Tensor, expected: Tensor) -> float:
    """rms of the difference over the rms of what is expected."""
    if found.shape != expected.shape or not found.isfinite().all():
        return math.inf
    scale = float(expected.square().mean().sqrt())
    return float((found - expected).square().mean().sqrt()) / max(scale, 1e-300)


def change(opened: Callable[[], Any], inputs: list[Run], clean: list[Outputs], *, stop: bool = False) -> Change:
    """How far what `opened` gives is from the clean outputs.

    stop    at the first run that shows a change: its size is then that of this run alone
    """
    worst = Change(0.0, "")
    try:
        vae = opened().double()
        for run, expected in zip(inputs, clean, strict=True):
            given = outputs(vae, run)
            for name, truth in expected.items():
                size = relative(given[name], truth)
                if not size <= worst.change:
                    worst = Change(size, name)
            if stop and worst.fault:
                break
    except Exception as error:
        return Change(math.inf, "error", f"{type(error).__name__}: {error}"[:300])
    return worst
