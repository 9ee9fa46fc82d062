"""The cleanup gate: what debugging left behind, looked for and not asked about.

Hooks and patches in the process, edits in source trees (git) and in installed packages (RECORD), stray files. What
could not be looked at is told as `unchecked` and makes the gate incomplete, never a pass.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from torch import nn

from vaeport.port.left_files import NotARepositoryError, ignored, stray_files, top_of, tree_leftovers
from vaeport.port.left_hooks import hooks
from vaeport.port.left_packages import owners, package_leftovers
from vaeport.port.left_patches import package_of, patches
from vaeport.port.leftover import Leftover, unchecked
from vaeport.proof.sides import ReferenceSide

_PACKAGE = Path(__file__).parents[1]
_NOT_SOURCES = ("builtins", "typing", "collections", "abc")


def cleanup(
    modules: Mapping[str, nn.Module] | None = None,
    *,
    own: Sequence[Path] = (),
    trees: Mapping[str, Path] | None = None,
    files: Collection[Path] = (),
    folders: Mapping[Path, Collection[str]] | None = None,
    before: Mapping[str, str] | None = None,
    expected: Collection[Path] = (),
    project: Path | None = None,
) -> list[Leftover]:
    """Everything that is left behind in this process and in the named places.

    modules     implementations by name: hooks are looked for on them, patches in the code that they run
    own         folders whose code may patch, being the implementation itself
    trees       source trees by name: files edited, untracked or hidden with respect to git
    files       source files: their whole distribution is held against its RECORD, or their repository against git
    folders     folders of the port, with the paths that belong there; `sub/` expects all of a subfolder
    before      `snapshot` of the repository of `files` at the start of the port
    expected    files and folders that the port writes or was given, wherever they lie
    project     where the port runs: of its repository only the folders of `files` are theirs
    """
    found = [*hooks(modules or {}), *patches(running(modules.values()), own)] if modules else [*hooks({})]
    for name, tree in (trees or {}).items():
        found += tree_leftovers(tree, name, expected=expected)
    found += source_leftovers(files, before, expected, project)
    for folder, names in (folders or {}).items():
        found += stray_files(folder, names, folder.name)
    return list(dict.fromkeys(found))


def running(modules: Iterable[nn.Module]) -> list[ModuleType]:
    """The Python modules whose code module trees run: of their classes, and of what their files import by name."""
    names = dict.fromkeys(cls.__module__ for cls in _classes(modules))
    own = [sys.modules[name] for name in names if name in sys.modules]
    packages = {name.split(".")[0] for name in names} - {"torch"}
    called = [
        value.__module__
        for module in own
        if module.__name__.split(".")[0] in packages
        for value in vars(module).values()
        if isinstance(value, FunctionType) and (value.__module__ or "").split(".")[0] in packages
    ]
    more = dict.fromkeys((*called, "torch.nn.functional"))
    return [*own, *(sys.modules[name] for name in more if name in sys.modules and name not in names)]


def source_leftovers(
    files: Collection[Path],
    before: Mapping[str, str] | None = None,
    expected: Collection[Path] = (),
    project: Path | None = None,
) -> Iterator[Leftover]:
    """What is edited around source files: in their distributions by RECORD, in their repositories by git.

    Of torch only the files themselves are hashed. The other arguments are those of `cleanup`.
    """
    owned, rest = owners(files)
    for dist in {one.name: one for one in owned.values()}.values():
        only = [file for file in files if file in owned] if dist.name == "torch" else None
        yield from package_leftovers(dist, only, expected)
    trees: dict[Path, list[Path]] = {}
    for file in rest:
        try:
            trees.setdefault(top_of(file.parent), []).append(file)
        except NotARepositoryError as error:
            yield unchecked("/".join(file.parts[-2:]), str(error), "clone it with git, so that edits can be seen")
    for top, held in trees.items():
        shared = project is not None and project.resolve().is_relative_to(top)
        parts = sorted({str(file.parent.relative_to(top)) for file in held}) if shared else []
        name = "project" if shared else top.name
        yield from tree_leftovers(top, name, parts=parts, before=before, expected=expected, official=True)
        for file in ignored(top, held):
            if file not in expected:
                yield unchecked(
                    f"{top.name}: {file.relative_to(top)}", "git ignores it", "git add it, or clone it anew"
                )


def source_paths(modules: Iterable[nn.Module]) -> list[Path]:
    """Files in which the classes of module trees are written, torch's included."""
    found = []
    for cls in _classes(modules):
        try:
            found.append(Path(inspect.getsourcefile(cls) or "").resolve())
        except TypeError:
            continue
    return [file for file in dict.fromkeys(found) if file.is_file()]


def _classes(modules: Iterable[nn.Module]) -> list[type]:
    kinds = dict.fromkeys(type(child) for module in modules for child in module.modules())
    return [
        cls
        for cls in dict.fromkeys(base for kind in kinds for base in kind.__mro__)
        if cls.__module__.split(".")[0] not in _NOT_SOURCES
    ]


def reference_leftovers(
    side: ReferenceSide,
    before: Mapping[str, str] | None = None,
    expected: Collection[str] = (),
    project: str | None = None,
) -> dict[str, Any]:
    """`cleanup` of the official implementation in the environment where it runs, as JSON: {"leftovers": [...]}."""
    caller = side.open("meta")
    files = [file for file in source_paths([caller.module]) if not file.is_relative_to(_PACKAGE)]
    functional = Path(sys.modules["torch.nn.functional"].__file__ or "").resolve()
    own = [_root(Path(inspect.getsourcefile(type(caller.built)) or "").resolve())]
    found = cleanup(
        {"reference": caller.module},
        own=own,
        files=[*files, functional],
        before=before,
        expected=[Path(one) for one in expected],
        project=None if project is None else Path(project),
    )
    return {"leftovers": [asdict(one) for one in found]}


def _root(file: Path) -> Path:
    try:
        return top_of(file.parent)
    except NotARepositoryError:
        return package_of(str(file))
