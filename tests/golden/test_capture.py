"""What guards a capture: hashes, float64, known noise, stand-ins, and the refusal of degenerate cases."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.golden import capture as capturing
from tests.golden import subsample
from tests.golden.command import command
from tests.golden.float64 import AttentionEntropy, DrawnNoise, Float64, Noise
from tests.golden.official import Source, checkout, importable, source, unused
from tests.golden.oracles import ORACLES
from tests.golden.oracles.base import Official, Oracle
from tests.golden.record import Record
from vaeport.errors import BlockedError, ProofError

CODE = "import far_away.tools\n\ndef halve(x):\n    return x.float() / 2\n"


@pytest.fixture
def upstream(tmp_path: Path) -> tuple[Path, Source]:
    """A git repository with one recorded and one unrecorded file."""
    folder = tmp_path / "upstream"
    (folder / "official_code").mkdir(parents=True)
    (folder / "official_code" / "vae.py").write_text(CODE)
    (folder / "official_code" / "unrecorded.py").write_text("")
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    for step in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *step], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    digest = hashlib.sha256(CODE.encode()).hexdigest()
    return folder / ".git", Source("owner/name", commit, {"official_code/vae.py": digest})


def test_a_checkout_holds_the_recorded_files_alone(upstream: tuple[Path, Source], tmp_path: Path) -> None:
    mirror, origin = upstream
    root = checkout(origin, tmp_path / "cache", mirror)
    assert [path.name for path in root.rglob("*") if path.is_file()] == ["vae.py"]
    assert root.parts[-2:] == ("owner+name", origin.commit)


def test_a_checkout_is_fetched_at_its_commit(
    upstream: tuple[Path, Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror, origin = upstream
    settings = f'[url "{mirror.as_uri()}"]\n  insteadOf = https://github.com/owner/name.git\n'
    settings += "[uploadpack]\n  allowFilter = true\n  allowAnySHA1InWant = true\n"
    (tmp_path / "gitconfig").write_text(settings)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    root = checkout(origin, tmp_path / "cache")
    assert (root / "official_code" / "vae.py").read_text() == CODE
    (root / "official_code" / "vae.py").unlink()
    assert checkout(origin, tmp_path / "cache") == root
    with pytest.raises(BlockedError, match="--mirror owner/name="):
        checkout(dataclasses.replace(origin, commit="0" * 40), tmp_path / "cache")


def test_a_changed_official_file_is_refused(upstream: tuple[Path, Source], tmp_path: Path) -> None:
    mirror, origin = upstream
    root = checkout(origin, tmp_path / "cache", mirror)
    (root / "official_code" / "vae.py").write_text(CODE + "# changed\n")
    with pytest.raises(ProofError, match=r"official_code/vae\.py"):
        checkout(origin, tmp_path / "cache", mirror)


def test_recorded_sources_have_commits_and_hashes() -> None:
    for oracle in ORACLES.values():
        origin = source(oracle.repo)
        assert len(origin.commit) == 40
        assert origin.files


def test_imports_come_from_the_checkout_and_leave_nothing_behind(upstream: tuple[Path, Source], tmp_path: Path) -> None:
    mirror, origin = upstream
    root = checkout(origin, tmp_path / "cache", mirror)
    before, path = set(sys.modules), list(sys.path)
    with importable(root, {"far_away": {}, "far_away.tools": {"Tool": unused("Tool")}}):
        import official_code.vae
        from far_away.tools import Tool

        assert importlib.util.find_spec("far_away") is not None
        assert Path(official_code.vae.__file__).is_relative_to(root)
        with pytest.raises(RuntimeError, match="Tool is a stand-in"):
            Tool()
        with pytest.raises(ModuleNotFoundError):
            import official_code.unrecorded
        x = torch.full((2,), 1 / 3, dtype=torch.float64)
        with Float64(root) as float64:
            assert torch.equal(official_code.vae.halve(x), x / 2)
        assert float64.promoted == {"official_code/vae.py:4: aten._to_copy.default to torch.float32"}
    left = set(sys.modules) - before
    assert not [name for name in left if name.split(".")[0] in ("official_code", "far_away")]
    assert sys.path == path
    assert not list(root.rglob("*.pyc"))


def test_a_float32_tensor_in_a_float64_run_is_refused(tmp_path: Path) -> None:
    half = torch.ones(2)
    with Float64(tmp_path), pytest.raises(RuntimeError, match="float32"):
        half * 2


def test_noise_is_given_once_and_for_its_shape() -> None:
    noise = torch.arange(6.0).reshape(2, 3)
    with Noise(noise):
        assert torch.randn_like(torch.zeros(2, 3)) is noise
        with pytest.raises(ValueError, match="call 2"):
            torch.randn((2, 3))
    with Noise(noise), pytest.raises(ValueError, match=r"\[3, 2\]"):
        torch.randn(torch.Size((3, 2)))


def test_noise_is_drawn_call_by_call() -> None:
    with DrawnNoise(lambda index, shape: torch.full(shape, index)):
        first, second = torch.randn((2, 3)), torch.randn((4, 5), dtype=torch.float64)
        with pytest.raises(ValueError, match=r"\[1, 2, 3\]"):
            torch.randn((1, 2, 3))
    assert first.shape == (2, 3)
    assert (first.unique().tolist(), second.unique().tolist()) == ([0], [1])


def test_attention_entropy_is_measured_in_both_spellings() -> None:
    query, key, value = torch.randn(3, 2, 1, 7, 16, dtype=torch.float64)
    with AttentionEntropy() as attention:
        torch.nn.functional.scaled_dot_product_attention(query, key, value)
        torch.nn.functional.softmax(query @ key.mT / 4, dim=-1)
        torch.nn.functional.softmax(torch.zeros(3, 5), dim=-1)
    assert attention.shares[0] == pytest.approx(attention.shares[1], rel=1e-12)
    assert 0.5 < attention.shares[0] < 0.99
    assert attention.shares[2] == pytest.approx(1)


def test_attention_entropy_is_a_share_of_what_a_mask_lets_through() -> None:
    uniform = torch.zeros(1, 1, 6, 8, dtype=torch.float64)
    mask = torch.zeros(6, 6, dtype=torch.float64).masked_fill(torch.arange(6) >= 3, -torch.inf)
    with AttentionEntropy() as attention:
        torch.nn.functional.scaled_dot_product_attention(uniform, uniform, uniform, attn_mask=mask)
        torch.nn.functional.scaled_dot_product_attention(uniform, uniform, uniform)
    assert attention.shares == pytest.approx([1, 1])


def test_an_activation_of_several_shapes_is_measured_whole() -> None:
    model = nn.Sequential(nn.Identity())
    record = Record(model, seed=1, taps=())
    with record.running("encode"):
        model[0](torch.full((1, 2, 3, 4, 5), 3.0))
        model[0](torch.full((1, 4, 3, 4, 5), 6.0))
    assert record.rms["encode.0"] == pytest.approx(27**0.5)


class TinyOracle(Oracle):
    """Two convolutions, the first of which may be called chunk by chunk."""

    name = "tiny"
    repo = "owner/name"
    published_file = "none"
    taps = ("0",)

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.scale = {"1.*": gain}

    def build(self, root: Path) -> Official:
        return Official(nn.Sequential(nn.Conv3d(3, 4, 1), nn.Conv3d(4, 4, 1)), "torch.nn.Sequential", {"width": 4})

    def run(self, official: Official, record: Record) -> None:
        x = record.media("encode.x", (2, 3, 5, 6, 7))
        with record.running("encode"):
            first = torch.cat([official.model[0](chunk) for chunk in x.split((1, 4), dim=2)], dim=2)
            record.output("encode.moments", official.model[1](first), "both convolutions")
        record.output("encode.first", first, "the first of them")


@pytest.fixture
def tiny(upstream: tuple[Path, Source], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    mirror, origin = upstream
    monkeypatch.setattr(capturing, "source", lambda repo: origin)
    return checkout(origin, tmp_path / "cache", mirror)


def test_a_capture_joins_the_calls_of_a_chunked_module(tiny: Path) -> None:
    tensors, provenance = capturing.capture(TinyOracle(), tiny)
    assert provenance["taps"]["encode.0"]["calls"] == 2
    assert provenance["taps"]["encode.0"]["shape"] == [2, 4, 5, 6, 7]
    assert torch.equal(tensors["tap.encode.0"], subsample(tensors["output.encode.first"]))
    assert tensors["input.encode.x"].dtype == torch.float32
    assert tensors["output.encode.moments"].dtype == torch.float64


def test_a_capture_survives_an_oracle_that_empties_its_state(tiny: Path) -> None:
    class Frugal(TinyOracle):
        def layout(self, official: Official) -> dict[str, list[int]]:
            return super().layout(official) | {"statistics.std": [4]}

        def load(self, official: Official, state: dict[str, torch.Tensor]) -> None:
            assert state.pop("statistics.std").shape == (4,)
            super().load(official, state)
            state.clear()

    _, plain = capturing.capture(TinyOracle(), tiny)
    _, frugal = capturing.capture(Frugal(), tiny)
    assert frugal["weights"]["layout"] == plain["weights"]["layout"] | {"statistics.std": [4]}
    assert frugal["weights"]["fingerprint"] != plain["weights"]["fingerprint"]


@pytest.mark.parametrize("gain", [1e-3, 1e3])
def test_a_degenerate_case_is_refused(tiny: Path, gain: float) -> None:
    with pytest.raises(ProofError, match=r"rms of encode\.1"):
        capturing.capture(TinyOracle(gain), tiny)


def test_a_check_sees_a_changed_value(monkeypatch: pytest.MonkeyPatch) -> None:
    golden = capturing.load_golden("ldm_sd1")
    parts = {"input": golden.inputs, "output": golden.outputs, "tap": golden.taps}
    tensors = {f"{part}.{key}": value.clone() for part, values in parts.items() for key, value in values.items()}
    assert "worst 0.0e+00" in capturing.check("ldm_sd1", tensors, golden.provenance)
    with pytest.raises(ProofError, match="commit"):
        capturing.check("ldm_sd1", tensors, golden.provenance | {"commit": "0" * 40})
    tensors["output.encode.mode"] *= 1 + 1e-11
    with pytest.raises(ProofError, match=r"output\.encode\.mode"):
        capturing.check("ldm_sd1", tensors, golden.provenance)
    del tensors["output.encode.mode"]
    with pytest.raises(ProofError, match=r"output\.encode\.mode"):
        capturing.check("ldm_sd1", tensors, golden.provenance)


def test_a_command_makes_what_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def make(name: str, cache: Path, mirrors: dict[str, Path], *, check_only: bool) -> str:
        if name == "bad":
            raise ProofError("it differs", where=name)
        return f"{cache.name} {[f'{repo}:{path.name}' for repo, path in mirrors.items()]} {check_only}"

    monkeypatch.setattr(sys, "argv", ["x", "good", "--check", "--cache", "somewhere", "--mirror", "owner/name=a/git"])
    command("doc", ("good", "bad"), make)
    assert capsys.readouterr().out == "good: somewhere ['owner/name:git'] True\n"
    monkeypatch.setattr(sys, "argv", ["x"])
    with pytest.raises(SystemExit, match="it differs"):
        command("doc", ("good", "bad"), make)
    monkeypatch.setattr(sys, "argv", ["x", "other"])
    with pytest.raises(SystemExit):
        command("doc", ("good", "bad"), make)
    assert "unknown: other" in capsys.readouterr().err
