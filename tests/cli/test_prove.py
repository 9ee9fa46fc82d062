"""`vaeport prove`: exit codes, JSON, and the proofs at full published width."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.run import here, vaeport
from tests.narrow import ARCHS, saved

REFERENCES = {
    "autoencoder_kl": "diffusers:AutoencoderKL",
    "wan": "diffusers:AutoencoderKLWan",
    "oobleck": "diffusers:AutoencoderOobleck",
}


def test_a_proof_from_a_config_and_a_weight_folder(tmp_path: Path) -> None:
    folder = saved("oobleck", tmp_path / "vae")
    options = ("--config", str(folder / "config.json"), "--weights", str(folder), "--dtypes", "float32")
    done = vaeport("prove", "--reference", REFERENCES["oobleck"], "--native", "oobleck", *options, "--json")
    verdict = json.loads(done.stdout)
    assert done.code == 0, done.stderr
    assert verdict["passed"] is True
    assert verdict["evidence"]["weights"] == "vae"
    assert len(verdict["evidence"]["weights_sha256"]) == 64
    assert any(file.endswith("autoencoder_oobleck.py") for file in verdict["reference"]["files"])
    table = vaeport(
        "prove", "--reference", REFERENCES["oobleck"], "--native", "oobleck", *options[:2], "--dtypes", "float32"
    )
    assert table.stdout.startswith("PASS  oobleck  against  diffusers:AutoencoderOobleck")


def test_a_wrong_constant_fails_with_exit_code_1(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**ARCHS["autoencoder_kl"].to_published(), "scaling_factor": 0.31}))
    right = json.dumps(ARCHS["autoencoder_kl"].to_published())
    options = ("--native", "autoencoder_kl", "--config", str(config), "--dtypes", "float32", "--reference-args", right)
    done = vaeport("prove", "--reference", REFERENCES["autoencoder_kl"], *options)
    assert done.code == 1
    assert "same function: S batch normalized" in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--reference", "diffusers:Nothing", "--native", "oobleck"), "cannot import diffusers:Nothing"),
        (("--reference", "diffusers", "--native", "oobleck"), "not an import path"),
        (("--reference", "diffusers:AutoencoderKL", "--native", "autoencoder_kll"), "did you mean autoencoder_kl"),
        (("--reference", "diffusers:AutoencoderKL", "--native", "autoencoder_kl"), "one of sd1, sd2, sdxl, sd3, flux1"),
        (
            ("--reference", "diffusers:AutoencoderKL", "--native", "autoencoder_kl", "--variant", "sd9"),
            "no configuration `sd9`",
        ),
        (
            ("--reference", "diffusers:AutoencoderOobleck", "--native", "oobleck", "--dtypes", "int8"),
            "no gate P for `int8`",
        ),
        (
            ("--reference", "diffusers:AutoencoderOobleck", "--native", "oobleck", "--adapter", "absent.py"),
            "no such adapter file",
        ),
        (("--reference", "diffusers:AutoencoderKL", "--native", "oobleck"), "the weights do not fit the model"),
    ],
)
def test_what_cannot_be_set_up_is_a_usage_error(options: tuple[str, ...], message: str) -> None:
    done = here("prove", *options)
    assert done.code == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.full
def test_full_published_width() -> None:
    """In float32: without bfloat16 units the rest takes twenty minutes, and narrow models go through it."""
    sides = ("--reference", REFERENCES["oobleck"], "--native", "oobleck", "--variant", "stable-audio-open-1.0")
    done = vaeport("prove", *sides, "--dtypes", "float32", "--json")
    assert done.code == 0, done.stdout[-3000:] + done.stderr[-2000:]
    verdict = json.loads(done.stdout)
    assert {row["gate"] for row in verdict["rows"]} == {"S", "P float32", "D float32"}
