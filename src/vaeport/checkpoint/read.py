"""Open a checkpoint, whatever its layout: entries from headers, values mapped on demand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import torch

from vaeport.checkpoint.entry import Entry
from vaeport.checkpoint.files import describe_start, exists, require_file
from vaeport.checkpoint.layout import FILE_SUFFIXES, find_weights
from vaeport.checkpoint.pickle_file import PickleFile
from vaeport.checkpoint.safetensors_file import SafetensorsFile
from vaeport.checkpoint.shard_index import read_index, require_agreement
from vaeport.checkpoint.text import nearest_names, short
from vaeport.closing import Closing
from vaeport.errors import CheckpointError, CorruptFileError, KeyMismatchError

__all__ = ["Checkpoint", "Entry", "open_checkpoint"]

WeightFile = SafetensorsFile | PickleFile


class Checkpoint(Closing):
    """The tensors of one checkpoint, from one file or many. Use it as a context manager.

    Attributes:
        path: the file, index or folder that was opened.
        files: the weight files, in the order of their names.
        entries: what the headers say, sorted by tensor name.
        metadata: text that came with the weights; a key that two files give differently stands as `key (file name)`.
        ignored: what a pickle holds beside tensors, in words.
        format: `safetensors` or `pickle`, or both when an index mixes them.
    """

    def __init__(self, path: Path, sources: Mapping[Path, WeightFile], metadata: Mapping[str, str]) -> None:
        self.path = path
        self._sources = dict(sources)
        self.files = tuple(sorted(sources))
        self.format = " and ".join(sorted({source.format for source in sources.values()}))
        self.ignored = tuple(item for file in self.files for item in sources[file].ignored)
        self.entries: Mapping[str, Entry] = MappingProxyType(_merge_entries(path, sources))
        self.metadata: Mapping[str, str] = MappingProxyType(_merge_metadata(sources, metadata))

    def tensor(self, name: str) -> torch.Tensor:
        """One tensor on the CPU, mapped from the file: pages are read when touched, and writing to it copies them.

        It stays valid after the checkpoint is closed.

        Raises:
            KeyMismatchError: the checkpoint has no such tensor.
        """
        entry = self.entries.get(name)
        if entry is None:
            raise KeyMismatchError(
                f"the checkpoint holds no tensor {short(name)}",
                where=self.path,
                found=nearest_names(name, self.entries),
                fix="list the names with `vaeport inspect`",
            )
        if not self._sources:
            raise CheckpointError("the checkpoint is closed", where=self.path, fix="read tensors before closing it")
        return self._sources[entry.file].tensor(name)

    def close(self) -> None:
        """Let go of the files; tensors that were handed out stay valid."""
        self._sources = {}


def open_checkpoint(path: str | Path, *, variant: str | None = None) -> Checkpoint:
    """Open a weight file, a shard index, or a folder that holds either.

    Args:
        path: `.safetensors`; a pickle `.pt`, `.pth`, `.ckpt`, `.bin`; `*.index.json`; or a component folder.
        variant: which weights of a folder, such as `fp16`; None takes those without a variant.

    Raises:
        CheckpointError: nothing usable there, or a variant was asked of a single file.
        CorruptFileError: truncated, malformed, or lying about its contents.
        UnsafePickleError: a pickle asks for code; it was not run.
        BlockedError: the system refuses to read the file.
    """
    path = Path(path)
    target = path
    if exists(path) and path.is_dir():
        target = find_weights(path, variant)
    elif variant is not None:
        raise CheckpointError(
            "a variant chooses among the files of a folder, and this is no folder",
            where=require_file(path),
            found=f"variant={variant!r}",
            fix="leave the variant out, or give the folder",
        )
    if not target.name.endswith(".json"):
        return Checkpoint(path, {target: _open_file(target)}, {})
    weight_map, metadata = read_index(target)
    checkpoint = Checkpoint(path, {file: _open_file(file) for file in sorted(set(weight_map.values()))}, metadata)
    require_agreement(target, weight_map, checkpoint.entries)
    return checkpoint


def _open_file(path: Path) -> WeightFile:
    require_file(path)
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        return SafetensorsFile(path)
    if suffix in FILE_SUFFIXES:
        return PickleFile(path)
    raise CheckpointError(
        "not a known kind of weight file",
        where=path,
        expected=", ".join(FILE_SUFFIXES) + " or .index.json",
        found=f"{suffix or 'no suffix'}; the file looks like {describe_start(path)}",
        fix="give a file of a known kind; a wrong suffix can be corrected by renaming",
    )


def _merge_entries(path: Path, sources: Mapping[Path, WeightFile]) -> dict[str, Entry]:
    merged: dict[str, Entry] = {}
    for source in sources.values():
        for name, entry in source.entries.items():
            if name in merged:
                raise CorruptFileError(
                    "two shards hold the same tensor",
                    where=f"{path}, tensor {short(name)}",
                    expected="each tensor in one shard",
                    found=f"{merged[name].file.name} and {entry.file.name}",
                    fix="download the index and its shards again, from one revision",
                )
            merged[name] = entry
    return dict(sorted(merged.items()))


def _merge_metadata(sources: Mapping[Path, WeightFile], own: Mapping[str, str]) -> dict[str, str]:
    merged = dict(own)
    for file, source in sources.items():
        for key, value in source.metadata.items():
            merged[key if merged.get(key, value) == value else f"{key} ({file.name})"] = value
    return merged
