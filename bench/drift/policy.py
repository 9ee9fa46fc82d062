"""Dtype-policy and harness faults, which no function shows: what the proof's verdict says of each."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.drift import vaes
from bench.drift.sites import children, derive
from bench.drift.vaes import Prepared
from vaeport import layers as words
from vaeport.proof.remote import RemoteSide
from vaeport.proof.sides import ReferenceSide
from vaeport.proof.verdict import Verdict
from vaeport.vae import VAE

LOW = (torch.bfloat16, torch.float16)


def _middle(vae: VAE, *classes: Any) -> list[str]:
    """The one in the middle of all modules of these classes."""
    found = [path for path, _ in children(vae, *classes)]
    return found[len(found) // 2 :][:1]


def _through(cast: Callable[[Any, Tensor, Any], Tensor], *classes: Any) -> Callable[[VAE], bool]:
    """A fault that gives one module's forward another place of its casts; whether there is such a module."""

    def fault(vae: VAE) -> bool:
        for path in _middle(vae, *classes):
            base = type(vae.get_submodule(path))
            derive(vae, path, forward=lambda self, x, base=base: cast(self, x, base))
            return True
        return False

    return fault


def _widened(self: Any, x: Tensor, base: Any) -> Tensor:
    return base.forward(self, x).float() if x.dtype in LOW else base.forward(self, x)


def _wide_norm(self: Any, x: Tensor, base: Any) -> Tensor:
    from bench.drift.kinds_norm import written

    return written(self, x.float()).to(x.dtype) if x.dtype in LOW else base.forward(self, x)


def _narrow_norm(self: Any, x: Tensor, base: Any) -> Tensor:
    from bench.drift.kinds_norm import written

    return written(self, x)


def _wide_activation(self: Any, x: Tensor, base: Any) -> Tensor:
    return base.forward(self, x.float()).to(x.dtype)


def _rough(self: Any, x: Tensor, base: Any) -> Tensor:
    return base.forward(self, x).to(torch.bfloat16).to(x.dtype) if x.dtype == torch.float32 else base.forward(self, x)


def _very_rough(self: Any, x: Tensor, base: Any) -> Tensor:
    y = base.forward(self, x)
    return (y / 8).to(torch.float8_e4m3fn).to(y.dtype) * 8 if y.dtype == torch.bfloat16 else y


def _wide_residual(self: Any, x: Tensor, base: Any) -> Tensor:
    return (self.shortcut(x).float() + self.main(x).float()).to(x.dtype) if x.dtype in LOW else base.forward(self, x)


def _wide_conv(self: Any, x: Tensor, base: Any) -> Tensor:
    if x.dtype not in LOW or "weight" not in self._parameters:
        return base.forward(self, x)
    kept = self._parameters["weight"], self._parameters["bias"]
    self._parameters["weight"], self._parameters["bias"] = (
        None if p is None else torch.nn.Parameter(p.float(), requires_grad=False) for p in kept
    )
    try:
        return base.forward(self, x.float()).to(x.dtype)
    finally:
        self._parameters["weight"], self._parameters["bias"] = kept


def _nearest_wide(self: Any, x: Tensor, base: Any) -> Tensor:
    return base.forward(self, x.float()).to(x.dtype)


def _explicit_softmax(vae: VAE) -> bool:
    def attend(self: Any, q: Tensor, k: Tensor, v: Tensor, frame: int) -> Tensor:
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        if isinstance(self, words.FrameCausalAttention):
            of_frame = torch.arange(q.shape[2], device=q.device) // frame
            scores = scores.masked_fill(of_frame[:, None] < of_frame, float("-inf"))
        return F.softmax(scores, -1, dtype=torch.float32).to(v.dtype) @ v

    for path in _middle(vae, words.SelfAttention):
        derive(vae, path, attend=attend)
        return True
    return False


NORMS = (words.GroupNorm, words.ChannelLayerNorm, words.ChannelRMSNorm, words.PixelNorm)
DTYPES: dict[str, Callable[[VAE], bool]] = {
    "norm in float32": _through(_wide_norm, *NORMS),
    "norm in the type of x": _through(_narrow_norm, *NORMS),
    "norm gives float32": _through(_widened, *NORMS),
    "activation in float32": _through(_wide_activation, words.SiLU, words.Snake),
    "residual sum in float32": _through(_wide_residual, words.Add),
    "convolution in float32": _through(_wide_conv, words.Conv),
    "nearest in float32": _through(_nearest_wide, words.NearestUpsample),
    "softmax in float32": _explicit_softmax,
    "output rounded to bfloat16 in float32": _through(_rough, words.Conv),
    "output rounded to 8 bits in bfloat16": _through(_very_rough, words.Conv),
}

ADAPTERS = {
    "reference gives nothing": "def decode(module, z): return module.decode(z).sample[:0]",
    "reference gives no numbers": "def decode(module, z): return module.decode(z).sample / 0",
    "reference gives float32": "def normalize(module, z): return z.float()",
    "reference fails": "def encode(module, x): raise RuntimeError('out of memory')",
    "reference is not steady": "import torch\ndef decode(module, z): return (1e6 * module.decode(z).sample).sin()",
}


def names(prepared: Prepared) -> list[str]:
    """All of them, by name."""
    harness = [
        *ADAPTERS,
        "our own class as the reference",
        "case skipped",
        "no case",
        "stale capture",
        "nothing happens",
    ]
    return [*DTYPES, *harness]


def verdict(prepared: Prepared, name: str) -> Verdict | None:
    """What the proof says; None where the VAE has no such place."""
    if name in DTYPES:
        if not DTYPES[name](vaes.opened(prepared.weights)):
            return None
        return vaes.proof_of(prepared, DTYPES[name]).run()
    with tempfile.TemporaryDirectory() as folder:
        return _harness(prepared, name, Path(folder))


def _harness(prepared: Prepared, name: str, folder: Path) -> Verdict:
    told = vaes.proof_of(prepared).reference
    path, arguments, convention = told.path, told.arguments, told.convention
    proof = vaes.narrow.proof
    if name in ADAPTERS:
        file = folder / "adapter.py"
        file.write_text(ADAPTERS[name])
        # an adapter decodes as the convention says, but for the timestep, of which it knows nothing
        return proof(prepared.name, reference=ReferenceSide(path, arguments, str(file), convention=convention)).run()
    if name == "our own class as the reference":
        model, arch = vaes.narrow.narrow(prepared.name)
        own = ReferenceSide(f"{model.__module__}:{model.__name__}", {"arch": arch})
        return proof(prepared.name, reference=own).run()
    clean = vaes.proof_of(prepared, dtypes=())
    if name == "case skipped":
        cases = list(clean.chosen_cases)
        return replace(clean, cases=[replace(cases[0], skip="needs a GPU"), *cases[1:]]).run()
    if name == "no case":
        return replace(clean, cases=()).run()
    if name == "nothing happens":
        return replace(clean, scale={"decoder.*conv*": 1e-4}).run()
    assert name == "stale capture", name
    import sys

    side = RemoteSide(path, arguments, python=sys.executable, folder=folder, convention=convention)
    proof(prepared.name, reference=side).run()
    return proof(prepared.name, reference=side, seed=1).run()


def said(prepared: Prepared, name: str) -> dict[str, Any]:
    """A row's contents."""
    found = verdict(prepared, name)
    if found is None:
        return {"applies": False}
    kinds = sorted({f"{f.gate}: {f.name}" for f in found.failures})
    return {"applies": True, "passed": bool(found), "names": kinds, "gates": sorted(found.failed_gates())}


def tasks(prepared: Prepared) -> Iterator[tuple[str, Callable[[Any], None]]]:
    """Names and the work of a child."""
    for name in names(prepared):
        yield name, lambda emit, name=name: emit(said(prepared, name))
