"""One VAE in training: weights, their average, the optimiser, how far it is; all of it in files, and back."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.losses import Weights, loss
from training.running import cast, initialise, prepared, run
from vaeport.layers import DiagonalGaussian
from vaeport.models.wan import Wan, WanArchConfig


@dataclass
class Progress:
    """Steps and seconds of training behind it, over all runs that were resumed."""

    step: int = 0
    seconds: float = 0.0


def architecture(base: int, decoder_base: int, dim_mult: tuple[int, ...], z_dim: int) -> WanArchConfig:
    """Wan's, with these widths; latents are not normalised before their statistics are known."""
    return WanArchConfig(
        base_dim=base,
        decoder_base_dim=decoder_base,
        dim_mult=dim_mult,
        z_dim=z_dim,
        latents_mean=(0.0,) * z_dim,
        latents_std=(1.0,) * z_dim,
    )


class Learner:
    """Trains; the average of the weights is what is kept in the end."""

    def __init__(self, arch: WanArchConfig, device: torch.device, *, seed: int, fused: bool, peak: float) -> None:
        self.arch, self.device, self.seed, self.peak = arch, device, seed, peak
        vae = Wan(arch)
        assert vae.encoder is not None
        assert vae.decoder is not None
        generator = torch.Generator().manual_seed(seed)
        for half in (vae.encoder, vae.decoder):
            initialise(half, generator)
        vae.to(device)
        self.encoder, self.decoder = (prepared(half, fused=fused) for half in (vae.encoder, vae.decoder))
        self.dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.weights = dict(vae.named_parameters())
        self.average = {name: w.detach().clone() for name, w in self.weights.items()}
        groups = [  # gains and biases do not decay
            {"params": [w for w in self.weights.values() if w.dim() > 1], "weight_decay": 1e-3},
            {"params": [w for w in self.weights.values() if w.dim() == 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.99))
        self.progress = Progress()

    def step(self, video: Tensor, done: float, generator: torch.Generator) -> dict[str, Tensor]:
        """One step on [B, 3, T, H, W] in -1..1; done: the share of the training that is over, which sets the rate."""
        rate = self.peak * min(1.0, (self.progress.step + 1) / 200) * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        posterior = DiagonalGaussian(run(self.encoder, cast(self.encoder, self.dtype), video))
        seen = run(self.decoder, cast(self.decoder, self.dtype), posterior.sample(generator))
        total, parts = loss(seen, video, posterior, Weights())
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.weights.values(), 1.0)
        if norm.isfinite():  # a batch that overflows teaches nothing
            self.optimizer.step()
        self.progress.step += 1
        decay = min(0.999, (1 + self.progress.step) / (10 + self.progress.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.values()), list(self.weights.values()), 1 - decay)
        return {"loss": total.detach(), "norm": norm, **parts}

    def averaged(self) -> Wan:
        """The average of the weights as a VAE of its own, in float32."""
        vae = Wan(self.arch)
        vae.load_state_dict({name: w.float() for name, w in self.average.items()}, strict=True)
        return vae.to(self.device).eval().requires_grad_(False)

    def _tensors(self) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint holds, by file; moments that no step has made yet are left out."""
        moments = {name: self.optimizer.state.get(w, {}) for name, w in self.weights.items()}
        return {
            "weights": {name: w.detach() for name, w in self.weights.items()},
            "average": self.average,
            "first": {name: m["exp_avg"] for name, m in moments.items() if m},
            "second": {name: m["exp_avg_sq"] for name, m in moments.items() if m},
            "counts": {name: m["step"] for name, m in moments.items() if m},
        }

    def save(self, folder: Path) -> None:
        """Writes the folder; one that was there is replaced once the new one is complete."""
        new, old = folder.with_suffix(".new"), folder.with_suffix(".old")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        about = {"progress": json.dumps(asdict(self.progress)), "arch": json.dumps(self.arch.to_published())}
        for name, tensors in self._tensors().items():
            # copies, since the layers' memory format is no part of a checkpoint
            kept = {key: tensor.contiguous().cpu() for key, tensor in tensors.items()}
            save_file(kept, new / f"{name}.safetensors", about)
        if folder.exists():
            # what a killed save has left; only here, since without the folder it is the last whole checkpoint
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
        new.rename(folder)
        shutil.rmtree(old, ignore_errors=True)

    def resume(self, folder: Path) -> None:
        """Goes on where `save` left off, or had before one that was killed; SystemExit for another architecture."""
        old = folder.with_suffix(".old")
        if old.exists() and not folder.exists():  # killed between the two renames of `save`
            folder = old
        with safe_open(folder / "weights.safetensors", "pt") as file:
            about = file.metadata()
        if json.loads(about["arch"]) != json.loads(json.dumps(self.arch.to_published())):
            raise SystemExit(f"{folder}: another architecture: {about['arch']}")
        self.progress = Progress(**json.loads(about["progress"]))
        files = {name: load_file(folder / f"{name}.safetensors") for name in self._tensors()}
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(files["weights"][name])
                self.average[name].copy_(files["average"][name])
                if name in files["first"]:
                    self.optimizer.state[weight] = {
                        "step": files["counts"][name],
                        "exp_avg": files["first"][name].to(weight.device),
                        "exp_avg_sq": files["second"][name].to(weight.device),
                    }


def with_statistics(vae: Wan, mean: Tensor, std: Tensor) -> Wan:
    """The same VAE, whose normaliser has these numbers, one per channel."""
    numbers = {"latents_mean": mean, "latents_std": std}
    arch = replace(vae.arch, **{name: tuple(round(v, 4) for v in t.tolist()) for name, t in numbers.items()})
    twin = Wan(arch)
    twin.load_state_dict(vae.state_dict(), strict=True)
    return twin.eval().requires_grad_(False)
