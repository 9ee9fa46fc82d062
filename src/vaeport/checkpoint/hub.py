"""Where weights lie: a local path, or a repository on the Hugging Face Hub, fetched by its own client."""

from __future__ import annotations

import os
import re
from pathlib import Path

from vaeport.checkpoint.files import exists, nearest_paths
from vaeport.checkpoint.layout import FILE_SUFFIXES, SAVE_STEM, STEMS, find_weights
from vaeport.checkpoint.text import cut, listing
from vaeport.errors import BlockedError, CheckpointError, InputError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_SHARD = "-" + "[0-9]" * 5 + "-of-" + "[0-9]" * 5
TOKEN = "the environment variable HF_TOKEN"


def resolve(
    path_or_hub_id: str | Path,
    *,
    subfolder: str | None = None,
    revision: str | None = None,
    variant: str | None = None,
    filename: str | None = None,
) -> Path:
    """The local path of a checkpoint; from the Hub only the files of this component and variant are fetched.

    HF_HUB_OFFLINE, HF_HOME, HF_ENDPOINT and HF_TOKEN are honoured by huggingface_hub itself; no token passes through
    here.

    Args:
        path_or_hub_id: an existing file or folder, or `organisation/name` on the Hub.
        subfolder: the component inside it, such as `vae`.
        revision: branch, tag or commit on the Hub; None takes `main`. Refused for a local path.
        variant: which weights to fetch, such as `fp16`.
        filename: one weight file inside it, such as `ae.safetensors`; its path is returned, else the folder's.

    Raises:
        CheckpointError: no such path, component or file, or the repository has no weights of this variant.
        BlockedError: the Hub cannot be reached, or it asks for access that is not there.
        InputError: a subfolder or file name that leads out of its folder, a revision of a local path.
    """
    for part in (subfolder, filename):
        if part is not None and (Path(part).is_absolute() or ".." in Path(part).parts):
            raise InputError("a subfolder or file name must lie inside its folder", found=repr(part))
    inner = Path(subfolder or ".", filename or ".")
    root, text = Path(path_or_hub_id), str(path_or_hub_id)
    if not exists(root):
        if not _HUB_ID.fullmatch(text) or text.endswith((*FILE_SUFFIXES, ".json")):
            raise CheckpointError(
                "no such file or folder, and not the form of a Hub id",
                where=text,
                expected="an existing path, or organisation/name",
                found=nearest_paths(root),
                fix="check the path",
            )
        return _fetch(text, inner, revision, variant, filename)
    if revision is not None:
        raise InputError(
            "a revision chooses among those of a Hub repository, and this is a local path",
            where=root,
            found=f"revision={revision!r}",
            fix="leave the revision out",
        )
    path = root / inner
    if not exists(path):
        raise CheckpointError(
            "no such file or folder", where=path, found=nearest_paths(path), fix="check the path and its subfolder"
        )
    return path


def _patterns(inner: Path, variant: str | None, filename: str | None) -> list[str]:
    """The files of one component and variant, in the Hub client's pattern language, where `*` also matches `/`."""
    folder = "" if str(inner) == "." else f"{inner.as_posix()}/"
    if filename is not None:
        folder = folder.rstrip("/").removesuffix(Path(filename).name)
        names = [Path(filename).name, "config.json"]
        if filename.endswith(".json"):
            names.append("*.safetensors")
    elif variant is None:
        names = [name for s in STEMS for name in (f"{s}.safetensors", f"{s}{_SHARD}.safetensors")]
        names += ["config.json", *(f"{s}.safetensors.index.json" for s in STEMS)]
    else:
        v = variant
        names = [f"{s}{part}.safetensors" for s in STEMS for part in (f".{v}", f".{v}{_SHARD}", f"{_SHARD}.{v}")]
        indexes = (f"safetensors.index.{v}", f"safetensors.{v}.index", f"{v}.safetensors.index")
        names += ["config.json", *(f"{s}.{index}.json" for s in STEMS for index in indexes)]
    return [folder + name for name in names]


def _fetch(repo: str, inner: Path, revision: str | None, variant: str | None, filename: str | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        patterns = _patterns(inner, variant, filename)
        snapshot = Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))
    except Exception as error:  # the client raises its own, httpx's and the system's errors; all lie outside vaeport
        raise _blocked(repo, revision, error) from error
    path = snapshot / inner
    try:
        if not exists(path):
            raise CheckpointError("no such part", found=nearest_paths(path))
        if filename is None:
            find_weights(path, variant)
    except CheckpointError as error:
        dot = "" if variant is None else f".{variant}"
        wanted = inner if filename is not None else inner / f"{SAVE_STEM}{dot}.safetensors or its shard index"
        raise _lacking(repo, revision, wanted, error) from error
    return path


def _lacking(repo: str, revision: str | None, wanted: Path, error: CheckpointError) -> BlockedError | CheckpointError:
    """Say what the repository has when its fetched files lack what was wanted, as `error` says."""
    from huggingface_hub import HfApi

    where = f"{repo}, revision {revision or 'main'}"
    if _is_offline():
        return BlockedError(
            "the Hub's local cache lacks these files, and HF_HUB_OFFLINE is set",
            where=where,
            expected=str(wanted),
            found=error.found,
            fix="unset HF_HUB_OFFLINE to download them",
        )
    try:
        published = HfApi().model_info(repo, revision=revision).siblings or []
    except Exception as failure:  # as in _fetch; a cache that is only partly filled hides that the Hub is out of reach
        return _blocked(repo, revision, failure)
    names = [file.rfilename for file in published if file.rfilename.endswith(FILE_SUFFIXES)]
    names.sort(key=lambda name: (Path(name).parent != wanted.parent, name))  # the same component's first
    return CheckpointError(
        "the repository has no such safetensors weights",
        where=where,
        expected=str(wanted),
        found=listing(names, 12) or "no weight files",
        fix="ask for one of these by subfolder and variant, or by filename",
    )


def _is_offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _blocked(repo: str, revision: str | None, error: Exception) -> BlockedError | CheckpointError:
    from huggingface_hub import errors

    where = f"{repo}, revision {revision or 'main'}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    no_path = f"no local path {repo} either: {nearest_paths(Path(repo))}"
    if isinstance(error, errors.HFValidationError):
        return CheckpointError("not a path that exists, nor a Hub id", where=repo, found=cut(str(error)), fix=no_path)
    if isinstance(error, errors.RevisionNotFoundError):
        return CheckpointError(
            "the repository has no such revision", where=where, fix="give a branch, tag or commit that the Hub lists"
        )
    if isinstance(error, errors.GatedRepoError) or status == 403:
        return BlockedError(
            "the Hub asks for permission to read this repository",
            where=where,
            found=f"{TOKEN} is " + ("set" if os.environ.get("HF_TOKEN") else "not set"),
            fix=f"accept the conditions at https://huggingface.co/{repo}, then put its token into {TOKEN}",
        )
    if isinstance(error, errors.RepositoryNotFoundError) or status == 401:
        return BlockedError(
            "the Hub knows no such repository, or it is private",
            where=where,
            found=no_path,
            fix=f"check the name; for a private repository put a token that may read it into {TOKEN}",
        )
    if _is_offline():
        return BlockedError(
            "the repository is not in the Hub's local cache, and HF_HUB_OFFLINE is set",
            where=where,
            found=no_path,
            fix="unset HF_HUB_OFFLINE to download it, or give a local path",
        )
    cause = error.__cause__ or error
    return BlockedError(
        "the Hub could not be read",
        where=where,
        found=cut(f"{type(cause).__name__}: {cause}"),
        fix=f"check the network (and HF_ENDPOINT), or give a local path; {no_path}",
    )
