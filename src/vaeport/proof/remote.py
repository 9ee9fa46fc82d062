"""A reference in another Python environment: jobs and captures travel through a folder.

`python -m vaeport.proof.remote FOLDER` carries out the jobs found there. A folder that is kept can be read again later
without the other environment; its captures belong to one weight file and one set of inputs, and to nothing else.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from vaeport.errors import BlockedError, ProofError, VaeportError
from vaeport.proof.calling import Convention
from vaeport.proof.jobs import Capture, Job
from vaeport.proof.precision import Health
from vaeport.proof.sides import ReferenceSide, hash_files


class StaleCaptureError(ProofError):
    """Captures on disk were made with other weights, inputs or arguments."""


@dataclass
class RemoteSide:
    """A `ReferenceSide` that runs under another interpreter.

    python      the interpreter; None: only read captures from `folder`
    folder      where captures are kept; None: a temporary folder
    """

    path: str
    arguments: Mapping[str, Any]
    adapter_file: str | None = None
    device: str = "cpu"
    python: str | None = None
    folder: Path | None = None
    convention: Convention = field(default_factory=Convention)
    _described: str | None = field(default=None, init=False, repr=False)

    def describe(self) -> dict[str, Any]:
        """See `Side`; kept with the captures."""
        if self._described is None:
            self._described = json.dumps(self._describe())
        return json.loads(self._described)  # type: ignore[no-any-return]

    def _describe(self) -> dict[str, Any]:
        kept = None if self.folder is None else self.folder / "describe.json"
        if kept is not None and kept.exists():
            return json.loads(kept.read_text())  # type: ignore[no-any-return]
        with tempfile.TemporaryDirectory(prefix="vaeport-") as temporary:
            found = self._call(Path(temporary), {"do": "describe"})
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(found))
        return found

    def run(self, weights: Path, jobs: Iterable[Job]) -> Iterator[Capture]:
        """See `Side`."""
        jobs = list(jobs)
        adapter = hash_files(self.adapter_file)
        digest = _digest(weights, jobs, {**self._spec(), "adapter": adapter})
        kept = self._kept(jobs, digest)
        if kept is not None and (kept / "out.json").exists():
            found = json.loads((kept / "out.json").read_text())
            if found["digest"] != digest:
                raise StaleCaptureError(
                    f"{self.folder} holds captures of other weights, inputs or arguments; remove it"
                )
            _lend(jobs, kept)
            yield from _read(kept, found)
            return
        if self.python is None and kept is not None and kept != self.folder:
            fix = "run once with --reference-python and --explain, with the same weights and inputs"
            raise BlockedError("no captures of the reference's modules yet", where=self.folder, fix=fix)
        with tempfile.TemporaryDirectory(prefix="vaeport-") as temporary:
            folder = kept or Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            save_file(
                {f"{i}.{n}": getattr(j, n).clone() for i, j in enumerate(jobs) for n in ("media", "latent")},
                folder / "in.safetensors",
            )
            plain = [
                {
                    **asdict(j),
                    "media": None,
                    "latent": None,
                    "dtype": _name(j.dtype),
                    "rounded": _name(j.rounded),
                    "folder": j.folder if kept is None or j.folder is None else str((kept / str(i)).resolve()),
                }
                for i, j in enumerate(jobs)
            ]
            found = self._call(folder, {"do": "jobs", "weights": str(weights), "jobs": plain, "digest": digest})
            if kept is not None:
                _lend(jobs, kept)
            yield from _read(folder, found)

    def _kept(self, jobs: Sequence[Job], digest: str) -> Path | None:
        """Where the captures of these jobs are kept: apart from the gates' own those that explain, in many sets."""
        if self.folder is not None and any(job.folder is not None for job in jobs):
            return self.folder / f"units-{digest[:16]}"
        # the gates ask for outputs too
        if self.folder is not None and jobs and all(job.rows is not None for job in jobs):
            return self.folder / f"types-{digest[:16]}"
        return self.folder

    def ask(self, question: str, **arguments: Any) -> dict[str, Any]:
        """What `function(side, **arguments)` gives there, as JSON; `question` is "module:function" of this package."""
        with tempfile.TemporaryDirectory(prefix="vaeport-") as temporary:
            return self._call(Path(temporary), {"do": question, "with": arguments})

    def _spec(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "arguments": dict(self.arguments),
            "adapter_file": self.adapter_file,
            "device": self.device,
            "convention": asdict(self.convention),
        }

    def _call(self, folder: Path, request: dict[str, Any]) -> dict[str, Any]:
        if self.python is None:
            raise BlockedError(
                "no captures of the reference yet", where=self.folder, fix="run once with --reference-python"
            )
        (folder / "request.json").write_text(json.dumps({**self._spec(), **request}))
        answer, told = folder / "out.json", folder / "error.json"
        for stale in (answer, told):
            stale.unlink(missing_ok=True)
        source = str(Path(__file__).parents[2])
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH")))),
        }
        try:
            done = subprocess.run(
                [self.python, "-m", "vaeport.proof.remote", str(folder)],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
        except OSError as error:
            raise BlockedError("the reference's interpreter does not start", where=self.python, found=error) from error
        if done.returncode != 0 or not answer.exists():
            if told.exists():
                raise ProofError(**json.loads(told.read_text()))
            raise ProofError(
                "the reference failed in its own environment", where=self.python, found=done.stderr.strip()[-2000:]
            )
        return json.loads(answer.read_text())  # type: ignore[no-any-return]


def main(folder: Path) -> None:
    """Carries out the request in `folder`."""
    request = json.loads((folder / "request.json").read_text())
    convention = Convention(**request["convention"])
    side = ReferenceSide(request["path"], request["arguments"], request["adapter_file"], request["device"], convention)
    if request["do"] != "jobs":
        module, _, name = request["do"].rpartition(":")
        call = getattr(importlib.import_module(f"vaeport.{module}"), name) if module else ReferenceSide.describe
        (folder / "out.json").write_text(json.dumps(call(side, **request.get("with", {}))))
        return
    inputs = load_file(folder / "in.safetensors")
    jobs = [
        Job(
            **{
                **j,
                "media": inputs[f"{i}.media"],
                "latent": inputs[f"{i}.latent"],
                "dtype": _dtype(j["dtype"]),
                "rounded": _dtype(j["rounded"]),
                "rows": None if j["rows"] is None else tuple(j["rows"]),
                "units": tuple(j["units"]),
            }
        )
        for i, j in enumerate(request["jobs"])
    ]
    captures = list(side.run(Path(request["weights"]), jobs))
    tensors = {f"{i}.{name}": t.clone() for i, c in enumerate(captures) for name, t in c.outputs.items()}
    save_file(tensors, folder / "out.safetensors")
    plain = []
    for capture in captures:
        capture.outputs = {}
        plain.append(asdict(capture))
    (folder / "out.json").write_text(json.dumps({"digest": request["digest"], "captures": plain}))


def _read(folder: Path, found: Mapping[str, Any]) -> Iterator[Capture]:
    tensors = load_file(folder / "out.safetensors")
    for i, plain in enumerate(found["captures"]):
        health = Health(
            {k: (v[0], v[1]) for k, v in plain["health"]["rms"].items()},
            plain["health"]["entropy"] and tuple(plain["health"]["entropy"]),
        )
        outputs = {k.split(".", 1)[1]: t for k, t in tensors.items() if k.startswith(f"{i}.")}
        yield Capture(**{**plain, "health": health, "outputs": outputs})


def _lend(jobs: Iterable[Job], kept: Path) -> None:
    """Has the folders that jobs ask for show what is kept of the modules."""
    for i, job in enumerate(jobs):
        if job.folder is not None:
            Path(job.folder).parent.mkdir(parents=True, exist_ok=True)
            Path(job.folder).symlink_to((kept / str(i)).resolve(), target_is_directory=True)


def _digest(weights: Path, jobs: list[Job], spec: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True, default=str).encode())
    digest.update(hashlib.sha256(weights.read_bytes()).digest())
    for job in jobs:
        digest.update(f"{job.name} {job.dtype} {job.rounded} {job.relaid} {job.rows}".encode())
        digest.update(f" {job.units}".encode() if job.folder is not None else b"")
        digest.update(job.media.numpy().tobytes() + job.latent.numpy().tobytes())
    return digest.hexdigest()


def _name(dtype: torch.dtype | None) -> str | None:
    return None if dtype is None else str(dtype).removeprefix("torch.")


def _dtype(name: str | None) -> torch.dtype | None:
    return None if name is None else getattr(torch, name)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    try:
        main(place)
    except VaeportError as error:
        parts = {name: getattr(error, name) for name in ("what", "where", "expected", "found", "fix")}
        (place / "error.json").write_text(json.dumps(parts, default=str))
        sys.exit(1)
