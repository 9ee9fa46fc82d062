"""A reference in a process of its own: what it says, what it is asked, and how its errors arrive."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.proof.untouched import untouched
from vaeport.errors import BlockedError, ProofError
from vaeport.proof.calling import Convention
from vaeport.proof.jobs import Job
from vaeport.proof.precision import shown_file
from vaeport.proof.remote import RemoteSide, StaleCaptureError
from vaeport.proof.sides import ReferenceSide

SOURCE = '''
import lacking_somewhere
import torch
from torch import nn

print("hello")


class VAE(nn.Module):
    """Two latents a pixel pair."""

    def __init__(self, width: int, fail: str = "") -> None:
        super().__init__()
        if fail == "crash":
            import os
            os._exit(3)
        if fail == "vanish":
            import os
            os._exit(0)
        if fail:
            raise RuntimeError(fail)
        self.down = nn.Conv2d(3, 2 * width, 2, stride=2)
        self.up = nn.ConvTranspose2d(width, 3, 2, stride=2)

    def encode(self, x):
        return self.down(x).chunk(2, 1)[0]

    def decode(self, z):
        return self.up(z)
'''


@pytest.fixture(autouse=True)
def undone(tmp_path: Path) -> Iterator[None]:
    with untouched(tmp_path):
        yield


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "official_remote.py"
    path.write_text(SOURCE)
    return path


def side(file: Path, folder: Path | None = None, name: str = "VAE", **arguments: Any) -> RemoteSide:
    return RemoteSide(f"{file}:{name}", {"width": 2, **arguments}, python=sys.executable, folder=folder)


def test_describe(file: Path) -> None:
    found = side(file).describe()
    assert found["shapes"] == {
        "down.weight": [4, 3, 2, 2],
        "down.bias": [4],
        "up.weight": [2, 3, 2, 2],
        "up.bias": [3],
    }
    assert set(found["dtypes"].values()) == {"float32"}
    assert found["stubs"] == ["lacking_somewhere"]
    assert list(found["files"]) == [shown_file(str(file))]
    assert found["name"] == f"{shown_file(str(file))}:VAE"


def test_ask(file: Path) -> None:
    """The question is a function of this package, its arguments and answer are JSON."""
    found = side(file).ask(
        "port.flows:foreign_values", media=[1, 3, 4, 6], latent=[1, 2, 2, 3], weights=str(drawn(file, 0))
    )
    assert [use["operands"][0]["keys"] for use in found["uses"]] == [["down.weight"], ["up.weight"]]
    assert all(len(use["values"]) == 4 for use in found["uses"])


def drawn(file: Path, seed: int) -> Path:
    weights = file.with_name(f"drawn{seed}.safetensors")
    module = ReferenceSide(f"{file}:VAE", {"width": 2}).open().module
    generator = torch.Generator().manual_seed(seed)
    save_file({k: torch.randn(v.shape, generator=generator) for k, v in module.state_dict().items()}, weights)
    return weights


def job() -> Job:
    generator = torch.Generator().manual_seed(0)
    media, latent = (torch.randn(s, generator=generator, dtype=torch.float64) for s in ((1, 3, 4, 6), (1, 2, 2, 3)))
    return Job("case", media, latent)


def test_captures_are_those_of_this_process_and_are_kept(file: Path, tmp_path: Path) -> None:
    weights, folder = drawn(file, 0), tmp_path / "captures"
    [far] = side(file, folder).run(weights, [job()])
    [here] = ReferenceSide(f"{file}:VAE", {"width": 2}).run(weights, [job()])
    assert far.error is here.error is None
    assert far.outputs.keys() == here.outputs.keys() >= {"mean", "decoded", "round_trip"}
    assert all(torch.equal(far.outputs[k], here.outputs[k]) for k in here.outputs)
    kept = RemoteSide(f"{file}:VAE", {"width": 2}, python=None, folder=folder)
    [again] = kept.run(weights, [job()])
    assert torch.equal(again.outputs["mean"], here.outputs["mean"])
    with pytest.raises(StaleCaptureError, match="remove it") as stale:
        list(kept.run(drawn(file, 1), [job()]))
    assert isinstance(stale.value, ProofError), "whoever tells errors tells this one"


def test_types_that_explain_are_kept_apart_from_what_the_gates_took(file: Path, tmp_path: Path) -> None:
    weights, folder = drawn(file, 0), tmp_path / "captures"
    typed = replace(job(), dtype=torch.float32, rounded=torch.float32, rows=("down",))
    gates = [job(), replace(typed, name="D")]
    list(side(file, folder).run(weights, gates))
    [far] = side(file, folder).run(weights, [typed])
    assert far.error is None
    assert far.signature
    kept = RemoteSide(f"{file}:VAE", {"width": 2}, python=None, folder=folder)
    [again] = kept.run(weights, [typed])
    assert again.signature == far.signature
    assert "mean" in next(kept.run(weights, gates)).outputs
    with pytest.raises(BlockedError, match="modules yet"):
        list(kept.run(weights, [replace(typed, rows=("up",))]))


def test_errors_arrive_with_their_parts(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ProofError) as refused:
        side(file, fail="no licence").describe()
    error = refused.value
    assert error.what == "the reference cannot be built"
    assert str(error.where).startswith("VAE(width: int")
    assert error.found == "RuntimeError: no licence"
    assert "--args" in (error.fix or "")
    with pytest.raises(ProofError) as unknown:
        side(file, name="Other").ask("port.probe:probe")
    assert "its own classes: VAE" in str(unknown.value.found)


@pytest.mark.parametrize("fail", ["crash", "vanish"])
def test_a_process_that_dies_gives_no_old_answer(fail: str, file: Path, tmp_path: Path) -> None:
    """Neither captures nor an error of an earlier run are taken for its own."""
    folder = tmp_path / "captures"
    folder.mkdir()
    (folder / "error.json").write_text(json.dumps({"what": "an old error"}))
    found = side(file, folder, fail=fail)
    with pytest.raises(ProofError, match="the reference failed in its own environment") as refused:
        list(found.run(drawn(file, 0), [job()]))
    assert refused.value.where == sys.executable
    assert not (folder / "out.json").exists()


def test_no_interpreter(file: Path, tmp_path: Path) -> None:
    with pytest.raises(BlockedError, match="does not start"):
        RemoteSide(f"{file}:VAE", {}, python=str(tmp_path / "python")).describe()
    with pytest.raises(BlockedError, match="no captures of the reference yet"):
        RemoteSide(f"{file}:VAE", {}, python=None, folder=tmp_path).describe()


def test_conventions_travel(file: Path) -> None:
    convention = Convention(moments="down", stubs={"lacking_somewhere.x": "torch.nn:ReLU"})
    far = RemoteSide(f"{file}:VAE", {"width": 2}, python=sys.executable, convention=convention)
    [capture] = far.run(drawn(file, 0), [job()])
    assert capture.outputs["moments"].shape == (1, 4, 2, 3)
    assert torch.equal(capture.outputs["moments"][:, :2], capture.outputs["mean"])
