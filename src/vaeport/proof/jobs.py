"""One run of encode and decode on either side: what is asked, what comes back, and how it is carried out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vaeport.proof.dtypes import Signature, record
from vaeport.proof.precision import ClampTap, Float64Mode, Health, watched
from vaeport.proof.recording import recorded

Outputs = dict[str, Tensor]
Run = Callable[[Tensor, Tensor, ClampTap, bool], Outputs]
"""media, latent, tap, with the round trip -> outputs by name"""


@dataclass(frozen=True)
class Job:
    """One run of encode and decode.

    dtype       type of weights and inputs in the run; None: float64, with every cast promoted
    rounded     type to which weights and inputs are rounded beforehand (the truth of gate P), or None
    relaid      the reference runs in another memory format or batch size (is the case well conditioned?)
    rows        modules whose types are recorded (gate D); nothing else is run then
    units, folder
                modules whose tensors are written to a folder (`vaeport.drift`); there is no round trip then
    """

    name: str
    media: Tensor
    latent: Tensor
    dtype: torch.dtype | None = None
    rounded: torch.dtype | None = None
    relaid: bool = False
    rows: tuple[str, ...] | None = None
    units: tuple[str, ...] = ()
    folder: str | None = None

    @property
    def whole(self) -> bool:
        """Gate S: with the round trip, which in gate P would count the encoder's rounding a second time."""
        return self.dtype is None and self.rounded is None and self.folder is None

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Media and latent as the run takes them."""
        target = self.dtype or torch.float64
        media, latent = (t if self.rounded is None else t.to(self.rounded) for t in (self.media, self.latent))
        return media.to(target), latent.to(target)


@dataclass
class Capture:
    """What a job gave: outputs by name, and what was seen on the way."""

    outputs: Outputs = field(default_factory=dict)
    clamped: float = 0.0
    health: Health = field(default_factory=Health)
    promoted: list[str] = field(default_factory=list)
    signature: Signature = field(default_factory=dict)
    stored: list[str] = field(default_factory=list)
    error: str | None = None


@torch.no_grad()
def carry_out(
    module: nn.Module,
    restore: Callable[[], Any],
    jobs: Iterable[Job],
    outputs: Run,
    traced: Callable[[Tensor, Tensor], None],
    device: str,
) -> Iterator[Capture]:
    """Carries out jobs on `module`, one capture each.

    restore     puts the weights back, which a run in another type has rounded
    outputs     encode and decode
    traced      the same through the modules' own calls, for the recording of types
    """
    current: tuple[torch.dtype, torch.dtype | None] | None = None
    for job in jobs:
        wanted = (job.dtype or torch.float64, job.rounded)
        capture = Capture()
        try:
            if current != wanted:
                _cast(module, restore, job, device)
                current = wanted
            _one(module, job, capture, outputs, traced, device)
        except Exception as error:
            capture.error = f"{type(error).__name__}: {error}"
        yield capture


def _cast(module: nn.Module, restore: Callable[[], Any], job: Job, device: str) -> None:
    # nn.Module.to, since a subclass's own may keep some weights in another type
    nn.Module.to(module, torch.float64)
    restore()
    if job.rounded is not None:
        nn.Module.to(module, job.rounded)
    nn.Module.to(module, device, job.dtype or torch.float64)


def _one(
    module: nn.Module, job: Job, capture: Capture, outputs: Run, traced: Callable[[Tensor, Tensor], None], device: str
) -> None:
    x, z = (t.to(device) for t in job.tensors())
    if job.rows is not None:
        capture.signature = record(module, job.rows, lambda: traced(x, z))
        return
    capture.stored = sorted(
        {str(t.dtype).removeprefix("torch.") for t in module.state_dict().values() if t.is_floating_point()}
    )
    with ExitStack() as stack:
        stack.enter_context(_full_float32())
        if job.relaid:
            x, z, undo = _relaid(x, z)
        if job.whole and not job.relaid:
            capture.health = stack.enter_context(watched(module))
        tap = stack.enter_context(ClampTap())
        mode = stack.enter_context(in_float64()) if job.dtype is None else None
        if job.folder is not None:
            stack.enter_context(recorded(module, Path(job.folder), job.units))
        found = outputs(x, z, tap, job.whole)
    if job.relaid:
        found = {name: undo(t) for name, t in found.items()}
    capture.outputs = {name: t.detach().contiguous().cpu() for name, t in found.items()}
    raw, decoded = capture.outputs["unclamped"], capture.outputs["decoded"]
    capture.clamped = (raw != decoded).double().mean().item() if raw.shape == decoded.shape else 1.0
    if mode is not None:
        capture.promoted = sorted(mode.promoted)


@contextmanager
def in_float64() -> Iterator[Float64Mode]:
    """Everything within is computed in float64, with every cast promoted."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with Float64Mode() as mode:
            yield mode
    finally:
        torch.set_default_dtype(before)


@contextmanager
def _full_float32() -> Iterator[None]:
    """Without TensorFloat-32, whose rounding would count as float32's."""
    switches: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [switch.allow_tf32 for switch in switches]
    for switch in switches:
        switch.allow_tf32 = False
    try:
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value


def _relaid(x: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
    """The same inputs, channels last where there is such a format, and with another sample in front of them."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}

    def relaid(t: Tensor) -> Tensor:
        t = torch.cat((t[-1:].flip(-1), t))
        return t.contiguous(memory_format=formats[t.dim()]) if t.dim() in formats else t

    return relaid(x), relaid(z), lambda t: t[1:]
