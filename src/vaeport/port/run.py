"""`Port`: carries a port from its request to its hand-over, step by step, and stops where something must be written."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from vaeport.configs import VAEArchConfig
from vaeport.errors import BlockedError, VaeportError
from vaeport.mapping import Layout
from vaeport.mapping.flow import Flow
from vaeport.mapping.induce import source_of
from vaeport.port import scaffold
from vaeport.port.contracts.fields import unknown
from vaeport.port.contracts.steps import STEPS, StepName
from vaeport.port.contracts.text import tidy
from vaeport.port.convert import convert, parse_drop
from vaeport.port.derivation import Derived, derive_map, layouts_of, twin
from vaeport.port.elsewhere import native_at
from vaeport.port.findings import concerns_of, to_write
from vaeport.port.parity import read_layout
from vaeport.port.request import Request, official_ref, official_root
from vaeport.port.reuse import ReuseProof, reuse_proof
from vaeport.port.state import PortState, new_state
from vaeport.port.store import PortStore
from vaeport.proof.calling import Convention
from vaeport.proof.remote import RemoteSide
from vaeport.proof.setup import native_of
from vaeport.registry import Registration

Say = Callable[[str], None]


class StopError(Exception):
    """A step that cannot be completed: what is missing, and what to do. It is written down, not raised to the user."""

    def __init__(self, note: str, code: int = BlockedError.exit_code) -> None:
        super().__init__(note)
        self.note, self.code = note, code


class Port:
    """One run on one port. The record is saved after every step; a later run goes on behind the last that holds."""

    def __init__(self, request: Request, say: Say = lambda text: None) -> None:
        self.request, self.say = request, say
        self.store = PortStore(request.path("port_state.json"))
        self.state: PortState
        self._kept: dict[str, Any] = {}

    def run(self) -> tuple[PortState, int]:
        """Carries out the steps; returns the record and the exit code: 0 done, 1 the parity test is red, 3 blocked.

        Raises VaeportError for what the user must mend before anything can be done.
        """
        with self.store:
            held = self.store.load()
            self.state = held or self._new()
            inputs, code = self.request.digest(_hash(self.request.file) if self.request.file.is_file() else ""), 0
            for name in STEPS:
                inputs = self._inputs(name, inputs)
                if self._holds(name, inputs):
                    self.say(f"{name}: kept")
                else:
                    code = self._step(name, inputs)
                if code or name == self.request.until:
                    break
            if code:
                self._views()
            return self.state, code

    def _step(self, name: StepName, inputs: str) -> int:
        """Carries out one step and saves; the exit code that ends the run, or 0."""
        self.say(f"{name}: {scaffold.SAYS[name]}")
        start = time.monotonic()
        self._save(self.state.with_step(name, "in_progress", at=_now(), inputs=inputs, note=""))
        try:
            artifacts = getattr(self, f"_{name}")()
        except StopError as stop:
            self._save(self.state.with_step(name, "blocked", at=_now(), note=tidy(stop.note)))
            self.say(f"{name}: stopped: {stop.note}")
            return stop.code
        except VaeportError as error:
            self._save(self.state.with_step(name, "blocked", at=_now(), note=tidy(str(error))))
            raise
        hashes = {path: _hash(self.request.root / path) for path in artifacts}
        note = f"{time.monotonic() - start:.0f} s"
        self._save(self.state.with_step(name, "complete", at=_now(), artifacts=hashes, note=note))
        return 0

    def _inputs(self, name: StepName, before: str) -> str:
        """Hash of what a step depends on: the request, the steps before it, and the native sources from `reuse` on."""
        more = _native_sources(self.request) if name == "reuse" else ""
        return hashlib.sha256(f"{before} {name} {more}".encode()).hexdigest()

    def _holds(self, name: StepName, inputs: str) -> bool:
        """Whether a step was completed with the same inputs and its files are as it left them."""
        step = self.state.steps.of(name)
        files = {path: self.request.root / path for path in step.artifacts}
        return (
            step.status == "complete"
            and step.inputs == inputs
            and all(file.is_file() and _hash(file) == step.artifacts[path] for path, file in files.items())
        )

    def _save(self, state: PortState) -> None:
        self.state = self.store.save(state)

    def _new(self) -> PortState:
        request = self.request
        name = request.reference.rpartition(":")[2]
        weights = request.weights or unknown("no --weights was given")
        return new_state(
            model_family=request.family,
            component=request.component,
            modality="video",  # the probe says what it is
            source={
                "given": request.source,
                "official_ref": official_ref(request.file),
                "official_ref_dir": str(official_root(request.file)),
                "weights": weights,
                "python": request.python or "none",
            },
            definition_files=[
                {
                    "path": str(request.file.relative_to(official_root(request.file))),
                    "symbols": [name],
                    "notes": "defines the layer graph and owns the weights",
                }
            ],
            instantiation_files=[
                {
                    "path": str(request.file.relative_to(official_root(request.file))),
                    "symbols": [name],
                    "args": json.loads(json.dumps(dict(request.arguments), default=str)),
                }
            ],
            weight_source={"file": Path(weights).name if request.weights else weights, "prefix": request.prefix},
            target=_planned(request.family),
            parity={"test": request.test, "missing": ["native_class", "converted_weights"]},
        )

    # The steps. Each returns the files that it wrote, relative to the root.

    def _context(self) -> list[str]:
        blockers = self.state.blockers_to_start()
        if blockers:
            raise StopError("; ".join(map(str, blockers)))
        return []

    def _official(self) -> list[str]:
        side = self._side(self.request.convention())
        described, contract = side.describe(), side.ask("port.probe:probe")
        self._write("official_flow.json", {"flow": contract.pop("flow"), "probe": contract})
        keys = {k: {"shape": s, "dtype": described["dtypes"][k]} for k, s in described["shapes"].items()}
        self._write("official_keys.json", keys)
        convention = {k: v for k, v in contract.pop("convention").items() if k != "weights"}
        stubs = [{"module": name, "reason": "missing here; the VAE never calls it"} for name in described["stubs"]]
        self._kept.pop("probe", None)
        self._save(
            self.state.update(
                modality=contract["modality"],
                contract={**contract, "convention": convention},
                stubs=stubs,
                concerns=concerns_of(contract, described["stubs"]),
                key_dumps={"official": f"{self.request.home}/official_keys.json"},
            )
        )
        return [f"{self.request.home}/official_keys.json", f"{self.request.home}/official_flow.json"]

    def _reuse(self) -> list[str]:
        proof = self._reuse_proof
        nearest = proof.nearest
        rows: dict[str, Any] = {
            "verdict": proof.verdict,
            "evidence": proof.evidence[:20],
            "differences": [tidy(d) for d in proof.differences[:20]],
        }
        if proof.ambiguous:
            self._ask_variant(proof)
        for row in self.state.open_rows("escape_hatches"):
            self._save(
                self.state.resolved(
                    row.id, f"--variant {self.request.variant}" if self.request.variant else "no longer open"
                )
            )
        if nearest is not None and proof.verdict != "port":
            rows |= {"native": nearest.name, "arguments": json.loads(json.dumps(nearest.arch.to_published()))}
        self._save(self.state.update(reuse=rows))
        self._write("reuse.json", {**rows, "nearest": nearest.name if nearest else None})
        return [f"{self.request.home}/reuse.json"]

    def _prototype(self) -> list[str]:
        proof = self._reuse_proof
        if proof.verdict == "port" or proof.nearest is None:
            text = to_write(self.request, self.state.contract, self._flow, proof)
            self.request.path("WRITE_THIS_MODEL.md").write_text(text)
            scaffold.write_test(self.request, self.state, {}, None)
            status = self._pytest()
            self._save(self.state.update(mode="prototype", parity=status))
            raise StopError(
                f"write this model: src/vaeport/models/{self.request.family}.py, as "
                f"{self.request.home}/WRITE_THIS_MODEL.md says; then run the same command again"
            )
        native = proof.nearest
        with torch.device("meta"):
            state = native.registration.model(native.arch).state_dict()
        self._write(
            "native_keys.json", {k: {"shape": list(t.shape), "dtype": str(t.dtype)[6:]} for k, t in state.items()}
        )
        target = scaffold.target_of(native.registration, native.arch, self.request.root)
        self._save(
            self.state.update(
                mode="prototype",
                target=target,
                key_dumps={"native": f"{self.request.home}/native_keys.json"},
                parity={"missing": ["converted_weights"], "status": "scaffold_skip"},
            )
        )
        return [f"{self.request.home}/native_keys.json"]

    def _map(self) -> list[str]:
        derived = self._derived
        registration, arch = self._native
        verdict = twin(
            self._official_side,
            registration,
            arch,
            derived,
            self._flow,
            normalized=self._official_side.convention.normalized,
        )
        self._write("map_verdict.json", verdict.to_json())
        about = f"Keys of {self.request.reference.rpartition(':')[2]}, found from data flow by `vaeport port`."
        self.request.path("weight_map.py").write_text(source_of(derived.rules, about))
        known = derived.registered or (self._register_map(derived) if verdict else None)
        self._write("map.json", {"evidence": derived.evidence, "gate_S": verdict.lines(), "registered": known})
        if not verdict:
            worst = "; ".join(f"{f.name} {f.where}: {f.says}" for f in verdict.failures[:3])
            self._save(
                self.state.with_row(
                    "issues", phase="map", issue="same graph, another function", evidence=tidy(worst), severity="high"
                )
            )
            self._save(self.state.update(reuse={"verdict": "port", "differences": [tidy(worst)]}))
            raise StopError(f"the weights map, but gate S fails: this is not the same function ({worst})", code=1)
        self._save(self.state.update(reuse={"verdict": self._reuse_proof.verdict, "differences": []}))
        for row in self.state.open_rows("issues"):
            if row.phase == "map":
                self._save(self.state.resolved(row.id, "gate S holds now"))
        notes = (
            derived.evidence[-1] if derived.registered else f"derived from data flow: {self.request.home}/weight_map.py"
        )
        self._save(
            self.state.update(conversion={"mapping_notes": notes, "script": f"{self.request.home}/weight_map.py"})
        )
        return [f"{self.request.home}/{name}" for name in ("weight_map.py", "map.json", "map_verdict.json")]

    def _convert(self) -> list[str]:
        request = self.request
        if request.weights is None:
            raise StopError("no checkpoint: run the same command with --weights FILE")
        registration, arch = self._native
        drops = tuple(parse_drop(text) for text in request.drops)
        done = convert(
            Path(request.weights), registration, arch, self._layout, request.root / request.converted,
            prefix=request.prefix, drops=drops,
        )  # fmt: skip
        for row in self.state.open_rows("retries"):
            self._save(self.state.resolved(row.id, f"converted anew, strict load {done.strict_load}"))
        exclusions = [{"key": key, "reason": reason} for key, reason in done.dropped.items()]
        self._save(
            self.state.update(
                mode="parity-debug",
                conversion={
                    "converted_component_dir": request.converted,
                    "model_index_library": "diffusers",
                    "config_file": "config.json",
                    "strict_load": done.strict_load,
                    "exclusions": exclusions,
                    "config_validation": "pass",
                },
                handoff_notes=[tidy(line) for line in done.evidence],
            )
        )
        return [str(file.relative_to(request.root.resolve())) for file in done.files]

    def _parity(self) -> list[str]:
        registration, arch = self._native
        known = next((name for name, one in registration.model.variants.items() if one == arch), None)
        weight_map = None if self._registered_map else "weight_map.py"
        scaffold.write_test(self.request, self.state, known or arch.to_published(), weight_map)
        status = self._pytest()
        self._save(self.state.update(parity=status))
        if status["status"] != "non_skip_pass":
            raise StopError(
                f"the parity test is not green: {status['result']}", code=1 if status["status"] == "debug_red" else 3
            )
        return [self.request.test, status["verdict"]]

    def _handoff(self) -> list[str]:
        files = [self.request.test, self.state.readme, self.state.status_file]
        self._save(
            self.state.update(
                files_changed=sorted({*self.state.files_changed, *files, f"{self.request.home}/port_state.json"})
            )
        )
        self._save(self.state.with_step("handoff", "complete", at=_now()))
        return self._views()

    # What several steps need, made once per run.

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
        return reuse_proof(self._flow, contract, self.request.arguments, own, self.request.variant)

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
        self._save(self.state.update(files_changed=[*self.state.files_changed, f"src/vaeport/weights/{file.name}"]))
        return derived.rules.name

    @cached_property
    def _derived(self) -> Derived:
        registration, arch = self._native
        nearest, contract = self._reuse_proof.nearest, self.state.contract
        assert nearest is not None
        assert nearest.flow is not None
        media, latent = (tuple(map(int, contract[name])) for name in ("media", "latent"))  # type: ignore[arg-type]

        def measure(drawn: Mapping[str, Tensor]) -> Flow:
            with tempfile.TemporaryDirectory(prefix="vaeport-") as folder:
                file = Path(folder) / "drawn.safetensors"
                save_file({key: tensor.contiguous() for key, tensor in drawn.items()}, file)
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

    def _ask_variant(self, proof: ReuseProof) -> None:
        names = proof.ambiguous
        hatch = {
            "needs_user_input": "yes",
            "decision_type": "ambiguity",
            "question": f"Which of the published configurations is this checkpoint's: {', '.join(names)}?",
            "recommended_option": f"{names[0]}, if the checkpoint's name says no more",
            "options": [
                {"option": f"--variant {n}", "consequence": f"latent constants of {n} are written"} for n in names[:3]
            ],
            "safe_default": "none; they differ in constants that the official class leaves to its caller",
            "blocked_until_answered": "yes",
            "state_snapshot": {
                "phase": "reuse",
                "files_changed": [],
                "command_or_test": "vaeport port",
                "evidence": "graph, shapes and contract are equal for all of them",
            },
        }
        if not self.state.open_rows("escape_hatches"):
            self._save(self.state.with_row("escape_hatches", phase="reuse", hatch=hatch))
        raise StopError(
            f"which published configuration? Run again with one of: {', '.join(f'--variant {n}' for n in names)}"
        )

    def _pytest(self) -> dict[str, Any]:
        env = {**os.environ, **self.request.variables}
        return scaffold.run_test(self.request, env)

    def _write(self, name: str, data: Any) -> None:
        self.request.path(name).parent.mkdir(parents=True, exist_ok=True)
        self.request.path(name).write_text(json.dumps(data, indent=1, default=str) + "\n")

    def _views(self) -> list[str]:
        return scaffold.write_views(self.request, self.state)


def _native_sources(request: Request) -> str:
    """Hash of the files in which native models and layers are written."""
    package = Path(__file__).parent.parent
    files = [f for folder in ("models", "layers", "weights") for f in sorted((package / folder).glob("*.py"))]
    if request.native:
        file = sys.modules.get(request.native.partition(":")[0])
        files += [Path(file.__file__)] if file is not None and file.__file__ else []
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()


def _planned(family: str) -> dict[str, Any]:
    searched = unknown("vaeport models: the reuse proof was not run yet")
    return {"name": family, "model": searched, "config": searched}


def _hash(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        for chunk in iter(lambda: opened.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
