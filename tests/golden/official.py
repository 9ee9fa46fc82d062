"""Official sources: fetched to a cache at a recorded commit, checked by hash, imported from there and nowhere else."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from vaeport.errors import BlockedError, ProofError

SOURCES = Path(__file__).with_name("sources.json")


@dataclass(frozen=True)
class Source:
    """The files of a public GitHub repository that an oracle needs, at one commit, with their sha256."""

    repo: str
    commit: str
    files: Mapping[str, str]


def source(repo: str) -> Source:
    """Look `owner/name` up in sources.json."""
    recorded = json.loads(SOURCES.read_text("utf-8"))[repo]
    return Source(repo, recorded["commit"], recorded["files"])


def checkout(origin: Source, cache: Path, mirror: Path | None = None) -> Path:
    """Return a folder that holds the recorded files, fetched unless it is there, each checked against its hash.

    Nothing but the recorded files is extracted, so no other official file can be imported. `mirror` is a git directory
    that holds the commit; without one it is fetched from GitHub.
    """
    folder = cache / origin.repo.replace("/", "+") / origin.commit
    if not all((folder / path).is_file() for path in origin.files):
        repository = mirror or _fetch(origin, cache)
        for path in origin.files:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(_git(repository, "show", f"{origin.commit}:{path}"))
    for path, expected in origin.files.items():
        found = hashlib.sha256((folder / path).read_bytes()).hexdigest()
        if found != expected:
            raise ProofError(
                "an official file is not the recorded one",
                where=f"{origin.repo}@{origin.commit}: {path}",
                expected=expected,
                found=found,
                fix=f"delete {folder} and run again",
            )
    return folder


@contextmanager
def importable(root: Path, stand_ins: Mapping[str, Mapping[str, Any]]) -> Iterator[None]:
    """Import from `root` within, with stand-ins for packages that the official modules import and the VAE never uses.

    `stand_ins` maps a module's dotted name to its members. No bytecode is written, and all modules are forgotten after.
    """
    modules, path, bytecode = dict(sys.modules), list(sys.path), sys.dont_write_bytecode
    sys.path.insert(0, str(root))
    sys.dont_write_bytecode = True
    for name, members in stand_ins.items():
        module = ModuleType(name)
        # A spec, since libraries that ask whether a package is installed look for one.
        module.__dict__.update(members, __path__=[], __spec__=ModuleSpec(name, None))
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
    try:
        yield
    finally:
        sys.path[:], sys.dont_write_bytecode = path, bytecode
        for name in [name for name, module in sys.modules.items() if name in stand_ins or _lies_in(module, root)]:
            del sys.modules[name]
        sys.modules.update({name: modules[name] for name in stand_ins if name in modules})


def unused(name: str) -> type:
    """Make a class that stands in for one which is imported and must not be used."""

    def refuse(self: object, *args: object, **kwargs: object) -> None:
        raise RuntimeError(f"{name} is a stand-in: the oracle uses a part of the official code that it should not")

    return type(name, (), {"__init__": refuse})


def _lies_in(module: ModuleType, root: Path) -> bool:
    file = getattr(module, "__file__", None)
    folders = [file] if file else list(getattr(module, "__path__", []))
    return any(Path(folder).is_relative_to(root) for folder in folders)


def _fetch(origin: Source, cache: Path) -> Path:
    repository = cache / origin.repo.replace("/", "+") / "git"
    url = f"https://github.com/{origin.repo}.git"
    subprocess.run(["git", "init", "--quiet", "--bare", repository], check=True)
    _git(repository, "config", "remote.origin.url", url)
    try:
        # Without blobs: git fetches those that are read, and leaves the repository's pictures where they are.
        _git(repository, "fetch", "--quiet", "--depth=1", "--filter=blob:none", "origin", origin.commit)
    except subprocess.CalledProcessError as error:
        raise BlockedError(
            "the official source cannot be fetched",
            where=url,
            expected=origin.commit,
            fix=f"connect to the network, or pass --mirror {origin.repo}=GITDIR with a local copy",
        ) from error
    return repository


def _git(repository: Path, *args: str) -> bytes:
    return subprocess.run(["git", f"--git-dir={repository}", *args], check=True, stdout=subprocess.PIPE).stdout
