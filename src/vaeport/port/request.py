"""What a user asks `vaeport port` for, and the paths that follow from it."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from vaeport.errors import ConfigError, InputError
from vaeport.port.contracts.steps import STEPS
from vaeport.proof.calling import CALLS, Convention


@dataclass(frozen=True)
class Request:
    """One port.

    source          "package.module:Class", or "folder/file.py:Class"; without `:Class` the one class that has encode
                    and decode is taken
    family, component
                    snake_case names
    arguments       of the official constructor
    call_arguments  {"encode": {...}, "decode": {...}, "attributes": {...}}: further arguments of the two methods, and
                    what is set on the implementation once it is built
    weights, prefix, drops
                    official checkpoint; what stands before its keys; "REGEX=REASON" for keys that are left out
    variant         published configuration, where the official code leaves its constants to the caller
    native, native_arguments
                    "package.module:Class" of a native model outside the library, and its constructor's arguments
    python          interpreter of the environment that has the official code
    stubs           {"module.attribute": "module:object"} for what is missing there
    until           last step to carry out
    root            project root; folder: where the port's files lie, below it
    """

    source: str
    family: str
    component: str = "vae"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    call_arguments: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = None
    prefix: str = ""
    drops: Sequence[str] = ()
    variant: str | None = None
    native: str | None = None
    native_arguments: Mapping[str, Any] = field(default_factory=dict)
    python: str | None = None
    stubs: Mapping[str, str] = field(default_factory=dict)
    dtypes: Sequence[str] = ("float32", "bfloat16")
    until: str = "handoff"
    root: Path = Path()
    folder: str | None = None

    def __post_init__(self) -> None:
        """InputError or ConfigError for a request that names nothing."""
        for name in ("family", "component"):
            if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", getattr(self, name)):
                raise InputError(
                    f"--{name} is not snake_case", found=getattr(self, name), expected="such as wan or ltx_2"
                )
        if self.until not in STEPS:
            raise InputError("no such step", found=self.until, expected=f"one of {', '.join(STEPS)}")
        if unknown := set(self.call_arguments) - set(CALLS):
            raise InputError("call arguments of what?", found=sorted(unknown), expected=", ".join(CALLS))
        if self.weights is not None and not Path(self.weights).exists():
            raise ConfigError("no such checkpoint", where=self.weights, fix="give the file or folder with --weights")

    @property
    def home(self) -> str:
        """Folder of the port, relative to the root."""
        return self.folder or f"ports/{self.family}_{self.component}"

    @property
    def test(self) -> str:
        """The parity test."""
        return f"tests/local_tests/vaes/test_{self.family}_{self.component}_parity.py"

    @property
    def converted(self) -> str:
        """The component folder."""
        return f"{self.home}/converted/{self.component}"

    def path(self, *parts: str) -> Path:
        """A path of the port's folder."""
        return self.root / self.home / Path(*parts)

    @cached_property
    def file(self) -> Path:
        """The file that defines the official class."""
        place = self.source.rpartition(":")[0] if re.search(r":[A-Za-z_]\w*$", self.source) else self.source
        if _is_path(place):
            return _class_file(Path(place))
        if self.python is not None:
            return Path(place.replace(".", "/") + ".py")
        reason = ""
        try:
            with contextlib.redirect_stdout(sys.stderr):
                spec = importlib.util.find_spec(place)
        except (Exception, SystemExit) as error:  # the packages above it run
            spec, reason = None, f" ({type(error).__name__}: {error})"
        if spec is None or spec.origin is None:
            raise ConfigError(
                "the official source is neither a file nor a module that is installed here",
                found=f"{self.source}{reason}",
                expected="package.module:Class, or folder/file.py:Class",
                fix="check the path, or name the interpreter that has it with --official-python",
            )
        return Path(spec.origin)

    @cached_property
    def reference(self) -> str:
        """The source with its class."""
        place, colon, name = self.source.rpartition(":")
        if colon and re.fullmatch(r"[A-Za-z_]\w*", name):
            return f"{self.file}:{name}" if _is_path(place) else self.source
        classes = vae_classes(self.file) if self.python is None or self.file.is_file() else []
        if len(classes) != 1:
            raise InputError(
                "the source does not say which class it is about",
                where=self.source,
                found=f"{len(classes)} classes with encode and decode: {', '.join(classes) or 'none'}",
                fix=f"name it: {self.source}:{classes[0] if classes else 'Class'}",
            )
        return f"{self.file if _is_path(self.source) else self.source}:{classes[0]}"

    def convention(self) -> Convention:
        """What the user said of the way in which it is called."""
        return replace(Convention.of_calls(self.call_arguments), stubs=self.stubs, weights=self.weights)

    def portable(self, path: str, variable: str) -> str:
        """A path as a committed test names it: below the root, or behind an environment variable."""
        place = Path(path)
        try:
            return str(place.resolve().relative_to(self.root.resolve()))
        except ValueError:
            return f"${variable}/{place.name}"

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables of the parity test: where the official source and its weights lie here."""
        name = f"{self.family}_{self.component}".upper()
        folder = str(self.file.resolve().parent)
        return {f"{name}_OFFICIAL": folder} | (
            {f"{name}_WEIGHTS": str(Path(self.weights).resolve().parent)} if self.weights else {}
        )

    def digest(self, *more: str) -> str:
        """Hash of everything asked for that changes results."""
        held = {k: v for k, v in asdict(self).items() if k not in ("until", "root", "folder")}
        return hashlib.sha256(json.dumps([held, *more], sort_keys=True, default=str).encode()).hexdigest()


def _is_path(place: str) -> bool:
    return place.endswith(".py") or "/" in place or Path(place).is_dir()


def official_root(file: Path) -> Path:
    """The folder of the official project: the nearest above the file that looks like one, else that of its package."""
    for folder in file.parents:
        if any((folder / name).exists() for name in (".git", "pyproject.toml", "setup.py", "README.md")):
            return folder
        if folder.name == "site-packages":
            return folder
    folder = file.parent
    while (folder / "__init__.py").exists():
        folder = folder.parent
    return folder


def official_ref(file: Path) -> str:
    """The public name of the official source: remote and commit of its repository, or package and version."""
    root = official_root(file)
    if root.name == "site-packages":
        package = file.relative_to(root).parts[0]
        names = importlib.metadata.packages_distributions().get(package, [package])
        return f"{names[0]} {importlib.metadata.version(names[0])}"
    if (root / ".git").exists():
        git = ["git", "-C", str(root)]
        asked = (["rev-parse", "HEAD"], ["config", "--get", "remote.origin.url"])
        commit, remote = (
            subprocess.run([*git, *words], capture_output=True, text=True, check=False).stdout.strip()
            for words in asked
        )
        if commit:
            return f"{remote or root.name}@{commit}"
    digest = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "unknown"
    return f"{file.name}, sha256 {digest}"


def vae_classes(file: Path) -> list[str]:
    """Classes of a file that define both encode and decode; nothing is imported."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError) as error:
        raise ConfigError("the official source cannot be read", where=file, found=error) from error
    return [
        node.name
        for node in tree.body
        if isinstance(node, ast.ClassDef)
        and {"encode", "decode"} <= {n.name for n in node.body if isinstance(n, ast.FunctionDef)}
    ]


def _class_file(place: Path) -> Path:
    """The file itself, or the one file of a folder that has a class with encode and decode."""
    if place.is_file():
        return place
    if not place.is_dir():
        raise ConfigError(
            "no such official source", where=place, fix="give the file that defines the class, or its folder"
        )
    found = {}
    for file in sorted(place.rglob("*.py")):
        try:
            classes = vae_classes(file)
        except ConfigError:
            continue
        if classes:
            found[file] = classes
    if len(found) == 1:
        return next(iter(found))
    rows = "; ".join(f"{file.relative_to(place)}: {', '.join(names)}" for file, names in list(found.items())[:12])
    raise InputError(
        "the folder does not say which file defines the VAE",
        where=place,
        found=rows or "no class with encode and decode",
        fix="name file and class: folder/file.py:Class",
    )
