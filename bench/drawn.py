"""Models with drawn weights, the same on every machine and rank."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from bench.work import Model
from vaeport.proof.draw import draw_state
from vaeport.vae import VAE


def drawn(model: Model, dtype: torch.dtype, device: torch.device | str, *, graphs: bool = False) -> VAE:
    """The model in evaluation mode, every weight drawn."""
    with torch.device("meta"):
        vae = model.cls(model.arch, replace(model.cls.config_class(), use_graphs=graphs))
    vae.load_state_dict({key: value.to(device, dtype) for key, value in _state(model).items()}, assign=True)
    return vae.to(device, dtype).eval().requires_grad_(False)


_LAST: list[tuple[Model, dict[str, Tensor]]] = []
"""the model that was drawn last, since drawing takes longest"""


def _state(model: Model) -> dict[str, Tensor]:
    if not _LAST or _LAST[0][0] != model:
        with torch.device("meta"):
            state = model.cls(model.arch).state_dict()
        # as the table of `draw_state` names them
        names = {key: key.replace("log_", "").replace("gain", "gamma") for key in state}
        values = draw_state({names[key]: tuple(value.shape) for key, value in state.items()}, 0)
        _LAST[:] = [(model, {key: values[name] for key, name in names.items()})]
    return _LAST[0][1]
