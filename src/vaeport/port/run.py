"""`Port`: carries a port from its request to its hand-over, step by step, and stops where something must be written."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vaeport.errors import VaeportError
from vaeport.port import scaffold
from vaeport.port.contracts.fields import unknown
from vaeport.port.contracts.steps import STEPS, StepName
from vaeport.port.contracts.text import tidy
from vaeport.port.gate import BEFORE, remember
from vaeport.port.request import Request, official_ref, official_root
from vaeport.port.state import PortState, new_state
from vaeport.port.steps import Steps, now
from vaeport.port.work import StopError, file_hash

Say = Callable[[str], None]


class Port(Steps):
    """One run on one port. The record is saved after every step; a later run goes on behind the last that holds."""

    def __init__(self, request: Request, say: Say = lambda text: None) -> None:
        super().__init__(request)
        self.say = say

    def run(self) -> tuple[PortState, int]:
        """Carries out the steps; returns the record and the exit code: 0 done, 1 the parity test is red, 3 blocked.

        Raises VaeportError for what the user must mend before anything can be done.
        """
        _ = self.request.file, self.request.reference  # refused before anything is written
        with self.store:
            remember(self.request)
            self.request.path(".gitignore").write_text(f"converted/\n*.lock\n{BEFORE}\n")
            held = self.store.load()
            self.state = held or self._new()
            inputs, code = self.request.digest(file_hash(self.request.file) if self.request.file.is_file() else ""), 0
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
        start = time.monotonic()
        self._save(self.state.with_step(name, "in_progress", at=now(), inputs=inputs, note=""))
        self.say(f"{name}: {scaffold.SAYS[name]}")
        try:
            artifacts = getattr(self, name)()
        except StopError as stop:
            self._save(self.state.with_step(name, "blocked", at=now(), note=tidy(stop.note)))
            self.say(f"{name}: stopped: {stop.note}")
            return stop.code
        except VaeportError as error:
            self._save(self.state.with_step(name, "blocked", at=now(), note=tidy(str(error))))
            raise
        hashes = {path: file_hash(self.request.root / path) for path in artifacts}
        note = f"{time.monotonic() - start:.0f} s"
        self._save(self.state.with_step(name, "complete", at=now(), artifacts=hashes, note=note))
        return 0

    def _inputs(self, name: StepName, before: str) -> str:
        """Hash of what a step depends on: the request, the steps before it, native sources, the checkpoint."""
        more = ""
        if name == "reuse":
            more = _native_sources(self.request)
        if name == "convert" and self.request.weights is not None:
            stat = Path(self.request.weights).stat()
            more = f"{stat.st_size} {stat.st_mtime_ns}"
        return hashlib.sha256(f"{before} {name} {more}".encode()).hexdigest()

    def _holds(self, name: StepName, inputs: str) -> bool:
        """Whether a step was completed with the same inputs and its files are as it left them.

        The hand-over never holds: trees and packages may have been edited since.
        """
        step = self.state.steps.of(name)
        files = {path: self.request.root / path for path in step.artifacts}
        return (
            name != "handoff"
            and step.status == "complete"
            and step.inputs == inputs
            and all(file.is_file() and file_hash(file) == step.artifacts[path] for path, file in files.items())
        )

    def _new(self) -> PortState:
        request = self.request
        name = request.reference.rpartition(":")[2]
        place = str(request.file.relative_to(official_root(request.file)))
        weights = request.weights or unknown("no --weights was given")
        return new_state(
            model_family=request.family,
            component=request.component,
            modality="video",  # the probe says what it is
            source={
                "given": request.source,
                "official_ref": official_ref(request.file),
                "official_ref_dir": _folder(request),
                "weights": weights,
                "python": request.python or "none",
            },
            definition_files=[
                {
                    "path": place,
                    "symbols": [name],
                    "notes": "defines the layer graph and owns the weights",
                }
            ],
            instantiation_files=[
                {
                    "path": place,
                    "symbols": [name],
                    "args": json.loads(json.dumps(dict(request.arguments), default=str)),
                }
            ],
            weight_source={"file": Path(weights).name if request.weights else weights, "prefix": request.prefix},
            target=_planned(request.family),
            parity={"test": request.test, "missing": ["native_class", "converted_weights"]},
        )


def _native_sources(request: Request) -> str:
    """Hash of the files in which native models and layers are written."""
    package = Path(__file__).parent.parent
    files = [f for folder in ("models", "layers") for f in sorted((package / folder).glob("*.py"))]
    if request.native:
        file = sys.modules.get(request.native.partition(":")[0])
        files += [Path(file.__file__)] if file is not None and file.__file__ else []
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()


def _folder(request: Request) -> str:
    """Where the official source lies: its folder as it was given, or the package that it is imported from."""
    given = "/" in request.source or request.source.endswith(".py")
    return str(official_root(request.file)) if given else request.source.partition(":")[0]


def _planned(family: str) -> dict[str, Any]:
    searched = unknown("vaeport models: the reuse proof was not run yet")
    return {"name": family, "model": searched, "config": searched}
