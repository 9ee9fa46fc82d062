"""The tree's own rules: linted, formatted, typed, documented, in small files, one stem for table, map and test."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "vaeport"
LONGEST = 260
IGNORED = {
    ".git",
    ".venv",
    ".hypothesis",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    "__pycache__",
    "build",
    "dist",
}
MACHINE_PATH = re.compile(rb"(?<![\w./)}-])/(?:work|root|home/\w+|Users/\w+)(?![\w.-])")


def run(tool: str, *args: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", tool, *args], cwd=ROOT, input=stdin, capture_output=True, text=True)


def undocumented_methods(sources: Iterable[str]) -> set[str]:
    """Public methods that no class documents: a word's protocol is told once, where it is defined."""
    told: set[str] = set()
    untold: set[str] = set()
    for source in sources:
        for owner in ast.walk(ast.parse(source)):
            if isinstance(owner, ast.ClassDef):
                for item in owner.body:
                    if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef) and not item.name.startswith("_"):
                        (told if ast.get_docstring(item) else untold).add(item.name)
    return untold - told


def lengths(folder: Path) -> dict[str, int]:
    return {path.name: len(path.read_text("utf-8").splitlines()) for path in sorted(folder.rglob("*.py"))}


def stems(folder: Path, name: str) -> set[str]:
    """Files that give their folder's thing; what several of them share lies beside them."""
    return {path.stem for path in folder.glob("*.py") if re.search(rf"\b{name}\b", path.read_text())} - {"__init__"}


def unpaired(root: Path) -> set[str]:
    """Architectures that lack their table, their map or the test of either."""
    models = stems(root / "src/vaeport/models", "EntryClass")
    weights = stems(root / "src/vaeport/weights", "LAYOUTS")
    tested = {path.stem.removeprefix("test_") for path in (root / "tests/models").glob("test_*.py")}
    return (models ^ weights) | (models - tested)


def test_lint() -> None:
    done = run("ruff", "check", ".")
    assert done.returncode == 0, done.stdout + done.stderr


def test_format() -> None:
    done = run("ruff", "format", "--check", ".")
    assert done.returncode == 0, done.stdout + done.stderr


def test_types() -> None:
    done = run("mypy", "src")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"in {len(list(PACKAGE.rglob('*.py')))} source file" in done.stdout, "mypy left files out: " + done.stdout


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("x = 1\n", "D100"),
        ('"""M."""\n\n\nclass Shape:\n    pass\n', "D101"),
        ('"""M."""\n\n\ndef area():\n    return 1\n', "D103"),
        ('"""M."""\n\nimport os\n', "F401"),
        ('"""M."""\n\nimport pickle\n\nx = pickle.loads(b"")\n', "S301"),
    ],
)
def test_lint_can_fail(source: str, code: str) -> None:
    done = run("ruff", "check", "--stdin-filename", "src/vaeport/layers/new.py", "-", stdin=source)
    assert done.returncode == 1
    assert code in done.stdout


def test_types_can_fail() -> None:
    done = run("mypy", "--cache-dir", "/dev/null", "-c", "def area(side):\n    return side * side\n")
    assert done.returncode == 1
    assert "no-untyped-def" in done.stdout


def test_methods_are_documented() -> None:
    assert undocumented_methods(path.read_text("utf-8") for path in PACKAGE.rglob("*.py")) == set()
    told, untold = (
        'class A:\n    def f(self):\n        """F."""\n',
        "class B:\n    def f(self): ...\n    def g(self): ...\n",
    )
    assert undocumented_methods([told, untold]) == {"g"}


@pytest.mark.parametrize("folder", ["layers", "models", "weights"])
def test_files_are_small(folder: str) -> None:
    sizes = lengths(PACKAGE / folder)
    assert sizes, f"{folder}/ holds no file"
    middle = statistics.median([lines for name, lines in sizes.items() if name != "__init__.py"])
    print(f"\n{folder}: {len(sizes)} files, median {middle:.0f} lines, longest {max(sizes.values())}")
    assert {name: lines for name, lines in sizes.items() if lines > LONGEST} == {}


def test_every_architecture_is_whole() -> None:
    assert stems(PACKAGE / "models", "EntryClass")
    assert unpaired(ROOT) == set()


def test_missing_map_and_missing_test_are_seen(tmp_path: Path) -> None:
    for name in (
        "src/vaeport/models/a.py",
        "src/vaeport/models/b.py",
        "src/vaeport/weights/a.py",
        "tests/models/test_a.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("EntryClass, LAYOUTS = 0, 0")
    (tmp_path / "src/vaeport/models/shared.py").touch()
    assert unpaired(tmp_path) == {"b"}
    (tmp_path / "src/vaeport/weights/b.py").write_text("LAYOUTS = ()")
    assert unpaired(tmp_path) == {"b"}
    (tmp_path / "tests/models/test_b.py").touch()
    assert unpaired(tmp_path) == set()


def test_no_machine_paths() -> None:
    read, found = 0, {}
    for path in ROOT.rglob("*"):
        if path.is_file() and IGNORED.isdisjoint(path.relative_to(ROOT).parts):
            read += 1
            if hits := MACHINE_PATH.findall(path.read_bytes()):
                found[str(path.relative_to(ROOT))] = hits
    assert read > 0
    assert found == {}
    assert MACHINE_PATH.search(b'open("/ro' + b'ot/x")')
    assert MACHINE_PATH.search(b"cd /wo" + b"rk")
    assert not MACHINE_PATH.search(b"the tree/root and vae/work/x and /workspace and a /rooted path")
