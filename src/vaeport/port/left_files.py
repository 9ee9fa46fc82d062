"""Files of a source tree that are edited, new, or hidden from git."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from vaeport.port.leftover import Leftover, unchecked

_IMPORTED = (".py", ".pyi", ".so", ".pyd", ".pyx", ".pth")
_CACHES = ("__pycache__", ".pytest_cache", ".hypothesis", ".mypy_cache", ".ruff_cache")
_REPOSITORY = "clone it with git, so that edits can be seen"


class NotARepositoryError(Exception):
    """A folder that git says nothing about; the message says why."""


def changed_files(folder: Path, parts: Sequence[str] = ()) -> dict[str, str]:
    """Path from the top of the repository -> two letters of `git status`, for edited and untracked files.

    parts   paths below the folder; empty: the whole repository

    Raises:
        NotARepositoryError: git knows nothing of the folder, or is not there.
    """
    asked = ["status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=all", "--", *(parts or (":/",))]
    rows = (row for row in _git(folder, *asked).split("\0") if row)
    found = {row[3:]: row[:2] for row in rows}
    return {path: code for path, code in found.items() if not set(Path(path).parts) & set(_CACHES)}


def top_of(folder: Path) -> Path:
    """The top folder of the repository that a folder belongs to; NotARepositoryError as above."""
    return Path(_git(folder, "rev-parse", "--show-toplevel").rstrip("\n"))


def snapshot(folder: Path, parts: Sequence[str] = ()) -> dict[str, str]:
    """What is edited and untracked now, each with a mark that changes when the file does; empty without git."""
    try:
        top = top_of(folder)
        return {path: _mark(top / path, code) for path, code in changed_files(folder, parts).items()}
    except NotARepositoryError:
        return {}


def tree_leftovers(
    folder: Path,
    name: str,
    *,
    parts: Sequence[str] = (),
    before: Mapping[str, str] | None = None,
    expected: Collection[Path] = (),
    official: bool = False,
) -> Iterator[Leftover]:
    """Edited, untracked and hidden files of the repository that a folder is in.

    name        how the tree is called
    before      its `snapshot` at the start of the port
    expected    files and folders that the port itself writes or was given
    official    an edit is one whenever it was made; without `before`, untracked files count if they can be imported
    """
    try:
        top, changed = top_of(folder), changed_files(folder, parts)
        hidden = list(_hidden(folder, parts))
    except NotARepositoryError as error:
        yield unchecked(name, str(error), _REPOSITORY)
        return
    for path in hidden:
        fix = f"git update-index --no-assume-unchanged --no-skip-worktree {path}"
        yield Leftover("hidden", f"{name}: {path}", "git is told not to look at it", fix)
    resolved = [one.resolve() for one in expected]
    for path, code in changed.items():
        file = (top / path).resolve()
        if any(file == one or one in file.parents for one in resolved):
            continue
        new = code == "??"
        known = before is not None and before.get(path) == _mark(file, code)
        if official and (not new or path.endswith(_IMPORTED)):
            known = False
        elif official and before is None:
            known = True
        if not known:
            fix = "remove it" if new else f"restore it: git checkout -- {path}"
            fix += "" if official else "; commit it if it belongs to the port"
            yield Leftover("untracked" if new else "edited", f"{name}: {path}", f"git status {code.strip()}", fix)


def ignored(folder: Path, files: Collection[Path]) -> list[Path]:
    """Those of the files that are there and that the repository neither tracks nor reports."""
    tracked = {top_of(folder) / path for path in _git(folder, "ls-files", "-z", "--full-name", ":/").split("\0")}
    told = {top_of(folder) / path for path in changed_files(folder)}
    return [file for file in files if file.resolve() not in {one.resolve() for one in tracked | told}]


def stray_files(folder: Path, expected: Collection[str], name: str) -> Iterator[Leftover]:
    """Files of a folder, by their paths in it, that are not expected; `sub/` expects all of a subfolder."""
    whole = tuple(one for one in expected if one.endswith("/"))
    for file in sorted(folder.rglob("*")):
        path = file.relative_to(folder).as_posix()
        if file.is_dir() or path in expected or path.startswith(whole) or set(file.parts) & set(_CACHES):
            continue
        yield Leftover("stray", f"{name}/{path}", "the port did not write it", "move it elsewhere, or remove it")


def _hidden(folder: Path, parts: Sequence[str]) -> Iterator[str]:
    """Files that are marked as unchanged whatever they are (`assume-unchanged`, `skip-worktree`)."""
    top = top_of(folder)
    for row in _git(folder, "ls-files", "-v", "-z", "--full-name", "--", *(parts or (":/",))).split("\0"):
        if row and (row[0].islower() or row[0] == "S") and (top / row[2:]).exists():
            yield row[2:]


def _mark(file: Path, code: str) -> str:
    try:
        stat = file.stat()
    except OSError:
        return code
    return f"{code} {stat.st_size} {stat.st_mtime_ns}"


def _git(folder: Path, *words: str) -> str:
    env = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-C", str(folder), *words]
    try:
        done = subprocess.run(command, capture_output=True, env={**env, "LC_ALL": "C"}, check=False)
    except OSError as error:
        raise NotARepositoryError(f"git does not start ({error.strerror})") from error
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace")
        known = "not a git repository" in said or "cannot change to" in said
        raise NotARepositoryError("not a repository" if known else f"git says: {said.strip().splitlines()[0]}")
    return done.stdout.decode("utf-8", "surrogateescape")
