"""A right port passes every gate; every fault fails, by its own gate and under its own name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.narrow import ARCHS, KL4, narrow, proof
from vaeport.layers import ChannelRMSNorm, Conv, GroupNorm, LatentNormalizer, Pad, SpatialNoise
from vaeport.models.autoencoder_kl import AutoencoderKL
from vaeport.proof.cases import Case, cases_of
from vaeport.proof.remote import RemoteSide
from vaeport.proof.sides import ReferenceSide
from vaeport.proof.verdict import Verdict
from vaeport.vae import VAE


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> RemoteSide:
    """Diffusers' narrow AutoencoderKL, run once in another process; later runs read its captures."""
    folder = tmp_path_factory.mktemp("captures")
    return RemoteSide("diffusers:AutoencoderKL", KL4.to_published(), python=sys.executable, folder=folder)


def names(verdict: Verdict) -> set[str]:
    return {f.name for f in verdict.failures}


@pytest.mark.parametrize("name", ARCHS)
def test_right_ports_pass_all_gates(name: str) -> None:
    verdict = proof(name, dtypes=("float32", "bfloat16"), repeats=3).run()
    assert verdict, "\n".join(verdict.lines())
    assert {row.gate for row in verdict.rows} == {"S", "P float32", "P bfloat16", "D float32", "D bfloat16"}
    assert verdict.evidence["elements_compared"] > 1000
    assert verdict.to_json()["passed"] is True


def two_cases(name: str) -> tuple[Case, ...]:
    """The batch of nine frames or more, and, of lengths that break the rules where one may, the shortest."""
    model, arch = narrow(name)
    batch, _, odd = cases_of(model.contract_of(arch))
    return batch, odd


@pytest.mark.parametrize("name", ["wan2_2", "ltx1", "ltx5", "ltx2", "hunyuan_video"])
def test_right_ports_of_videos_pass_all_gates(name: str) -> None:
    """Decoders that know a timestep are told it, and noise that they add is the same on both sides."""
    verdict = proof(name, dtypes=("bfloat16",), repeats=1, cases=two_cases(name)).run()
    assert verdict, "\n".join(verdict.lines())
    assert {row.gate for row in verdict.rows} == {"S", "P bfloat16", "D bfloat16"}
    assert verdict.evidence["elements_compared"] > 1000


@pytest.mark.parametrize("name", ["ltx", "ltx23"])
def test_their_other_versions_pass_gate_s(name: str) -> None:
    verdict = proof(name, cases=two_cases(name)).run()
    assert verdict, "\n".join(verdict.lines())
    assert {row.gate for row in verdict.rows} == {"S"}


def other_past(vae: VAE) -> None:
    pad = vae.get_submodule("encoder.levels.1.shortcut.past")
    assert isinstance(pad, Pad)
    pad.mode = "replicate"


def swapped_modulations(vae: VAE) -> None:
    block = vae.get_submodule("decoder.levels.1.blocks.0.main")
    block.modulate1, block.modulate2 = block.modulate2, block.modulate1


def no_noise(vae: VAE) -> None:
    noise = vae.get_submodule("decoder.levels.2.blocks.0.main.noise2")
    assert isinstance(noise, SpatialNoise)
    noise.scale.zero_()


def other_edges(vae: VAE) -> None:
    for module in vae.get_submodule("encoder.conv_in").modules():
        if isinstance(module, Pad):
            module.mode = "constant"


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("wan2_2", other_past),
        ("ltx1", swapped_modulations),
        ("ltx1", no_noise),
        ("hunyuan_video", other_edges),
    ],
)
def test_faults_of_videos_fail_gate_s(name: str, fault: Any) -> None:
    verdict = proof(name, fault, cases=two_cases(name)[1:]).run()
    assert verdict.failed_gates() == {"S"}
    assert names(verdict) == {"same function"}


def test_the_reference_runs_in_another_environment(captured: RemoteSide) -> None:
    assert proof("autoencoder_kl", reference=captured).run()
    assert (captured.folder / "out.json").exists()  # type: ignore[operator]
    again = RemoteSide(captured.path, captured.arguments, python=None, folder=captured.folder)
    assert proof("autoencoder_kl", reference=again).run()


def group_norms() -> list[str]:
    with torch.device("meta"):
        vae = AutoencoderKL(KL4)
    return [name for name, module in vae.named_modules() if isinstance(module, GroupNorm)]


@pytest.mark.parametrize("path", group_norms())
def test_the_eps_of_each_group_norm(path: str, captured: RemoteSide) -> None:
    def fault(vae: VAE) -> None:
        vae.get_submodule(path).eps = 1e-5  # type: ignore[assignment]

    verdict = proof("autoencoder_kl", fault, reference=captured).run()
    assert verdict.failed_gates() == {"S"}
    assert names(verdict) == {"same function"}


def other_side(vae: VAE) -> None:
    down = vae.get_submodule("encoder.levels.0.resample")
    assert isinstance(down, Conv)
    down.pad = ((1, 0), (0, 1))


def other_scale(vae: VAE) -> None:
    vae.normalizer = LatentNormalizer(0.1, 0.3 * (1 + 1e-7))


def permuted_pair(vae: VAE) -> None:
    weight = vae.get_submodule("decoder.conv_in").weight
    assert isinstance(weight, Tensor)
    weight.copy_(weight[:, [1, 0, 2, 3]])


def swapped_moments(vae: VAE) -> None:
    conv = vae.get_submodule("encoder.quant_conv")
    for parameter in conv.parameters():
        parameter.copy_(parameter.roll(4, 0))


@pytest.mark.parametrize(
    ("fault", "output"),
    [(other_side, "mean"), (other_scale, "normalized"), (permuted_pair, "decoded"), (swapped_moments, "moments")],
)
def test_faults_of_function_fail_gate_s(fault: Any, output: str, captured: RemoteSide) -> None:
    verdict = proof("autoencoder_kl", fault, reference=captured).run()
    assert verdict.failed_gates() == {"S"}
    assert any(output in f.where for f in verdict.failures)


def test_a_moved_cast_fails_gate_d_alone() -> None:
    def late_cast(self: ChannelRMSNorm, x: Tensor) -> Tensor:
        gain = (self.gain * self.gain.numel() ** 0.5).view(-1, *(1,) * (x.dim() - 2))
        wide = x.float() if x.dtype == torch.bfloat16 else x
        return (F.normalize(wide, dim=1) * gain).to(x.dtype)

    def fault(vae: VAE) -> None:
        norm = vae.get_submodule("decoder.norm_out")
        norm.forward = late_cast.__get__(norm)  # type: ignore[method-assign]

    verdict = proof("wan", fault, dtypes=("bfloat16",), repeats=3).run()
    assert verdict.failed_gates() == {"D"}
    assert [f.where for f in verdict.failures] == ["decoder.norm_out.gain: used"]


def test_a_worse_rounding_fails_gate_p() -> None:
    def fault(vae: VAE) -> None:
        conv = vae.get_submodule("decoder.conv_out")
        whole = Conv.forward

        def rough(x: Tensor) -> Tensor:
            y = whole(conv, x)  # type: ignore[arg-type]
            return (y / 8).to(torch.float8_e4m3fn).to(y.dtype) * 8 if y.dtype == torch.bfloat16 else y

        conv.forward = rough  # type: ignore[method-assign]

    verdict = proof("autoencoder_kl", fault, dtypes=("bfloat16",), repeats=3).run()
    assert verdict.failed_gates() == {"P"}


class TestVacuousProofs:
    """What must never pass, whatever the numbers say."""

    def test_the_reference_is_our_own_class(self) -> None:
        own = ReferenceSide("vaeport.models.autoencoder_kl:AutoencoderKL", {"arch": KL4})
        verdict = proof("autoencoder_kl", reference=own).run()
        assert not verdict
        assert names(verdict) == {"self-comparison"}

    def test_a_skipped_case(self) -> None:
        cases = list(cases_of(AutoencoderKL.contract_of(KL4)))
        cases[1] = Case(cases[1].name, cases[1].media, cases[1].latent, skip="needs a GPU")
        verdict = proof("autoencoder_kl", cases=cases).run()
        assert names(verdict) == {"skipped"}
        assert "needs a GPU" in verdict.failures[0].says

    def test_no_cases(self) -> None:
        verdict = proof("autoencoder_kl", cases=()).run()
        assert not verdict
        assert names(verdict) == {"empty"}

    def test_stale_captures(self, captured: RemoteSide) -> None:
        assert proof("autoencoder_kl", reference=captured).run()
        verdict = proof("autoencoder_kl", reference=captured, seed=1).run()
        assert names(verdict) == {"stale"}

    @pytest.mark.parametrize(
        ("body", "name"),
        [
            ("def encode(module, x): return {}", "error"),
            ("def decode(module, z): return module.decode(z).sample[:0]", "empty"),
            ("def decode(module, z): return module.decode(z).sample / 0", "non-finite"),
            ("def decode(module, z): return module.decode(z).sample.numpy().astype('f4') and None", "error"),
            ("def decode(module, z): return (1e6 * module.decode(z).sample).sin()", "ill-conditioned"),
            ("def normalize(module, z): return z.bool()", "wrong dtype"),
        ],
    )
    def test_bad_references(self, body: str, name: str, tmp_path: Path) -> None:
        file = tmp_path / "adapter.py"
        file.write_text(body)
        side = ReferenceSide("diffusers:AutoencoderKL", KL4.to_published(), str(file))
        verdict = proof("autoencoder_kl", reference=side).run()
        assert not verdict
        assert name in names(verdict)

    def test_a_case_in_which_nothing_happens(self) -> None:
        verdict = proof("autoencoder_kl", scale={"decoder.conv_out.*": 1e-4}).run()
        assert "degenerate case" in names(verdict)

    def test_a_reference_that_overflows(self) -> None:
        verdict = proof("autoencoder_kl", scale={"encoder.conv_out.*": 1e5}, dtypes=("float16",)).run()
        assert "unsupported by the reference" in names(verdict)
