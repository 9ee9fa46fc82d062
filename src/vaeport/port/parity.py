"""`Parity`: what a parity test compares, and how it is carried out."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from vaeport.checkpoint.strict_json import parse_json_object
from vaeport.configs import VAEArchConfig
from vaeport.errors import ConfigError
from vaeport.mapping import Layout, plan
from vaeport.mapping.flow import Flow
from vaeport.port.convert import checkpoint_tensors, official_weights
from vaeport.port.derivation import with_layout
from vaeport.port.elsewhere import native_at
from vaeport.port.explaining import explanation
from vaeport.port.flows import drawn_file, drawn_for
from vaeport.proof.calling import Convention
from vaeport.proof.cases import cases_of
from vaeport.proof.prove import Proof
from vaeport.proof.remote import RemoteSide
from vaeport.proof.setup import native_of
from vaeport.proof.sides import NativeSide
from vaeport.proof.verdict import Verdict
from vaeport.registry import Registration
from vaeport.runtime.load import load, load_as
from vaeport.runtime.reading import native_shapes, weight_shapes
from vaeport.vae import VAE

Scope = Literal["production_loader", "implementation_subcomponent", "both"]
PRODUCTION, IMPLEMENTATION = "production loader", "implementation"
_VARIABLE = re.compile(r"\$\{?([A-Z][A-Z0-9_]*)\}?")


@dataclass(frozen=True)
class Parity:
    """One component against its official implementation.

    family, component   as in the port's record
    native              native name or "package.module:Class"
    arch                published config of the native model (or the name of a variant)
    native_args         constructor arguments of a native class outside the library
    reference           "package.module:Class" or "folder/file.py:Class"; `$NAME` stands for an environment variable
    reference_args, convention, reference_python
                        how it is built, called and where it runs
    weights, prefix     official checkpoint; without one, weights are drawn
    converted           component folder made from it, loaded through the production loader
    weight_map          Python file with LAYOUTS, where the registered maps do not have this layout
    flow                file of the official flow, by which weights are drawn where their names say nothing
    coverage_scope      what is covered: the production loader, the implementation alone, or both
    dtypes              for gates P and D
    """

    family: str
    component: str
    native: str
    arch: Mapping[str, Any] | str
    reference: str
    reference_args: Mapping[str, Any] | None = None
    native_args: Mapping[str, Any] = field(default_factory=dict)
    convention: Mapping[str, Any] = field(default_factory=dict)
    reference_python: str | None = None
    weights: str | None = None
    prefix: str = ""
    converted: str | None = None
    weight_map: str | None = None
    flow: str | None = None
    coverage_scope: Scope = "both"
    dtypes: Sequence[str] = ("float32", "bfloat16")

    def missing(self) -> list[str]:
        """What is not there yet: native_class, official_import, converted_weights, official_weights."""
        found = []
        try:
            self._registration.model  # noqa: B018
        except ConfigError:
            found.append("native_class")
        place = _filled(self.reference).rpartition(":")[0]
        away = place.endswith(".py") and not Path(place).is_file()
        unknown = not place.endswith(".py") and self.reference_python is None and not _importable(place)
        if "$" in place or away or unknown:
            found.append("official_import")
        if self.weights is not None and not Path(_filled(self.weights)).exists():
            found.append("official_weights")
        if self.converted is not None and not Path(_filled(self.converted)).is_dir():
            found.append("converted_weights")
        if self.flow is not None and not Path(_filled(self.flow)).is_file():
            found.append("official_flow")
        return found

    def prove(self) -> Verdict:
        """The verdict over everything that the coverage scope names."""
        parts: dict[str, Verdict] = {}
        for name, opened in self._proofs().items():
            with opened() as proof:
                parts[name] = proof.run()
        first = next(iter(parts.values()))
        whole = Verdict(first.reference, first.native)
        for name, verdict in parts.items():
            whole.evidence[name] = verdict.evidence
            whole.rows += verdict.rows
            whole.failures += [replace(failure, where=f"{name}: {failure.where}") for failure in verdict.failures]
            whole.notes += [f"{name}: {note}" for note in verdict.notes]
            if not verdict.rows:
                whole.fail("evidence", "empty", name, "nothing was compared")
        whole.evidence["coverage_scope"] = _covered({name for name, verdict in parts.items() if verdict.rows})
        return whole

    def explain(self) -> list[str]:
        """Why it fails, part by part."""
        told = []
        for name, opened in self._proofs().items():
            with opened() as proof:
                told += [f"{name}: {line}" for line in explanation(proof)]
        return told

    def _proofs(self) -> dict[str, Callable[[], AbstractContextManager[Proof]]]:
        """What the coverage scope names."""
        parts: dict[str, Callable[[], AbstractContextManager[Proof]]] = {}
        if self.coverage_scope in ("production_loader", "both"):
            parts[PRODUCTION] = self._production
        if self.coverage_scope in ("implementation_subcomponent", "both"):
            parts[IMPLEMENTATION] = self._implementation
        return parts

    @cached_property
    def _registration(self) -> Registration:
        registration = native_at(self.native, self.native_args) if ":" in self.native else native_of(self.native)
        return with_layout(registration, self._layout) if self._layout else registration

    @cached_property
    def _layout(self) -> Layout | None:
        return None if self.weight_map is None else read_layout(Path(_filled(self.weight_map)))

    @cached_property
    def _arch(self) -> VAEArchConfig:
        model = self._registration.model
        if isinstance(self.arch, str):
            return model.variants[self.arch]
        return model.arch_class.from_published(self.arch)

    def _side(self) -> RemoteSide:
        weights = None if self.weights is None else _filled(self.weights)
        convention = Convention(**{**self.convention, "weights": weights})
        arguments = self._arch.to_published() if self.reference_args is None else self.reference_args
        python = self.reference_python or sys.executable
        return RemoteSide(_filled(self.reference), arguments, None, "cpu", python, None, convention)

    def _native(self, side: RemoteSide, folder: str | None) -> NativeSide:
        registration, arch, model = self._registration, self._arch, self._registration.model

        def opened(path: Path) -> VAE:
            place = Path(_filled(folder)) if folder else path
            if ":" in self.native:
                return load_as(registration, arch, place)
            # through config.json, as a pipeline does
            return load(place.parent if place.is_file() else place)

        return NativeSide(self.native, lambda: model(arch), opened, normalized=side.convention.normalized)

    @contextmanager
    def _production(self) -> Iterator[Proof]:
        """Converted (or drawn) weights in a component folder, found by `_class_name` and loaded strictly."""
        side = self._side()
        if self.weights is None or self.converted is None:
            yield Proof(side, self._native(side, None), self._registration.layouts, dtypes=self.dtypes)
            return
        native = native_shapes(self._registration.model, self._arch)
        shapes = {key: tuple(shape) for key, shape in side.describe()["shapes"].items()}
        fitting = next((one for one in self._registration.layouts if plan(one, native, shapes).fits), None)
        layout = fitting or self._registration.layouts[0]
        with official_weights(Path(_filled(self.weights)), layout, native, self.prefix) as (opened, mapped):
            official = checkpoint_tensors(opened, mapped)
            one = self._native(side, self.converted)
            yield Proof(side, one, (layout,), official=official, dtypes=self.dtypes)

    @contextmanager
    def _implementation(self) -> Iterator[Proof]:
        """Drawn weights, handed to the class itself; one case where the production loader is proved as well."""
        side, registration, arch = self._side(), self._registration, self._arch
        with torch.device("meta"):
            vae = registration.model(arch)
        native = NativeSide(
            self.native,
            lambda: registration.model(arch),
            lambda path: load_as(registration, arch, path),
            normalized=side.convention.normalized,
        )
        short = self.coverage_scope == "both"
        cases = cases_of(vae.contract)[:1] if short else None
        dtypes = () if short else self.dtypes
        if self.flow is None:
            yield Proof(side, native, registration.layouts, seed=1, dtypes=dtypes, cases=cases)
            return
        flow = Flow.from_json(parse_json_object(Path(_filled(self.flow)).read_bytes())["flow"])
        shapes = weight_shapes(vae)
        layout = next(one for one in registration.layouts if plan(one, shapes, flow.shapes).fits)
        drawn = drawn_for(flow, plan(layout, shapes, flow.shapes), 1, clamped=vae.contract.clamp is not None)
        with drawn_file(drawn) as weights:
            yield Proof(side, native, (layout,), weights=weights, dtypes=dtypes, cases=cases)


def _covered(parts: set[str]) -> str:
    """The coverage scope of what gave figures; empty if nothing did."""
    if parts == {PRODUCTION, IMPLEMENTATION}:
        return "both"
    return {PRODUCTION: "production_loader", IMPLEMENTATION: "implementation_subcomponent"}.get(
        next(iter(parts), ""), ""
    )


def read_layout(file: Path) -> Layout:
    """The last of LAYOUTS of a map file."""
    spec = importlib.util.spec_from_file_location("vaeport_weight_map", file)
    if spec is None or spec.loader is None or not file.is_file():
        raise ConfigError("no such weight map", where=file, expected="a Python file with LAYOUTS")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    layout: Layout = module.LAYOUTS[-1]
    return layout


def _filled(path: str) -> str:
    """A path with its environment variables; one that is not set stays as `$NAME`."""
    return _VARIABLE.sub(lambda match: os.environ.get(match[1], match[0]), path)


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module.partition(".")[0]) is not None
    except (ImportError, ValueError):
        return False
