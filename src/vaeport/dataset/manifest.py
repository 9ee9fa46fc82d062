"""`manifest.json`: what an output folder holds, and of which run it is.

It is written before anything else, with the run alone, and again when all shards are committed, with them, and when one
of these is withdrawn.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, get_args

from vaeport.dataset.items import Listing
from vaeport.dataset.log import Shard
from vaeport.dataset.settings import Layout, Settings
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
            names = {one.name for one in folder.iterdir()} - {MANIFEST}  # another rank may have written it by now
            others = sorted(name for name in names if not name.startswith((".lock", ".vaeport-")))
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
    partial = path.with_name(f".vaeport-{secrets.token_hex(8)}.partial")
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
    try:
        version, run = told["format_version"], told["run"]
        good = version != FORMAT_VERSION or (
            told["complete"] in (True, False)
            and min(run["source"]["items"], run["settings"]["shard_items"]) >= 1
            and run["settings"]["layout"] in get_args(Layout)
        )
    except (KeyError, TypeError):
        good = False
    if not good:
        raise DatasetError("the manifest is damaged", where=path, expected="what was written there")
    if version != FORMAT_VERSION:
        raise DatasetError("the manifest is of another version", expected=f"version {FORMAT_VERSION}", found=version)
    return dict(told)


def listing_of(shards: Iterable[Shard]) -> tuple[dict[str, Any], str]:
    """What the manifest of a complete run has more, and the text of `quarantine.jsonl`: a line for each such item."""
    told = [shard.to_json() for shard in shards]
    lines = [json.dumps(one, sort_keys=True) + "\n" for shard in told for one in shard["quarantined"]]
    items = sum(len(shard["ids"]) for shard in told)
    return {"complete": True, "items": items, "quarantined": len(lines), "shards": told}, "".join(lines)


def complete(folder: Path, shards: Iterable[Shard]) -> None:
    """Write the manifest with all shards, and `quarantine.jsonl`."""
    listing, quarantine = listing_of(shards)
    _replace(folder / QUARANTINE, quarantine)
    _replace(folder / MANIFEST, json.dumps(read_manifest(folder) | listing, indent=2) + "\n")


def reopen(folder: Path) -> None:
    """Write the manifest as it is before all shards are committed."""
    more = listing_of(())[0].keys()
    told = {name: value for name, value in read_manifest(folder).items() if name not in more} | {"complete": False}
    _replace(folder / MANIFEST, json.dumps(told, indent=2) + "\n")


def _replace(path: Path, text: str) -> None:
    with atomic(path, DatasetError) as partial, writing(path, DatasetError):
        partial.write_text(text, "utf-8")
