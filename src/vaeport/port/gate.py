"""The cleanup gate of one port: what stood there before it began, what is left behind when it ends."""

from __future__ import annotations

import inspect
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from torch import nn

from vaeport.port.cleanup import cleanup, source_leftovers, source_paths
from vaeport.port.contracts.text import tidy
from vaeport.port.left_files import NotARepositoryError, changed_files, snapshot, stray_files, top_of, tree_leftovers
from vaeport.port.leftover import Leftover, outcome
from vaeport.port.request import Request
from vaeport.port.state import PortState
from vaeport.port.views.catalog import VIEWS
from vaeport.proof.remote import RemoteSide

BEFORE = "trees_before.json"
WRITTEN = frozenset(
    (
        *(".gitignore", BEFORE, "port_state.json", "port_state.json.lock", "converted/", "WRITE_THIS_MODEL.md"),
        *("official_keys.json", "official_flow.json", "native_keys.json", "reuse.json"),
        *("weight_map.py", "map.json", "map_verdict.json", "parity.json", "parity.log"),
        *("README.md", "PORT_STATUS.md", *(f"{name}.yaml" for name in VIEWS)),
    )
)
"""what a port writes into its folder, beside its test and the verdict of it"""
_PACKAGE = Path(__file__).parents[1]
_RUN = ("layers", "models", "weights", ":(glob)*.py")  # what a native model is made of


def remember(request: Request) -> None:
    """Writes down, once, what is edited and untracked when a port begins: that is not its doing."""
    file = request.path(BEFORE)
    if file.exists():
        return
    held: dict[str, Any] = {
        "project": snapshot(request.root, (".",)),
        "vaeport": snapshot(_PACKAGE, _RUN),
        "reference": snapshot(request.file.parent) if request.file.is_file() else None,
        "folders": {place: _paths(request.root / place) for place in _folders(request)},
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(held, indent=1) + "\n")


def checked(request: Request, state: PortState, side: RemoteSide, native: nn.Module) -> dict[str, Any]:
    """The record's `cleanup`: the gate, checked now on both sides, their trees and packages, and the port's folders.

    side, native    the official implementation where it runs; a native one

    Raises:
        ProofError: the official implementation cannot be opened any more.
    """
    file = request.path(BEFORE)
    before = json.loads(file.read_text()) if file.exists() else {}
    expected = [*_own_files(request, state), *_new_files(native)]
    project = str(request.root.resolve())
    told = {"before": before.get("reference"), "expected": [str(path) for path in expected], "project": project}
    found = [Leftover(**row) for row in side.ask("port.cleanup:reference_leftovers", **told)["leftovers"]]
    found += cleanup({"native": native})
    found += tree_leftovers(request.root, "project", parts=(".",), before=before.get("project"), expected=expected)
    found += _native_leftovers(request, native, before.get("vaeport"), expected)
    written = {*WRITTEN, Path(request.test).name, Path(state.parity.verdict or "").name}
    for place in _folders(request):
        known = {*written, *before.get("folders", {}).get(place, ())}
        found += stray_files(request.root / place, known, place)
    found = list({(one.kind, one.where): one for one in reversed(found)}.values())[
        ::-1
    ]  # the official side's words first
    return {"outcome": outcome(found), "leftovers": [tidy(str(one), 500) for one in found]}


def _native_leftovers(
    request: Request, native: nn.Module, before: dict[str, str] | None, expected: Collection[Path]
) -> Iterator[Leftover]:
    """Sources of the native side that the project's own repository does not hold."""
    files = [path for path in source_paths([native]) if "torch" not in path.parts]
    ours = [path for path in files if path.is_relative_to(_PACKAGE)]
    if _top(_PACKAGE) is None:
        yield from source_leftovers(ours, expected=expected)
    elif _top(_PACKAGE) != _top(request.root):
        yield from tree_leftovers(_PACKAGE, "vaeport", parts=_RUN, before=before, expected=expected)
    others = [path for path in files if path not in ours and not path.is_relative_to(request.root.resolve())]
    yield from source_leftovers(others, expected=expected)


def _own_files(request: Request, state: PortState) -> list[Path]:
    """What the port writes, and the checkpoint that it was given."""
    told = (request.home, request.test, request.converted, state.readme, state.status_file, *state.files_changed)
    given = [Path(request.weights).resolve()] if request.weights else []
    return [*((request.root / path).resolve() for path in told), *given]


def _new_files(native: nn.Module) -> list[Path]:
    """Model and map of the native class while they are new to git: the port has asked for them."""
    model = Path(inspect.getfile(type(native))).resolve()
    try:
        top, changed = top_of(model.parent), changed_files(model.parent.parent, (".",))
    except NotARepositoryError:
        return []
    new = {(top / path).resolve() for path, code in changed.items() if code == "??"}
    return [path for path in (model, model.parent.parent / "weights" / model.name) if path in new]


def _folders(request: Request) -> tuple[str, str]:
    return request.home, f"tests/local_tests/{request.family}"


def _paths(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]


def _top(folder: Path) -> Path | None:
    try:
        return top_of(folder)
    except NotARepositoryError:
        return None
