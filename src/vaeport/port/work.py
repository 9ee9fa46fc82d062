"""What the steps of a port share: the request, the record, both sides, and what is made once per run."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import os
import sys
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from vaeport.configs import VAEArchConfig
from vaeport.errors import BlockedError
from vaeport.mapping import Layout
from vaeport.mapping.flow import Flow
from vaeport.mapping.induce import source_of
from vaeport.port import scaffold
from vaeport.port.derivation import Derived, derive_map, layouts_of
from vaeport.port.elsewhere import native_at
from vaeport.port.flows import drawn_file
from vaeport.port.parity import read_layout
from vaeport.port.request import Request
from vaeport.port.reuse import ReuseProof, reuse_proof
from vaeport.port.state import PortState
from vaeport.port.store import PortStore
from vaeport.proof.calling import Convention
from vaeport.proof.prove import Proof
from vaeport.proof.remote import RemoteSide
from vaeport.proof.setup import native_of
from vaeport.registry import Registration


class StopError(Exception):
    """A step that cannot be completed: what is missing, and what to do. It is written down, not raised to the user."""

    def __init__(self, note: str, code: int = BlockedError.exit_code) -> None:
        super().__init__(note)
        self.note, self.code = note, code


class Work:
    """One run on one port: its record, and what several steps need."""

    state: PortState
    watch: Callable[[Proof], None] | None = None
    """is given the proof of the map before it runs"""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.store = PortStore(request.path("port_state.json"))

    def _save(self, state: PortState) -> None:
        self.state = self.store.save(state)

    def _side(self, convention: Convention) -> RemoteSide:
        request = self.request
        return RemoteSide(
            request.reference, request.arguments, None, "cpu", request.python or sys.executable, None, convention
        )

    @cached_property
    def _official_side(self) -> RemoteSide:
        held: Any = self.state.contract["convention"]
        return self._side(Convention(**{**held, "weights": self.request.weights}))

    @cached_property
    def _flow(self) -> Flow:
        return Flow.from_json(json.loads(self.request.path("official_flow.json").read_text())["flow"])

    @cached_property
    def _reuse_proof(self) -> ReuseProof:
        own = (self._own,) if self._own else None
        contract: Any = self.state.contract
        name = self.request.reference.rpartition(":")[2]
        return reuse_proof(self._flow, contract, self.request.arguments, own, self.request.variant, name)

    @cached_property
    def _own(self) -> Registration | None:
        """The native class that the user named."""
        name = self.request.native
        return native_at(name, self.request.native_arguments) if name else None

    @cached_property
    def _native(self) -> tuple[Registration, VAEArchConfig]:
        """The native class and its arguments, as the reuse proof found them."""
        registration = self._own or native_of(self.state.reuse.native.split()[0])
        published = dict(self.state.reuse.arguments)
        return registration, registration.model.arch_class.from_published(published)

    @property
    def _registered_map(self) -> str | None:
        """The registered layout that says what the derived one says."""
        known: str | None = json.loads(self.request.path("map.json").read_text())["registered"]
        return known

    @property
    def _layout(self) -> Layout:
        """The layout of the official weights, as the map step left it."""
        derived = read_layout(self.request.path("weight_map.py"))
        registered = next((one for one in layouts_of(self._native[0]) if one.name == self._registered_map), None)
        return dataclasses.replace(registered, drops=(*registered.drops, *derived.drops)) if registered else derived

    def _register_map(self, derived: Derived) -> str | None:
        """Writes the derived map into the library for a model of it that has none; the layout's name, or None."""
        registration = self._native[0]
        file = Path(inspect.getfile(registration.model))
        place = file.parent.parent / "weights" / file.name
        if file.parent != Path(__file__).parent.parent / "models" or place.exists():
            return None
        about = f"Key layout of {registration.model.__name__}, found from data flow by `vaeport port`."
        place.write_text(source_of(derived.rules, about))
        written = f"src/vaeport/weights/{file.name}"
        self._save(
            self.state.update(files_changed=[*self.state.files_changed, written], target={"weight_map": written})
        )
        return derived.rules.name

    @cached_property
    def _derived(self) -> Derived:
        registration, arch = self._native
        nearest, contract = self._reuse_proof.nearest, self.state.contract
        assert nearest is not None
        assert nearest.flow is not None
        media, latent = (tuple(map(int, contract[name])) for name in ("media", "latent"))  # type: ignore[arg-type]

        def measure(drawn: Mapping[str, Tensor]) -> Flow:
            with drawn_file(drawn) as file:
                asked = {"media": media, "latent": latent, "weights": str(file)}
                return Flow.from_json(self._official_side.ask("port.flows:foreign_values", **asked))

        normalized = self._official_side.convention.normalized
        flows = (nearest.flow, self._flow)
        return derive_map(
            registration,
            arch,
            flows,
            measure,
            normalized=normalized,
            media=media,
            latent=latent,
            name=self._layout_name,
        )

    @property
    def _layout_name(self) -> str:
        """A derived layout is called after the package that its class is from."""
        place = self.request.reference.rpartition(":")[0]
        return "official" if place.endswith(".py") else place.split(".")[0]

    def _pytest(self) -> dict[str, Any]:
        env = {**os.environ, **self.request.variables}
        return scaffold.run_test(self.request, env)

    def _write(self, name: str, data: Any) -> None:
        self.request.path(name).parent.mkdir(parents=True, exist_ok=True)
        self.request.path(name).write_text(json.dumps(data, indent=1, default=str) + "\n")

    def _views(self) -> list[str]:
        return scaffold.write_views(self.request, self.state)


def file_hash(file: Path) -> str:
    """SHA-256 of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
