"""Official code is imported as it stands, and what it cannot do is said with its place and a remedy."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.proof.untouched import untouched
from vaeport.errors import ProofError
from vaeport.proof.importing import import_object, stubbed

VAE = "class VAE:\n    value = 7\n"


@pytest.fixture(autouse=True)
def undone(tmp_path: Path) -> Iterator[None]:
    with untouched(tmp_path):
        yield


def write(root: Path, **files: str) -> Path:
    """A source tree; `__` in a name is a folder, e.g. official__vae is official/vae.py."""
    for name, text in files.items():
        file = root / f"{name.replace('__', '/')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def package(root: Path, name: str, **files: str) -> Path:
    """A package whose `__init__.py` does not run anywhere."""
    write(root / name, **files).mkdir(exist_ok=True, parents=True)
    (root / name / "__init__.py").write_text("raise RuntimeError('the whole application')")
    return root / name


def refused(path: str) -> ProofError:
    with pytest.raises(ProofError) as error:
        import_object(path)
    return error.value


def test_a_file_alone(tmp_path: Path) -> None:
    write(tmp_path, alone=f"import helper_of_alone\n{VAE}", helper_of_alone="")
    assert import_object(f"{tmp_path}/alone.py:VAE").value == 7


def test_packages_around_a_file_do_not_run(tmp_path: Path) -> None:
    inner = package(package(tmp_path, "outer"), "inner", vae=f"from ..other import size\n{VAE}")
    write(inner.parent, other="from outer.third import size", third="size = 3")
    found = import_object(f"{inner}/vae.py:VAE")
    assert (found.__module__, found.value) == ("outer.inner.vae", 7)
    assert sys.modules["outer.inner.vae"].size == 3


def test_a_package_without_init(tmp_path: Path) -> None:
    """It imports itself by its absolute name, which no `__init__.py` tells."""
    write(tmp_path, spaces__models__vae=f"from spaces.util.ops import size\n{VAE}", spaces__util__ops="size = 4")
    assert import_object(f"{tmp_path}/spaces/models/vae.py:VAE").value == 7
    assert stubbed.isdisjoint({"spaces", "spaces.util", "spaces.util.ops"})
    assert sys.modules["spaces.util.ops"].size == 4


def test_two_imports_are_one_module(tmp_path: Path) -> None:
    place = package(tmp_path, "once", vae=VAE)
    assert import_object(f"{place}/vae.py:VAE") is import_object(f"{place}/vae.py:VAE")
    assert import_object(f"{place}/../once/vae.py:VAE") is import_object(f"{place}/vae.py:VAE")
    alone = write(tmp_path, single=VAE)
    assert import_object(f"{alone}/single.py:VAE") is import_object(f"{alone}/single.py:VAE")


def test_one_name_in_two_folders(tmp_path: Path) -> None:
    """Two repositories may both call their package `models`, and their file `vae`."""
    first = package(tmp_path / "a", "models", vae=VAE)
    second = package(tmp_path / "b", "models", vae=VAE.replace("7", "8"))
    assert [import_object(f"{p}/vae.py:VAE").value for p in (first, second, first)] == [7, 8, 7]
    for folder, value in (("c", 7), ("d", 8)):
        write(tmp_path / folder, vae=VAE.replace("7", str(value)))
    assert [import_object(f"{tmp_path}/{n}/vae.py:VAE").value for n in "cdc"] == [7, 8, 7]


def test_a_file_with_a_taken_name_takes_nothing(tmp_path: Path) -> None:
    write(tmp_path, fractions=VAE)
    import fractions

    assert import_object(f"{tmp_path}/fractions.py:VAE").value == 7
    assert sys.modules["fractions"] is fractions


# What is missing.


def test_missing_modules_are_stubbed(tmp_path: Path) -> None:
    source = f"import lacking_a.deep as a\nfrom lacking_b.sub import thing\nfrom lacking_a import Other\n{VAE}"
    assert import_object(f"{package(tmp_path, 'p1', vae=source)}/vae.py:VAE").value == 7
    assert {"lacking_a", "lacking_b"} <= {name.split(".")[0] for name in stubbed}


def test_a_guarded_import_stays_failed(tmp_path: Path) -> None:
    source = (
        f"try:\n    import lacking_c\n    HAS = True\nexcept ImportError:\n    HAS = False\nimport lacking_d\n{VAE}"
    )
    import_object(f"{package(tmp_path, 'p2', vae=source)}/vae.py:VAE")
    assert sys.modules["p2.vae"].HAS is False
    assert "lacking_c" not in stubbed
    assert "lacking_d" in stubbed


def test_stubs_as_decorators_bases_and_annotations(tmp_path: Path) -> None:
    source = """
import lacking_e as e
from lacking_e.types import Float

@e.jit
def double(x: Float["b c"]) -> e.Tensor | None:
    return 2 * x

@e.register
class Plain:
    pass

class Module(e.LightningModule):
    pass
"""
    place = f"{package(tmp_path, 'p3', vae=source)}/vae.py"
    assert import_object(f"{place}:double")(4) == 8
    assert isinstance(import_object(f"{place}:Plain")(), object)
    assert issubclass(import_object(f"{place}:Module"), object)


def test_a_stub_that_is_called_names_itself(tmp_path: Path) -> None:
    source = """
import lacking_f as f

def use():
    return f.ops.attention(1, 2)

class Module(f.LightningModule):
    pass
"""
    place = f"{package(tmp_path, 'p4', vae=source)}/vae.py"
    with pytest.raises(ProofError, match="uses a module that is missing") as called:
        import_object(f"{place}:use")()
    assert called.value.where == "lacking_f.ops.attention"
    assert called.value.fix == "install it, or --stub lacking_f.ops.attention=module:object"
    with pytest.raises(ProofError) as built:
        import_object(f"{place}:Module")()
    assert built.value.fix == "install it, or --stub lacking_f.LightningModule=module:object"


def test_a_stub_called_at_import_says_where(tmp_path: Path) -> None:
    place = package(tmp_path, "p5", vae=f"import lacking_g\n\nlacking_g.register('vae', 1)\n{VAE}")
    error = refused(f"{place}/vae.py:VAE")
    assert error.where == f"{place}/vae.py:3"
    assert error.found == "lacking_g.register"
    assert "--stub lacking_g.register=" in (error.fix or "")


def test_an_object_stands_in(tmp_path: Path) -> None:
    source = "import lacking_h as h\nfrom lacking_h.nn import Swish\n\nclass VAE(h.LightningModule):\n    act = Swish\n"
    place = package(tmp_path, "p6", vae=source)
    stubs = {"lacking_h.LightningModule": "torch.nn:Module", "lacking_h.nn.Swish": "torch.nn:SiLU"}
    found: Any = import_object(f"{place}/vae.py:VAE", stubs)
    assert isinstance(found(), nn.Module)
    assert found.act is nn.SiLU


def test_what_the_package_itself_lacks_is_no_stub(tmp_path: Path) -> None:
    place = package(tmp_path, "p7", vae=f"from p7.gone import size\n{VAE}")
    error = refused(f"{place}/vae.py:VAE")
    assert error.where == f"{place}/vae.py:1"
    assert error.found == "ModuleNotFoundError: No module named 'p7.gone'"


# What does not import.

BAD = {
    "raises": ("x = 1\nraise ValueError('no config')\n", ":2", "ValueError: no config", "--official-python"),
    "exits": ("import sys\n\nsys.exit(0)\n", ":3", "exits", "--official-python"),
    "needs_cuda": (
        "raise RuntimeError('Found no NVIDIA driver on your system')\n",
        ":1",
        "RuntimeError: Found no NVIDIA driver on your system",
        "a machine that has a GPU",
    ),
    "breaks": ("x = 1\ny = (\n", ":2", "SyntaxError: '(' was never closed", "--official-python"),
    "misses": ("from torch import nothing_of_the_kind\n", ":1", "ImportError: cannot import name", "--official-python"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("inner", [False, True])
def test_a_file_that_does_not_import(name: str, inner: bool, tmp_path: Path) -> None:
    """Itself, or a module that it imports."""
    source, line, found, fix = BAD[name]
    place = package(tmp_path, f"bad_{name}", vae="from .other import x" if inner else source, other=source)
    before, path, finders = dict(sys.modules), list(sys.path), list(sys.meta_path)
    error = refused(f"{place}/vae.py:VAE")
    assert error.what == "the official code does not import"
    assert error.where == f"{place}/{'other' if inner else 'vae'}.py{line}"
    assert str(error.found).startswith(found)
    assert fix in (error.fix or "")
    assert dict(sys.modules) == before
    assert (sys.path, sys.meta_path) == (path, finders)


def test_a_failed_import_leaves_nothing_and_may_be_mended(tmp_path: Path) -> None:
    place = package(tmp_path, "mended", vae="import lacking_i\nfrom . import other\n1 / 0", other="")
    refused(f"{place}/vae.py:VAE")
    assert not [name for name in sys.modules if name.split(".")[0] in ("mended", "lacking_i")]
    assert "lacking_i" not in stubbed
    (place / "vae.py").write_text(VAE)
    assert import_object(f"{place}/vae.py:VAE").value == 7


def test_a_failed_import_gives_a_name_back(tmp_path: Path) -> None:
    first = package(tmp_path / "a", "shared", vae=VAE)
    second = package(tmp_path / "b", "shared", vae="1 / 0")
    found = import_object(f"{first}/vae.py:VAE")
    held = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "shared"}
    refused(f"{second}/vae.py:VAE")
    assert {name: sys.modules.get(name) for name in held} == held
    assert import_object(f"{first}/vae.py:VAE") is found


def test_what_an_environment_in_the_folder_has_is_imported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled modules bear no second import; those of the source itself start anew with each stub."""
    installed = tmp_path / ".venv" / "site-packages"
    count = "from pathlib import Path\nwith Path(__file__).with_suffix('.txt').open('a') as f: f.write('x')\n"
    monkeypatch.syspath_prepend(write(installed, installed_once=count))
    source = f"import installed_once\nfrom . import helper\nimport lacking_k\nimport lacking_l\n{VAE}"
    place = package(tmp_path, "p8", vae=source, helper=count)
    assert import_object(f"{place}/vae.py:VAE").value == 7
    assert (installed / "installed_once.txt").read_text() == "x"
    assert (place / "helper.txt").read_text() == "xxx"


@pytest.mark.parametrize("name", ["raises", "exits", "needs_cuda", "breaks"])
def test_an_import_path_that_does_not_import(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, line, found, _ = BAD[name]
    monkeypatch.syspath_prepend(write(tmp_path, **{f"path_{name}": source}))
    error = refused(f"path_{name}:VAE")
    assert error.where == f"{tmp_path}/path_{name}.py{line}"
    assert str(error.found).startswith(found)


def test_an_import_path_that_is_missing() -> None:
    error = refused("lacking_j.vae:VAE")
    assert error.found == "ModuleNotFoundError: No module named 'lacking_j'"
    assert "--official-python" in (error.fix or "")


def test_what_an_import_prints_is_not_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import_object(f"{package(tmp_path, 'loud', vae=f'print(12345){chr(10)}{VAE}')}/vae.py:VAE")
    told = capsys.readouterr()
    assert "12345" not in told.out
    assert "12345" in told.err


def test_no_such_file(tmp_path: Path) -> None:
    error = refused(f"{tmp_path}/gone.py:VAE")
    assert (error.what, error.where) == ("no such source file", tmp_path / "gone.py")


def test_no_such_class_lists_those_there_are(tmp_path: Path) -> None:
    place = write(tmp_path, two="from fractions import Fraction\nclass A: pass\nclass B: pass\n")
    error = refused(f"{place}/two.py:VAE")
    assert error.found == f"{place}/two.py has no `VAE`; its own classes: A, B"
    assert refused("torch.nn:Nothing").what == "cannot import torch.nn:Nothing"


@pytest.mark.parametrize("path", ["", "torch.nn", ":VAE", "vae.py", "torch:"])
def test_what_is_no_path(path: str) -> None:
    assert refused(path).what == "not an import path"


def test_a_path_of_a_module() -> None:
    assert import_object("torch.nn:Conv2d") is torch.nn.Conv2d


def test_a_module_that_fails_when_a_name_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(write(tmp_path, lazily="def __getattr__(name):\n    raise RuntimeError(name)\n"))
    error = refused("lazily:VAE")
    assert (error.where, error.found) == (f"{tmp_path}/lazily.py:2", "RuntimeError: VAE")
