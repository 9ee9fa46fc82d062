"""`vaeport dataset`: the command line from a folder to latents, and what it says of broken items and wrong use."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from tests.cli.run import here
from tests.dataset.material import contents, pictures, rows
from tests.narrow import saved
from vaeport.kernels.graphs import Graphs
from vaeport.media import read_latents

GUIDE = Path(__file__).parents[2] / "docs" / "dataset.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("dataset")
    saved("autoencoder_kl", place / "vae")
    pictures(place / "src", [(16, 24), (8, 8), (16, 24)])
    return place


def test_a_folder_becomes_latents_and_is_verified(folder: Path, tmp_path: Path) -> None:
    made = here("dataset", folder / "src", "-o", "out", "--vae", folder / "vae", "--json", cwd=tmp_path)
    assert made.code == 0, made.stderr
    told = json.loads(made.stdout)
    assert (told["items"], told["encoded_now"], told["complete"]) == (3, 3, True)
    assert sorted(rows(tmp_path / "out")) == ["00", "01", "02"]
    again = here("dataset", folder / "src", "-o", "out", "--vae", folder / "vae", cwd=tmp_path)
    assert (again.code, again.stdout) == (0, "3 items in out, 1 of 1 shards\n")
    verified = here("dataset", "out", "--verify", cwd=tmp_path)
    assert verified.code == 0
    assert verified.stdout.startswith("3 items in 1 files, ")
    (tmp_path / "out" / "data" / "000000-000.parquet").write_bytes(b"")
    assert here("dataset", "out", "--verify", cwd=tmp_path).code == 1
    assert here("dataset", "out", "--status", "--json", cwd=tmp_path).code == 0


def test_graphs(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second picture of a size is the first that is recorded; the files are the same."""
    asked = ("dataset", folder / "src", "--vae", folder / "vae")
    assert here(*asked, "-o", "plain", cwd=tmp_path).code == 0
    ran = list[int]()

    def recorded(self: Graphs, run: Callable[[], Tensor], device: object) -> Callable[[], Tensor]:
        ran.append(1)
        return run

    monkeypatch.setattr(Graphs, "_serves", lambda self, x: True)
    monkeypatch.setattr(Graphs, "_recorded", recorded)
    assert here(*asked, "-o", "without", cwd=tmp_path).code == 0
    assert not ran
    assert here(*asked, "-o", "with", "--graphs", cwd=tmp_path).code == 0
    assert ran == [1]
    assert contents(tmp_path / "with") == contents(tmp_path / "plain")


def test_broken_items_are_told_by_the_exit_code(folder: Path, tmp_path: Path) -> None:
    pictures(tmp_path / "src", [(8, 8)])
    (tmp_path / "src" / "broken.png").write_bytes(b"\x89PNG")
    done = here("dataset", "src", "-o", "out", "--vae", folder / "vae", "--as", "safetensors", cwd=tmp_path)
    assert done.code == 1
    assert "1 quarantined: see quarantine.jsonl there" in done.stdout
    assert read_latents(tmp_path / "out" / "latents" / "00.safetensors")[0].shape == (1, 4, 2, 2)
    rank = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}
    done = here("dataset", "src", "-o", "out", "--vae", folder / "vae", "--as", "safetensors", cwd=tmp_path, **rank)
    assert done.code == 0, "torchrun would end the ranks that still work"
    assert "1 quarantined" in done.stdout


def test_the_code_of_the_guide_runs(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert here("dataset", folder / "src", "-o", "latents", "--vae", folder / "vae", cwd=tmp_path).code == 0
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    exec(block, {})
    assert capsys.readouterr().out.splitlines() == ["00 (4, 4, 6)", "01 (4, 2, 2)", "02 (4, 4, 6)"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("src",), "what is to be encoded, and whereto?"),
        (("src", "-o", "out"), "what is to be encoded, and whereto?"),
        (("nothing", "-o", "out", "--vae", "vae"), "nothing"),
        (("src", "-o", "out", "--vae", "vae", "--size", "16"), "--size is no size"),
        (("src", "-o", "out", "--vae", "vae", "--as", "csv"), "latents are not written in this layout"),
        (("src", "-o", "out", "--vae", "vae", "--readers", "0"), "nothing would be read"),
        (("src", "--verify"), "this is no output of `vaeport dataset`"),
    ],
)
def test_wrong_use_is_named(folder: Path, arguments: tuple[str, ...], says: str) -> None:
    done = here("dataset", *arguments, cwd=folder)
    assert done.code == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "out" / "data").exists()
