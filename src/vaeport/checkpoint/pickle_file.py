"""One pickled checkpoint, opened by torch's restricted unpickler alone: code in a pickle is named, never run."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vaeport.checkpoint.entry import Entry
from vaeport.checkpoint.files import describe_start, require_file
from vaeport.checkpoint.pickle_globals import unsafe_globals
from vaeport.checkpoint.text import cut, is_unicode, listing, short
from vaeport.checkpoint.torch_zip import is_zip, require_storages, storage_records
from vaeport.errors import CheckpointError, CorruptFileError, UnsafePickleError

WRAPPERS = ("state_dict", "model_state_dict")
RESAVE = 'torch.save(torch.load(FILE, weights_only={})[KEY], "weights.pt")'


class PickleFile:
    """The tensors of a pickled dict, unwrapped from `state_dict` or `model_state_dict`, mapped where the format allows.

    `ignored` lists what was left out because it is no tensor. Files in torch's format from before 1.6 cannot be
    mapped: their weights are in memory once opened.

    Raises:
        UnsafePickleError: the pickle asks for more than tensors; nothing of it was run.
        CorruptFileError: truncated, malformed, or its tensors do not lie in its storages.
        CheckpointError: it holds no dict of tensors.
    """

    format = "pickle"

    def __init__(self, path: Path) -> None:
        self.path = require_file(path)
        self.metadata: dict[str, str] = {}
        size = path.stat().st_size
        storages = storage_records(path, size) if is_zip(path) else None
        self._tensors, self.ignored = _tensors(_load(path, mmap=storages is not None), path)
        for name, tensor in self._tensors.items():
            _require_plain(name, tensor, path, size)
        if storages is not None:
            require_storages(self._tensors, storages, path)
        self.entries = {
            name: Entry(name, tuple(t.shape), t.dtype, t.numel() * t.element_size(), path)
            for name, t in self._tensors.items()
        }

    def tensor(self, name: str) -> torch.Tensor:
        """One tensor, on the CPU."""
        return self._tensors[name]


def _load(path: Path, *, mmap: bool) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # a malformed pickle can raise anything; none of it came from code in the file
        wanted = unsafe_globals(path)
        if wanted:
            raise UnsafePickleError(
                "the pickle asks for code; it was not run",
                where=path,
                expected="tensors and plain containers only",
                found=f"it wants {listing([cut(name, 80) for name in wanted], 8)}",
                fix="get these weights as .safetensors; or, where you trust the file, " + RESAVE.format(False),
            ) from error
        raise CorruptFileError(
            "not a readable torch checkpoint",
            where=path,
            expected="a file written by torch.save",
            found=f"{describe_start(path)}; torch says: {cut(_reason(error))}",
            fix="download or copy the file again",
        ) from error


def _reason(error: Exception) -> str:
    """torch's reason without its advice to switch the protection off."""
    text = str(error).rpartition("WeightsUnpickler error:")[2].strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _tensors(value: object, path: Path) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """The tensors of a checkpoint's dict, and in words everything beside them."""
    ignored: list[str] = []
    wrapper = next((w for w in WRAPPERS if isinstance(value, Mapping) and isinstance(value.get(w), Mapping)), None)
    if wrapper is not None and isinstance(value, Mapping):
        ignored += [f"{_key(key)} ({_describe(item)})" for key, item in value.items() if key != wrapper]
        value = value[wrapper]
    leaves = dict(value) if isinstance(value, Mapping) else {}
    tensors = {key: item.detach() for key, item in leaves.items() if isinstance(key, str) and _is_tensor(item)}
    inside = "" if wrapper is None else f"{wrapper}."
    ignored += [f"{inside}{_key(key)} ({_describe(item)})" for key, item in leaves.items() if key not in tensors]
    if not tensors:
        found = listing(ignored) if ignored else _describe(value)
        raise CheckpointError(
            "the checkpoint holds no tensors where they are looked for",
            where=path,
            expected=f"a dict of tensors, or one under {' or '.join(map(repr, WRAPPERS))}",
            found=found,
            fix="save the tensors alone: " + RESAVE.format(True),
        )
    return dict(sorted(tensors.items())), tuple(ignored)


def _is_tensor(value: object) -> bool:
    return isinstance(value, torch.Tensor)


def _key(key: object) -> str:
    return cut(key, 80) if isinstance(key, str) else short(key)


def _describe(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"dict of {sum(map(_is_tensor, value.values()))} tensors among {len(value)} items"
    return type(value).__name__


def _require_plain(name: str, tensor: torch.Tensor, path: Path, size: int) -> None:
    kind = None
    if not is_unicode(name):
        kind = "a name with half of a surrogate pair"
    elif tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_nested:
        kind = "a sparse, quantized or nested tensor"
    elif tensor.device.type != "cpu":
        kind = f"a tensor on {tensor.device.type}, without values"
    elif tensor.numel() * tensor.element_size() > size:
        kind = f"a tensor of {tensor.numel() * tensor.element_size()} bytes"
    if kind is not None:
        raise CorruptFileError(
            "the checkpoint holds a tensor without plain values of its own",
            where=f"{path}, tensor {short(name)}",
            expected=f"a dense tensor inside the {size} bytes of the file",
            found=kind,
            fix="save the tensors dense and contiguous",
        )
