"""`manifest.json`: what an output folder holds, and of which run it is.

It is written before anything else, with the run alone, and again when all shards are committed, with them.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from vaeport.dataset.items import Listing
from vaeport.dataset.log import Shard
from vaeport.dataset.settings import Settings
from vaeport.errors import DatasetError
from vaeport.media.atomic import atomic
from vaeport.media.files import writing
from vaeport.media.latent_header import differences
from vaeport.registry import ModelRegistry
from vaeport.vae import VAE

MANIFEST, QUARANTINE = "manifest.json", "quarantine.jsonl"
FORMAT_VERSION = 1
_PACKAGES = ("vaeport", "torch", "numpy", "av", "pillow", "soundfile", "pyarrow", "safetensors")


def run_of(vae: VAE, listing: Listing, settings: Settings) -> dict[str, Any]:
    """All that the output depends on: two runs that agree in it may go on with each other's work."""
    return {
        "source": {"kind": listing.kind, "items": len(listing.items), "sha256": listing.fingerprint()},
        "vae": {
            "model": ModelRegistry.find_class(type(vae)).name,
            "class": type(vae).__name__,
            "encoder_sha256": vae.weights_hash("encoder"),
            "contract": vae.contract.to_json(),
            "dtype": str(vae.half_dtype("encoder")).removeprefix("torch."),
            "precision": vae.config.precision,
            "tiling": vae.config.tiling,
        },
        "latents": {
            "posterior": "mode" if settings.seed is None else "sample",
            "normalized": settings.normalize or vae.config.latents == "normalized",
        },
        "settings": settings.to_json(),
    }


def made_with(vae: VAE) -> dict[str, Any]:
    """Versions and device; the last bits of latents may depend on them."""
    return {
        "python": platform.python_version(),
        "device": vae.device.type,
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def claim(folder: Path, run: Mapping[str, Any], made: Mapping[str, Any]) -> None:
    """Makes the folder this run's, or makes sure that it is.

    Raises DatasetError if it is another run's, which says in what they differ, or holds something else; BlockedError
    if it cannot be written.
    """
    path = folder / MANIFEST
    with writing(folder, DatasetError):
        if not path.exists():
            others = sorted(p.name for p in folder.iterdir() if not p.name.startswith((".lock", ".vaeport-")))
            if others:
                expected, found = "an empty folder, or one of `vaeport dataset`", ", ".join(others[:5])
                raise DatasetError("the folder holds something else", where=folder, expected=expected, found=found)
            _begin(path, {"format_version": FORMAT_VERSION, "run": run, "made_with": made, "complete": False})
    told = read_manifest(folder)
    differing = list(differences(json.loads(json.dumps(told["run"])), json.loads(json.dumps(run))))
    if differing:
        raise DatasetError(
            "the folder holds the output of another run",
            where=folder,
            expected="; ".join(f"{name} = {value}" for name, value, _ in differing[:8]),
            found="; ".join(f"{name} = {value}" for name, _, value in differing[:8]),
            fix="run with what it was begun with, or write to another folder",
        )


def _begin(path: Path, told: Mapping[str, Any]) -> None:
    """Write a manifest unless another rank was first."""
    partial = path.with_name(f".vaeport-{os.getpid()}.partial")
    with writing(path, DatasetError):
        try:
            partial.write_text(json.dumps(told, indent=2) + "\n")
            with partial.open("rb+") as stream:
                os.fsync(stream.fileno())
            os.link(partial, path)
        except FileExistsError:
            pass
        finally:
            partial.unlink(missing_ok=True)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest; DatasetError if there is none, it is damaged, or newer than this vaeport."""
    path = folder / MANIFEST
    try:
        told = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise DatasetError("this is no output of `vaeport dataset`", where=folder, expected=MANIFEST) from error
    except (OSError, ValueError) as error:
        raise DatasetError("the manifest cannot be read", where=path, found=error) from error
    if not isinstance(told, dict) or not {"format_version", "run", "complete"} <= told.keys():
        raise DatasetError("the manifest is damaged", where=path, expected="format_version, run, complete")
    if told["format_version"] != FORMAT_VERSION:
        expected = f"format version {FORMAT_VERSION}"
        raise DatasetError("the manifest is of another version", expected=expected, found=told["format_version"])
    return told


def complete(folder: Path, shards: Iterable[Shard]) -> None:
    """Write the manifest with all shards, and `quarantine.jsonl`, a line for every item that is in it."""
    ordered = sorted(shards, key=lambda shard: shard.shard)
    lines = [json.dumps(one, sort_keys=True) + "\n" for shard in ordered for one in shard.quarantined]
    with atomic(folder / QUARANTINE, DatasetError) as partial, writing(folder / QUARANTINE, DatasetError):
        partial.write_text("".join(lines), "utf-8")
    told = read_manifest(folder) | {
        "complete": True,
        "items": sum(len(shard.ids) for shard in ordered),
        "quarantined": len(lines),
        "shards": [shard.to_json() for shard in ordered],
    }
    with atomic(folder / MANIFEST, DatasetError) as partial, writing(folder / MANIFEST, DatasetError):
        partial.write_text(json.dumps(told, indent=2) + "\n", "utf-8")
