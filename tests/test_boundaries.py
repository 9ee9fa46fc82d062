"""Who may import what, and what `import vaeport` may cost."""

from __future__ import annotations

import ast
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from vaeport.syntax import imports

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "vaeport"
SOURCES = sorted(PACKAGE.rglob("*.py"))

# Folder: all that it may import besides the standard library.
ALLOWED = {
    "layers": ("torch", "vaeport.layers", "vaeport.errors"),
    "models": ("torch", "vaeport.layers", "vaeport.models", "vaeport.configs", "vaeport.vae", "vaeport.errors"),
    "weights": ("vaeport.mapping", "vaeport.weights"),
}
REFERENCES = ("diffusers", "transformers")  # never in src/, except interop/
HEAVY = (
    *REFERENCES,
    *("av", "soundfile", "PIL", "skimage", "scipy", "matplotlib", "jinja2", "pyarrow", "ray"),
    *("huggingface_hub", "pydantic", "typer", "rich"),
)
NEED_HEAVY = {"cli", "port", "dataset", "report"}  # all else is imported where the heavy libraries are missing


def dotted(path: Path) -> str:
    parts = ("vaeport", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts).removesuffix(".__init__")


def folder(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0]


def within(name: str, roots: tuple[str, ...]) -> bool:
    return any(name == root or name.startswith(root + ".") for root in roots)


def breaches(source: str, package: str) -> list[str]:
    """Imports that a module of `package` may not have."""
    top = package.split(".")[1] if "." in package else ""
    allowed = ALLOWED.get(top)
    return [
        name
        for name, _ in imports(ast.parse(source), package)
        if (within(name, REFERENCES) and top != "interop")
        or (allowed and not within(name, allowed) and name.split(".")[0] not in sys.stdlib_module_names)
    ]


def unsafe_loads(source: str) -> list[int]:
    """Lines that call torch.load without the literal `weights_only=True`."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "torch.load"
        and not any(key.arg == "weights_only" and ast.unparse(key.value) == "True" for key in node.keywords)
    ]


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def footprint(statement: str) -> dict[str, list[str] | float | bool]:
    """What a fresh interpreter has done once it ran the statement."""
    done = python(f"""
import sys, time
events = []
sys.addaudithook(lambda event, args: events.append(event) if event.startswith("socket.") else None)
start = time.perf_counter()
{statement}
seconds = time.perf_counter() - start
import json
heavy = [name for name in {HEAVY!r} if name in sys.modules]
cuda = "torch" in sys.modules and sys.modules["torch"].cuda.is_initialized()
print(json.dumps({{"heavy": heavy, "sockets": events, "cuda": cuda, "seconds": seconds}}))
""")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def without_heavy(statement: str) -> subprocess.CompletedProcess[str]:
    """Run the statement in an interpreter that has none of the heavy libraries."""
    return python(f"import sys; sys.modules.update(dict.fromkeys({HEAVY!r}))\n{statement}")


@pytest.mark.parametrize("path", SOURCES, ids=dotted)
def test_imports(path: Path) -> None:
    source, package = path.read_text("utf-8"), ".".join(("vaeport", *path.relative_to(PACKAGE).parent.parts))
    assert breaches(source, package) == []
    assert unsafe_loads(source) == []


def test_rules_name_folders_that_exist() -> None:
    assert set(ALLOWED) <= {folder(path) for path in SOURCES}


@pytest.mark.parametrize(
    ("package", "source", "found"),
    [
        (
            "vaeport.layers",
            "import torch.nn.functional as F, math\nfrom .conv import Conv\nfrom vaeport.errors import InputError",
            [],
        ),
        ("vaeport.layers", "import numpy", ["numpy"]),
        ("vaeport.layers", "import torchvision", ["torchvision"]),
        ("vaeport.layers", "from ..models.wan import Wan", ["vaeport.models.wan.Wan"]),
        ("vaeport.layers", "from vaeport import configs", ["vaeport.configs"]),
        ("vaeport.models", "from vaeport.layers import Chain\nfrom ..vae import VAE", []),
        ("vaeport.models", "from . import oobleck\nfrom vaeport import weights", ["vaeport.weights"]),
        ("vaeport.models", "def f():\n    from vaeport.runtime import load", ["vaeport.runtime.load"]),
        ("vaeport.weights", "from dataclasses import dataclass\nfrom vaeport.mapping import Rename", []),
        ("vaeport.weights", "import torch", ["torch"]),
        ("vaeport.weights", "from .wan import MAP\nfrom ..models import wan", ["vaeport.models.wan"]),
        ("vaeport.proof", "import numpy, soundfile", []),
        ("vaeport.proof", "def f():\n    from diffusers import AutoencoderKL", ["diffusers.AutoencoderKL"]),
        ("vaeport", "import importlib\nimportlib.import_module('transformers.models')", ["transformers.models"]),
        ("vaeport.interop", "import diffusers", []),
    ],
)
def test_breaches_are_seen(package: str, source: str, found: list[str]) -> None:
    assert breaches(source, package) == found


def test_unsafe_loads_are_seen() -> None:
    calls = (
        "load(f)",
        "load(f, weights_only=safe)",
        "load(f, weights_only=False)",
        "load(f, mmap=True, weights_only=True)",
    )
    assert unsafe_loads("import torch\n" + "\n".join(f"torch.{call}" for call in calls)) == [2, 3, 4]


def test_import_is_light() -> None:
    found = footprint("import vaeport")
    print(f"\nimport vaeport: {found.pop('seconds'):.2f} s")
    assert found == {"heavy": [], "sockets": [], "cuda": False}


@pytest.mark.parametrize(
    ("statement", "key"),
    [
        ("import pydantic", "heavy"),
        ("import socket; socket.socket().close()", "sockets"),
        ("import torch; torch.cuda._initialized = True", "cuda"),
    ],
)
def test_heavy_imports_are_seen(statement: str, key: str) -> None:
    assert footprint(statement)[key]


def test_imports_without_heavy_libraries() -> None:
    names = [dotted(path) for path in SOURCES if folder(path) not in NEED_HEAVY and path.stem != "__main__"]
    assert "vaeport.vae" in names
    done = without_heavy("\n".join(f"import {name}" for name in names))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("statement", ["import pydantic", "from huggingface_hub import snapshot_download", "import av"])
def test_missing_libraries_are_missing(statement: str) -> None:
    done = without_heavy(statement)
    assert done.returncode == 1
    assert "ModuleNotFoundError" in done.stderr


def test_network_is_refused() -> None:
    with pytest.raises(PermissionError, match=r"example\.org"):
        socket.getaddrinfo("example.org", 443)
    with pytest.raises(PermissionError, match=r"192\.0\.2\.1"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
