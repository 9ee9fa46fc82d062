"""Which files of a folder are its weights, in the names that Diffusers, Transformers and the Hub library write."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from vaeport.checkpoint.files import reading
from vaeport.checkpoint.text import listing
from vaeport.errors import CheckpointError

SAVE_STEM = "diffusion_pytorch_model"
STEMS = (SAVE_STEM, "model", "pytorch_model")
_STEM = rf"(?P<stem>{'|'.join(STEMS)})"
VARIANT = re.compile(r"[A-Za-z0-9_]+")
_VARIANT = rf"(?:\.(?P<variant>{VARIANT.pattern}))?"
_SUFFIX = r"\.(?P<suffix>safetensors|bin)"
_WEIGHTS = (
    rf"{_STEM}{_VARIANT}{_SUFFIX}",
    rf"{_STEM}{_SUFFIX}\.index{_VARIANT}\.json",  # Diffusers
    rf"{_STEM}{_SUFFIX}{_VARIANT}\.index\.json",  # Diffusers, in its earlier spelling
    rf"{_STEM}{_VARIANT}{_SUFFIX}\.index\.json",  # huggingface_hub
)
_SHARD = rf"{_STEM}{_VARIANT}-\d{{5}}-of-\d{{5}}(?:\.(?P<late_variant>\w+))?{_SUFFIX}"
FILE_SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")


@dataclass(frozen=True)
class _Candidate:
    """A file that could be the one to open; the smallest `rank` is what Diffusers would take."""

    rank: tuple[int, ...]
    name: str
    variant: str | None


def parse_weight_name(name: str) -> re.Match[str] | None:
    """Match a published weight, shard or index name; its groups are `stem`, `variant` (perhaps None) and `suffix`."""
    return next((match for pattern in (*_WEIGHTS, _SHARD) if (match := re.fullmatch(pattern, name))), None)


def find_weights(folder: Path, variant: str | None) -> Path:
    """The weight file or shard index of a component folder: safetensors before pickles, an index before a single file.

    Raises:
        CheckpointError: there is none of that variant; the message lists what there is.
    """
    with reading(folder):
        names = sorted(path.name for path in folder.iterdir())
    candidates = [candidate for candidate in map(_candidate, names) if candidate is not None]
    fitting = [candidate for candidate in candidates if candidate.variant == variant]
    if fitting:
        return folder / min(fitting, key=lambda candidate: candidate.rank).name
    if candidates:
        raise CheckpointError(
            "the folder holds weights of other variants only" if variant is None else "the folder lacks this variant",
            where=folder,
            expected=_words(variant),
            found=", ".join(sorted({_words(candidate.variant) for candidate in candidates})),
            fix="ask for one of those found" + ("" if variant else ", such as " + _words(candidates[0].variant)),
        )
    raise _nothing(folder, names)


def _words(variant: str | None) -> str:
    return "no variant" if variant is None else f"variant={variant!r}"


def _candidate(name: str) -> _Candidate | None:
    for pattern in _WEIGHTS:
        match = re.fullmatch(pattern, name)
        if match:
            is_index = name.endswith(".json")
            rank = (match["suffix"] == "bin", STEMS.index(match["stem"]), not is_index, len(name))
            return _Candidate(tuple(map(int, rank)), name, match["variant"])
    return None


def _nothing(folder: Path, names: list[str]) -> CheckpointError:
    expected = f"{STEMS[0]}.safetensors, its shard index, or one of the other published names"
    shards = [name for name in names if re.fullmatch(_SHARD, name)]
    if shards:
        return CheckpointError(
            "the folder holds shards but no index that says which tensor lies where",
            where=folder,
            expected=f"{STEMS[0]}.safetensors.index.json",
            found=listing(shards),
            fix="download the index of these shards too",
        )
    weights = [name for name in names if name.endswith(FILE_SUFFIXES)]
    components = [name for name in names if (folder / name / "config.json").is_file()]
    if weights:
        found, fix = listing(weights), f"give the file itself: {folder / weights[0]}"
    elif components:
        found, fix = "component folders: " + listing(components), f"give the component: {folder / components[0]}"
    else:
        found, fix = listing(names) or "an empty folder", "check the path"
    return CheckpointError(
        "the folder holds no weights under a known name", where=folder, expected=expected, found=found, fix=fix
    )
