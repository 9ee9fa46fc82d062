"""The two sides of a proof: each loads the same weight file, carries out the same jobs, says where its code lives."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vaeport.proof import adapters
from vaeport.proof.dtypes import Signature, record
from vaeport.proof.precision import ClampTap, Float64Mode, Health, watched
from vaeport.vae import VAE

Outputs = dict[str, Tensor]


@dataclass(frozen=True)
class Job:
    """One run of encode and decode.

    dtype       type of weights and inputs in the run; None: float64, with every cast promoted
    rounded     type to which weights and inputs are rounded beforehand (the truth of gate P), or None
    relaid      the reference runs in another memory format or batch size (is the case well conditioned?)
    rows        modules whose types are recorded (gate D); nothing else is run then
    """

    name: str
    media: Tensor
    latent: Tensor
    dtype: torch.dtype | None = None
    rounded: torch.dtype | None = None
    relaid: bool = False
    rows: tuple[str, ...] | None = None

    @property
    def whole(self) -> bool:
        """Gate S: with the round trip, which in gate P would count the encoder's rounding a second time."""
        return self.dtype is None and self.rounded is None

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


class Side(Protocol):
    """The reference or the native implementation."""

    def describe(self) -> dict[str, Any]:
        """name, source files with their SHA-256, versions; the reference adds the shapes of its weights."""

    def run(self, weights: Path, jobs: Iterable[Job]) -> Iterator[Capture]:
        """One capture per job, in order; weights are read from a safetensors file in the reference's layout."""


def source_files(module: nn.Module) -> dict[str, str]:
    """Files in which the classes of a module tree are written, torch apart, with their SHA-256."""
    classes = {base for child in module.modules() for base in type(child).__mro__}
    files = set()
    for cls in classes:
        if cls.__module__.split(".")[0] in ("torch", "builtins", "typing", "collections", "abc"):
            continue
        try:
            files.add(inspect.getsourcefile(cls) or "")
        except TypeError:
            continue
    return {f: hashlib.sha256(Path(f).read_bytes()).hexdigest() for f in sorted(files - {""}) if Path(f).exists()}


@dataclass
class ReferenceSide:
    """An implementation that nobody here wrote, imported into this process."""

    path: str
    arguments: Mapping[str, Any]
    adapter_file: str | None = None
    device: str = "cpu"

    def describe(self) -> dict[str, Any]:
        """See `Side`; `shapes` are those of its state dict."""
        with torch.device("meta"):
            module = self._build()
        package = self.path.split(":")[0].split(".")[0]
        return {
            "name": self.path,
            "files": source_files(module) | _file(self.adapter_file),
            "versions": {"python": sys.version.split()[0], "torch": torch.__version__, package: _version(package)},
            "shapes": {name: list(t.shape) for name, t in module.state_dict().items() if t.is_floating_point()},
        }

    def run(self, weights: Path, jobs: Iterable[Job]) -> Iterator[Capture]:
        """See `Side`."""
        module = self._build()
        state = load_file(weights)
        tools = adapters.adapter(self.adapter_file)

        def outputs(x: Tensor, z: Tensor, tap: ClampTap, whole: bool) -> Outputs:
            encoded = dict(tools.encode(module, x))
            latent = tools.normalize(module, encoded["mean"])
            if latent is not None:
                encoded["normalized"] = latent
            tap.before.clear()
            decoded = tools.decode(module, z)
            encoded |= {"decoded": decoded, "unclamped": tap.raw(decoded)}
            return encoded | ({"round_trip": tools.decode(module, encoded["mean"])} if whole else {})

        def traced(x: Tensor, z: Tensor) -> None:
            tools.encode(module, x)
            tools.decode(module, z)

        yield from _carry_out(
            module, lambda: module.load_state_dict(state, strict=True), jobs, outputs, traced, self.device
        )

    def _build(self) -> nn.Module:
        tools = adapters.adapter(self.adapter_file)
        module: nn.Module = tools.build(adapters.import_object(self.path), self.arguments)
        return module.eval().requires_grad_(False)


@dataclass
class NativeSide:
    """A VAE of ours, opened from the weight file as users open it."""

    name: str
    template: Callable[[], VAE]
    """The class and its constants, without memory for weights."""
    open: Callable[[Path], VAE]
    device: str = "cpu"

    def describe(self) -> dict[str, Any]:
        """See `Side`."""
        with torch.device("meta"):
            return {"name": self.name, "files": source_files(self.template()), "versions": {"torch": torch.__version__}}

    def run(self, weights: Path, jobs: Iterable[Job]) -> Iterator[Capture]:
        """See `Side`."""
        vae = self.open(weights)
        state = {k: v.clone() for k, v in vae.state_dict().items()}

        def outputs(x: Tensor, z: Tensor, tap: ClampTap, whole: bool) -> Outputs:
            posterior = vae.encode(x).latent_dist
            mean = posterior.mode()
            tap.before.clear()
            decoded = vae.decode(z).sample
            found = {
                "mean": mean,
                "std": posterior.std,
                "moments": posterior.parameters,
                "normalized": vae.normalize(mean),
                "decoded": decoded,
                "unclamped": tap.raw(decoded),
            }
            return found | ({"round_trip": vae.decode(mean).sample} if whole else {})

        def traced(x: Tensor, z: Tensor) -> None:
            assert vae.encoder is not None
            assert vae.decoder is not None
            vae.encoder(x)
            vae.decoder(z)

        yield from _carry_out(vae, lambda: vae.load_state_dict(state, strict=True), jobs, outputs, traced, self.device)


@torch.no_grad()
def _carry_out(
    module: nn.Module,
    restore: Callable[[], Any],
    jobs: Iterable[Job],
    outputs: Callable[[Tensor, Tensor, ClampTap, bool], Outputs],
    traced: Callable[[Tensor, Tensor], None],
    device: str,
) -> Iterator[Capture]:
    current: tuple[torch.dtype, torch.dtype | None] | None = None
    for job in jobs:
        wanted = (job.dtype or torch.float64, job.rounded)
        if current != wanted:
            # nn.Module.to, since a subclass's own may keep some weights in another type
            nn.Module.to(module, torch.float64)
            restore()
            if job.rounded is not None:
                nn.Module.to(module, job.rounded)
            nn.Module.to(module, device, wanted[0])
            current = wanted
        capture = Capture()
        try:
            _one(module, job, capture, outputs, traced, device)
        except Exception as error:
            capture.error = f"{type(error).__name__}: {error}"
        yield capture


def _one(module: nn.Module, job: Job, capture: Capture, outputs: Any, traced: Any, device: str) -> None:
    x, z = (t.to(device) for t in job.tensors())
    if job.rows is not None:
        capture.signature = record(module, job.rows, lambda: traced(x, z))
        return
    capture.stored = sorted(
        {str(t.dtype).removeprefix("torch.") for t in module.state_dict().values() if t.is_floating_point()}
    )
    before = torch.get_default_dtype()
    with ExitStack() as stack:
        stack.enter_context(_full_float32())
        mode = Float64Mode() if job.dtype is None else None
        if job.relaid:
            x, z, undo = _relaid(x, z)
        if mode is not None:
            torch.set_default_dtype(torch.float64)
            stack.callback(torch.set_default_dtype, before)
            if job.whole and not job.relaid:
                capture.health = stack.enter_context(watched(module))
        tap = stack.enter_context(ClampTap())
        if mode is not None:
            stack.enter_context(mode)
        found = outputs(x, z, tap, job.whole)
    if job.relaid:
        found = {name: undo(t) for name, t in found.items()}
    capture.outputs = {name: t.detach().contiguous().cpu() for name, t in found.items()}
    raw, decoded = capture.outputs["unclamped"], capture.outputs["decoded"]
    capture.clamped = (raw != decoded).double().mean().item() if raw.shape == decoded.shape else 1.0
    if mode is not None:
        capture.promoted = sorted(mode.promoted)


@contextmanager
def _full_float32() -> Iterator[None]:
    """Without TensorFloat-32, whose rounding would count as float32's."""
    switches: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [switch.allow_tf32 for switch in switches]
    for switch in switches:
        switch.allow_tf32 = False
    yield
    for switch, value in zip(switches, before, strict=True):
        switch.allow_tf32 = value


def _relaid(x: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
    """The same inputs, channels last where there is such a format, and with another sample in front of them."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}

    def relaid(t: Tensor) -> Tensor:
        t = torch.cat((t[-1:].flip(-1), t))
        return t.contiguous(memory_format=formats[t.dim()]) if t.dim() in formats else t

    return relaid(x), relaid(z), lambda t: t[1:]


def _file(path: str | None) -> dict[str, str]:
    return {path: hashlib.sha256(Path(path).read_bytes()).hexdigest()} if path else {}


def _version(package: str) -> str:
    return str(getattr(sys.modules.get(package), "__version__", "unknown"))
