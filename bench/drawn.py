"""Models with drawn weights, the same on every machine and rank."""

from __future__ import annotations

import torch

from bench.work import Model
from vaeport.proof.draw import draw_state
from vaeport.vae import VAE


def drawn(model: Model, dtype: torch.dtype, device: torch.device | str) -> VAE:
    """The model in evaluation mode, every weight drawn."""
    vae = model.cls(model.arch)
    state = vae.state_dict()
    # as the table of `draw_state` names them
    names = {key: key.replace("log_", "").replace("gain", "gamma") for key in state}
    values = draw_state({names[key]: tuple(value.shape) for key, value in state.items()}, 0)
    vae.load_state_dict({key: values[name] for key, name in names.items()})
    return vae.to(device, dtype).eval().requires_grad_(False)
