"""The two sides of a proof: each loads the same weight file, carries out the same jobs, says where its code lives."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vaeport.errors import ProofError
from vaeport.proof.adapters import adapter
from vaeport.proof.calling import Caller, Convention, build
from vaeport.proof.importing import import_object, stubbed
from vaeport.proof.jobs import Capture, Job, Outputs, carry_out
from vaeport.proof.noise import drawn_noise
from vaeport.proof.precision import ClampTap, shown_file
from vaeport.vae import VAE


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
    known = [f for f in sorted(files - {""}) if Path(f).exists()]
    return {shown_file(f): hashlib.sha256(Path(f).read_bytes()).hexdigest() for f in known}


@dataclass
class ReferenceSide:
    """An implementation that nobody here wrote, imported into this process."""

    path: str
    arguments: Mapping[str, Any]
    adapter_file: str | None = None
    device: str = "cpu"
    convention: Convention = field(default_factory=Convention)

    def describe(self) -> dict[str, Any]:
        """See `Side`.

        `defined_in` is the file of its class, `shapes` and `dtypes` are its state dict's, `stubs` the modules that are
        missing here.
        """
        caller = self.open("meta")
        package = self.path.split(":")[0].split(".")[0]
        versions = {"python": sys.version.split()[0], "torch": torch.__version__}
        if "/" not in package:
            versions[package] = _version(package)
        state = {name: t for name, t in caller.module.state_dict().items() if t.is_floating_point()}
        return {
            "name": _shown_place(self.path),
            "defined_in": shown_file(inspect.getsourcefile(type(caller.built)) or "unknown"),
            "files": source_files(caller.module) | hash_files(self.adapter_file),
            "versions": versions,
            "shapes": {name: list(t.shape) for name, t in state.items()},
            "dtypes": {name: str(t.dtype).removeprefix("torch.") for name, t in state.items()},
            "stubs": sorted(stubbed),
        }

    def run(self, weights: Path, jobs: Iterable[Job]) -> Iterator[Capture]:
        """See `Side`."""
        caller = self.open()
        module, state = caller.module, load_file(weights)

        def outputs(x: Tensor, z: Tensor, tap: ClampTap, whole: bool) -> Outputs:
            caller.cast(self.device, x.dtype)
            encoded = caller.encode(x)
            if "mean" in encoded and (latent := caller.normalize(encoded["mean"])) is not None:
                encoded["normalized"] = latent
            tap.seen.clear()
            with drawn_noise():
                decoded = caller.decode(z)
            again = encoded["normalized" if self.convention.normalized else "mean"]
            encoded |= {"decoded": decoded, "unclamped": tap.raw(decoded)}
            if whole:
                with drawn_noise():
                    encoded["round_trip"] = caller.decode(again)
            return encoded

        def traced(x: Tensor, z: Tensor) -> None:
            caller.cast(self.device, x.dtype)
            caller.encode(x)
            caller.decode(z)

        yield from carry_out(
            module, lambda: module.load_state_dict(state, strict=True), jobs, outputs, traced, self.device
        )

    def open(self, device: str = "cpu") -> Caller:
        """The implementation, built; on "meta" without memory, where its constructor bears that."""
        tools = adapter(self.adapter_file)
        cls = import_object(self.path, self.convention.stubs)

        def built() -> Any:
            if "build" in tools:
                return tools["build"](cls, self.arguments)
            return build(cls, self.arguments, self.convention.weights)

        if device != "meta":
            return Caller(built(), self.convention, tools)
        try:
            with torch.device("meta"):
                caller = Caller(built(), self.convention, tools)
        except (ProofError, RuntimeError, NotImplementedError):  # some constructors compute
            caller = Caller(built(), self.convention, tools)
        caller.module.to("meta")
        caller.cast("meta", torch.float32)
        return caller


@dataclass
class NativeSide:
    """A VAE of ours, opened from the weight file as users open it."""

    name: str
    template: Callable[[], VAE]
    """The class and its constants, without memory for weights."""
    open: Callable[[Path], VAE]
    device: str = "cpu"
    normalized: bool = False
    """Latents to decode are as the diffusion model sees them."""

    def describe(self) -> dict[str, Any]:
        """See `Side`."""
        with torch.device("meta"):
            return {"name": self.name, "files": source_files(self.template()), "versions": {"torch": torch.__version__}}

    def run(self, weights: Path, jobs: Iterable[Job]) -> Iterator[Capture]:
        """See `Side`."""
        vae = self.open(weights)
        state = {k: v.clone() for k, v in vae.state_dict().items()}

        def outputs(x: Tensor, z: Tensor, tap: ClampTap, whole: bool) -> Outputs:
            return self.outputs(vae, x, z, tap, whole)

        def traced(x: Tensor, z: Tensor) -> None:
            self.traced(vae, x, z)

        yield from carry_out(vae, lambda: vae.load_state_dict(state, strict=True), jobs, outputs, traced, self.device)

    def traced(self, vae: VAE, x: Tensor, z: Tensor) -> None:
        """Both halves through the modules' own calls, for the recording of types."""
        assert vae.encoder is not None
        vae.encoder(x)
        vae.decoder_at()(z)

    def outputs(self, vae: VAE, x: Tensor, z: Tensor, tap: ClampTap, whole: bool) -> Outputs:
        """Encode and decode by name, with the noise that the reference gets; `whole` adds the round trip."""
        found = self.half("encode", vae, x, z, tap)
        found |= self.half("decode", vae, x, z, tap)
        if whole:
            with drawn_noise():
                found["round_trip"] = vae.decode(found["mean"]).sample
        return found

    def half(self, half: str, vae: VAE, x: Tensor, z: Tensor, tap: ClampTap) -> Outputs:
        """The outputs of "encode" or "decode"."""
        if half == "encode":
            posterior = vae.encode(x).latent_dist
            mean = posterior.mode()
            latent = vae.normalize(mean)
            return {"mean": mean, "std": posterior.std, "moments": posterior.parameters, "normalized": latent}
        tap.seen.clear()
        with drawn_noise():
            decoded = vae.decode(vae.denormalize(z) if self.normalized else z).sample
        return {"decoded": decoded, "unclamped": tap.raw(decoded)}


def _shown_place(path: str) -> str:
    place, _, name = path.rpartition(":")
    return f"{shown_file(place)}:{name}" if place.endswith(".py") else path


def hash_files(path: str | None) -> dict[str, str]:
    """SHA-256 of a file by its path; nothing for None."""
    return {shown_file(path): hashlib.sha256(Path(path).read_bytes()).hexdigest()} if path else {}


def _version(package: str) -> str:
    return str(getattr(sys.modules.get(package), "__version__", "unknown"))
