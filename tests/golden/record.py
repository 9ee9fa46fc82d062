"""What a capture keeps: inputs, outputs, and the activations of the official modules."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from torch import nn

from vaeport.proof.draw import draw_input, draw_media

from .load import subsample


class Record:
    """Collects one run of an official model; `meanings` says in words what each output is."""

    def __init__(self, model: nn.Module, seed: int, taps: Sequence[str]) -> None:
        self.model = model
        self.seed = seed
        self.patterns = taps
        self.inputs: dict[str, torch.Tensor] = {}
        self.outputs: dict[str, torch.Tensor] = {}
        self.meanings: dict[str, str] = {}
        self.taps: dict[str, torch.Tensor] = {}
        self.tapped: dict[str, dict[str, Any]] = {}
        self.rms: dict[str, float] = {}

    def media(self, name: str, shape: Sequence[int]) -> torch.Tensor:
        """Draw an image, a video or a waveform, with values that float32, as which it is stored, holds exactly."""
        return self._input(name, draw_media(name, shape, self.seed))

    def latent(self, name: str, shape: Sequence[int], *, scale: float = 1) -> torch.Tensor:
        """Draw a latent or noise, likewise."""
        return self._input(name, draw_input(name, shape, self.seed) * scale)

    def output(self, name: str, value: torch.Tensor, meaning: str) -> None:
        """Keep an output and what it is."""
        self.outputs[name] = value.detach().clone().contiguous()
        self.meanings[name] = meaning

    @contextmanager
    def running(self, case: str, *, store: bool = True) -> Iterator[dict[str, torch.Tensor]]:
        """Tap the modules that run within; yields their whole activations, which are there once it has ended.

        The calls that a streaming model makes to one module are joined along time, axis 2. With `store` off the taps
        are measured and yielded, and not kept.
        """
        calls: dict[str, list[torch.Tensor]] = defaultdict(list)

        def keep(path: str) -> Any:
            return lambda module, args, output: calls[path].append(output.detach().clone())

        hooks = [module.register_forward_hook(keep(path)) for path, module in self.model.named_modules() if path]
        whole: dict[str, torch.Tensor] = {}
        try:
            yield whole
        finally:
            for hook in hooks:
                hook.remove()
        for path, outputs in calls.items():
            name = f"{case}.{path}"
            joined = _join(outputs)
            self.rms[name] = float(joined.square().mean().sqrt())
            if any(fnmatchcase(path, pattern) for pattern in self.patterns):
                whole[path] = joined
                if not store:
                    continue
                self.taps[name] = subsample(joined).contiguous()
                self.tapped[name] = {"shape": list(joined.shape), "calls": len(outputs), "rms": self.rms[name]}

    def _input(self, name: str, value: torch.Tensor) -> torch.Tensor:
        # Through numpy: a cast in torch would be raised to float64 while the official code runs.
        self.inputs[name] = torch.from_numpy(value.numpy().astype(np.float32).astype(np.float64))
        return self.inputs[name]


def _join(outputs: list[torch.Tensor]) -> torch.Tensor:
    """Join along time; what an activation gives at several places, in shapes that do not fit, is joined flat."""
    if len(outputs) == 1:
        return outputs[0]
    axis = 2 if outputs[0].ndim == 5 else 0
    rest = {(*value.shape[:axis], *value.shape[axis + 1 :]) for value in outputs}
    return torch.cat(outputs, axis) if len(rest) == 1 else torch.cat([value.flatten() for value in outputs])
