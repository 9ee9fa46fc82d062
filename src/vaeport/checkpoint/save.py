"""Write a component folder in Diffusers' layout, whole or not at all."""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaeport.checkpoint.config import CONFIG_NAME
from vaeport.checkpoint.files import exists
from vaeport.checkpoint.layout import SAVE_STEM, VARIANT
from vaeport.checkpoint.safetensors_file import DTYPES
from vaeport.checkpoint.target_folder import carry_over, free_space, move_in, weights_to_keep
from vaeport.checkpoint.text import cut, short, size_text
from vaeport.errors import BlockedError, ConfigError, InputError

_SIZE = re.compile(r"(?=.*[1-9])[0-9]*\.?[0-9]+ *[KMGT]B", re.IGNORECASE)


def save_folder(
    folder: Path,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    *,
    max_shard_size: int | str = "10GB",
    variant: str | None = None,
    metadata: Mapping[str, str] | None = None,
) -> tuple[Path, ...]:
    """Write `config.json` and the weights as safetensors, in shards with an index when they exceed `max_shard_size`.

    Everything is written beside the folder first and moved in at the end. A folder that exists is replaced only where
    it holds nothing but a former save of the same class; weights of other variants in it are kept.

    Args:
        folder: where to write; its parents are made.
        tensors: dense tensors by name, any device and strides; shared memory is written once per name.
        config: what `config.json` will hold.
        max_shard_size: bytes, or text such as `"500MB"` (decimal units).
        variant: written into the file names, such as `fp16`.
        metadata: texts for the header of every weight file, such as where the weights came from.

    Returns:
        The files written: config, weights in order, index last.

    Raises:
        InputError: nothing to save, a tensor without plain values, or the folder holds something else.
        ConfigError: the config is not JSON.
        BlockedError: no space, no permission, a read-only disk.
    """
    folder = Path(os.path.realpath(folder))
    config_text = _config_text(config)
    plan, index = _plan(tensors, max_shard_size, variant)
    kept = weights_to_keep(folder, config["_class_name"], variant)
    texts = {CONFIG_NAME: config_text, **index}
    try:
        with _staged(folder) as staging:
            for name, text in texts.items():
                (staging / name).write_text(text)
            for name, keys in plan.items():
                _write_weights(staging / name, {key: tensors[key] for key in keys}, metadata or {})
            for name in kept:
                carry_over(folder / name, staging / name)
            move_in(staging, folder)
    except OSError as error:
        needed = sum(tensor.nbytes for tensor in tensors.values())
        raise BlockedError(
            "the folder cannot be written; nothing of this save was left behind",
            where=folder,
            expected=f"room for {size_text(needed)} and permission to write",
            found=f"{cut(error.strerror or str(error))}; {free_space(folder.parent)}",
            fix="free some space, or save elsewhere",
        ) from error
    return tuple(folder / name for name in (CONFIG_NAME, *plan, *index))


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder`; whatever was not moved in by the end is removed, parents made for it too."""
    made = [parent for parent in folder.parents if not exists(parent)]
    staging = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}.saving"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging.mkdir()
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        for parent in made:
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()


def _config_text(config: Mapping[str, Any]) -> str:
    problem = None if isinstance(config.get("_class_name"), str) else "no _class_name"
    try:
        text = json.dumps(dict(config), indent=2, sort_keys=True, allow_nan=False) + "\n"
    except (TypeError, ValueError, RecursionError) as error:
        problem = cut(str(error))
    if problem is not None:
        raise ConfigError(
            "the configuration cannot be written as config.json",
            where=CONFIG_NAME,
            expected="text, finite numbers, booleans, lists and dicts, with a _class_name",
            found=problem,
            fix="convert the value before saving",
        )
    return text


def _plan(
    tensors: Mapping[str, Tensor], max_shard_size: int | str, variant: str | None
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Tensor names per weight file, and the index as {file name: text}, empty when one file holds all."""
    from huggingface_hub import split_state_dict_into_shards_factory

    if not tensors:
        raise InputError("there are no tensors to save", expected="at least one", fix="pass the model's state")
    for name, tensor in tensors.items():
        if tensor.layout is not torch.strided or tensor.is_meta or tensor.dtype not in DTYPES.values():
            raise InputError(
                "the tensor cannot be saved as safetensors",
                where=f"tensor {short(name)}",
                expected="a dense tensor with values, of a plain dtype",
                found=f"{tensor.layout}, {tensor.dtype}, on {tensor.device.type}",
                fix="make it dense and load its values first",
            )
    if variant is not None and not VARIANT.fullmatch(variant):
        raise InputError("not a variant", expected="letters, digits and underscores", found=short(variant))
    dot = "" if variant is None else f".{variant}"
    if not (_SIZE.fullmatch(max_shard_size) if isinstance(max_shard_size, str) else max_shard_size > 0):
        raise InputError("not a shard size", expected='bytes, or text such as "500MB"', found=short(max_shard_size))
    split = split_state_dict_into_shards_factory(
        dict(tensors),
        get_storage_size=lambda tensor: tensor.nbytes,
        filename_pattern=SAVE_STEM + dot + "{suffix}.safetensors",
        max_shard_size=max_shard_size,
    )
    index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
    text = json.dumps(index, indent=2, sort_keys=True) + "\n"
    return split.filename_to_tensors, {f"{SAVE_STEM}.safetensors.index{dot}.json": text} if split.is_sharded else {}


def _write_weights(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write one file; a tensor that shares memory with another is copied, so that every name has its own bytes."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    storages: set[int] = set()
    dense: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        storage = own.untyped_storage().data_ptr()
        dense[name] = own.clone() if storage in storages else own
        storages.add(storage)
    try:
        save_file(dense, path, metadata={**metadata, "format": "pt"})
    except SafetensorError as error:
        match = re.search(r"os error (\d+)", str(error))
        raise OSError(int(match[1]), os.strerror(int(match[1]))) if match else OSError(str(error)) from error
    # safetensors writes for the owner alone; weights get the permissions that any new file gets.
    path.chmod((path.parent / CONFIG_NAME).stat().st_mode)
