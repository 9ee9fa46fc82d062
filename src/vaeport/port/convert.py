"""Official checkpoint -> component folder, through the derived map and the production loader's own code."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from vaeport.checkpoint import Checkpoint, open_checkpoint, save_folder
from vaeport.configs import VAEArchConfig
from vaeport.errors import ConfigError, KeyMismatchError
from vaeport.mapping import Drop, Layout, Plan, plan
from vaeport.mapping.induce import source_of
from vaeport.port.flows import UNREAD
from vaeport.registry import ModelRegistry, Registration
from vaeport.runtime.load import load
from vaeport.runtime.reading import native_shapes


@dataclass
class Conversion:
    """What was written: the folder, the layout it has, what was dropped, and whether the production loader takes it."""

    folder: Path
    files: tuple[Path, ...]
    layout: str
    dropped: Mapping[str, str]
    strict_load: str
    evidence: list[str]


@contextmanager
def official_weights(
    checkpoint: Path,
    layout: Layout,
    native: Mapping[str, tuple[int, ...]],
    prefix: str = "",
    drops: Sequence[Drop] = (),
) -> Iterator[tuple[Checkpoint, Plan]]:
    """The checkpoint, and the plan that accounts for every key of it; KeyMismatchError lists what does not fit."""
    with open_checkpoint(checkpoint) as opened:
        shapes = {name: entry.shape for name, entry in opened.entries.items()}
        wider = replace(layout, prefixes=(prefix, *layout.prefixes), drops=(*layout.drops, *drops))
        mapped = plan(wider, native, shapes)
        if not mapped.steps:
            wider = replace(wider, prefixes=(_prefix(shapes, layout, native), *wider.prefixes))
            mapped = plan(wider, native, shapes)
        if mapped.misshapen and not (mapped.missing or mapped.unexpected):
            raise KeyMismatchError(
                "the checkpoint is of another variant: it has the same keys, with other shapes",
                where=checkpoint,
                expected="the shapes of the official arguments",
                found="; ".join(mapped.misshapen[:6]),
                fix="give the arguments that belong to this checkpoint, or the checkpoint that belongs to them",
            )
        mapped.require(
            checkpoint,
            'give the prefix of the VAE\'s keys with --prefix, or name keys that are dropped: --drop "REGEX=REASON"',
        )
        yield opened, mapped


def _prefix(stored: Mapping[str, Any], layout: Layout, native: Mapping[str, Any]) -> str:
    """What stands before the keys of a whole pipeline's file."""
    wanted = {text.partition("#")[0] for key in native if (found := layout.rule_of(key)) for text in found[1]}
    longest = max(wanted, key=len, default="")
    ends = [key for key in stored if longest and key.endswith("." + longest)]
    return ends[0].removesuffix(longest) if len(ends) == 1 else ""


def convert(
    checkpoint: Path,
    registration: Registration,
    arch: VAEArchConfig,
    layout: Layout,
    folder: Path,
    *,
    prefix: str = "",
    drops: Sequence[Drop] = (),
    max_shard_size: int | str = "10GB",
) -> Conversion:
    """Writes `config.json` and safetensors, and loads them again as a pipeline would: strictly, found by `_class_name`.

    Tensors are mapped from the checkpoint and written shard by shard; the folder appears whole or not at all.

    Raises KeyMismatchError, CheckpointError, ConfigError or BlockedError.
    """
    native = native_shapes(registration.model, arch)
    target = _written_layout(registration, layout)
    config = arch.to_published()
    with official_weights(checkpoint, layout, native, prefix, drops) as (opened, mapped):
        back = plan(target, native).require(folder, "mend the map")
        tensors = dict(back.write(dict(mapped.convert(opened.tensor)).__getitem__))
        metadata = {
            "vaeport.source": checkpoint.name,
            "vaeport.source_keys_sha256": _keys_hash(opened),
            "vaeport.map_sha256": hashlib.sha256(source_of(mapped.layout, "map").encode()).hexdigest(),
            "vaeport.class": registration.name,
        }
        files = save_folder(folder, tensors, config, max_shard_size=max_shard_size, metadata=metadata)
        dropped = dict(mapped.dropped)
        elements = sum(t.numel() for t in tensors.values())
    evidence = [f"{len(tensors)} tensors, {elements} elements, layout `{target.name}`"]
    strict = "pass_with_documented_exclusions" if dropped else "pass"
    if _is_registered(registration):
        # the class is found through config.json alone, as in production
        loaded = load(folder)
        if loaded.arch != arch:
            raise ConfigError(
                "config.json does not lead back to the same arguments", where=folder, expected=arch, found=loaded.arch
            )
        evidence.append(
            f"the production loader takes the folder strictly as {type(loaded).__name__}, "
            f"weights {loaded.weights_hash()[:16]}"
        )
    else:
        evidence.append("the class is not registered, so the folder is loaded by its import path")
    return Conversion(folder, files, target.name, dropped, strict, evidence)


def _written_layout(registration: Registration, layout: Layout) -> Layout:
    """The layout that `save` writes: the first registered one; the derived one for a model without maps."""
    try:
        return registration.layouts[0]
    except (ConfigError, IndexError):
        return layout


def _is_registered(registration: Registration) -> bool:
    return any(one.name == registration.name for one in ModelRegistry.registrations())


def _keys_hash(checkpoint: Checkpoint) -> str:
    rows = (f"{name} {entry.dtype} {tuple(entry.shape)}\n" for name, entry in sorted(checkpoint.entries.items()))
    return hashlib.sha256("".join(rows).encode()).hexdigest()


def parse_drop(text: str) -> Drop:
    """`REGEX=REASON`; ConfigError without a reason or for a pattern that is none."""
    pattern, _, reason = text.partition("=")
    try:
        re.compile(pattern)
    except re.error as error:
        raise ConfigError("not a regular expression", found=pattern, expected=str(error)) from error
    if not reason.strip():
        raise ConfigError(
            "a key is dropped by name and with a reason", expected='--drop "loss\\..*=training only"', found=text
        )
    return Drop(pattern, reason.strip())


def checkpoint_tensors(opened: Checkpoint, mapped: Plan) -> dict[str, Tensor]:
    """Official weights under the keys of the official module, for its own strict load."""
    keys = dict.fromkeys(key for step in mapped.steps for key in step.stored)
    return {key.removeprefix(mapped.prefix): opened.tensor(key) for key in [*keys, *_unread(mapped)]}


def _unread(mapped: Plan) -> list[str]:
    """Keys that the official module has and never reads."""
    return [key for key, reason in mapped.dropped.items() if reason == UNREAD]
