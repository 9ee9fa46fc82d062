"""`vaeport plan`, and `--budget` of encode and decode."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.cli.run import here, vaeport
from tests.narrow import saved
from vaeport.media import read_image, write_image


def test_a_published_configuration_needs_no_weights() -> None:
    done = vaeport("plan", "81x480x832", "--model", "wan", "--variant", "wan2.1", "--dtype", "bfloat16")
    assert done.code == 0, done.stderr
    first, second, *_ = done.stdout.splitlines()
    assert first.startswith("decoder [1, 16, 21, 60, 104] in bfloat16 on cpu: exact, pieces of 1 along time")
    assert "peak" in second


def test_plans_differences_and_runs_of_a_checkpoint(tmp_path: Path) -> None:
    vae = saved("autoencoder_kl", tmp_path / "vae")
    write_image(tmp_path / "in.png", torch.randint(0, 256, (48, 40, 3), dtype=torch.uint8))
    z, out = tmp_path / "z.safetensors", tmp_path / "out.png"
    pictures = []
    for budget in ((), ("--budget", "1GiB")):
        done = here("encode", tmp_path / "in.png", "-o", z, "--vae", vae, "--check", *budget)
        assert done.code == 0, done.stderr
        done = here("decode", z, "-o", out, "--vae", vae, *budget)
        assert done.code == 0, done.stderr
        pictures.append(read_image(out))
    assert (pictures[0].int() - pictures[1].int()).abs().max() <= 1
    done = here("plan", z, "--vae", vae, "--compare", "--json", "--budget", "1GiB")
    assert done.code == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["kind"], told["exact"], told["ranks"]) == ("whole", True, 1)
    assert [(d["tiling"], d["psnr"] > 0) for d in told["tilings"]] == [("diffusers", True)]
    done = here("plan", "48x40", "--vae", vae, "--encode", "--ranks", "2", "--json", "--budget", "1GiB")
    assert json.loads(done.stdout)["ranks"] == 2, done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("48x40",), "--vae, or --model and --variant"),
        (("48x40", "--model", "wan", "--variant", "wan9"), "one of wan2.1"),
        (("48x40", "--model", "wan", "--variant", "wan2.1"), "not a size"),
        (("5x48x40", "--model", "wan", "--variant", "wan2.1", "--compare"), "needs weights"),
        (("5x48x40", "--model", "wan", "--variant", "wan2.1", "--budget", "little"), "not an amount of memory"),
        (("2048", "--model", "oobleck", "--variant", "stable-audio-open-1.0", "--budget", "1KiB"), "at least"),
        (("16x16", "--model", "autoencoder_kl", "--variant", "sd1", "--ranks", "5"), "more ranks than positions"),
    ],
)
def test_bad_input(arguments: tuple[str, ...], words: str) -> None:
    done = here("plan", *arguments)
    assert done.code == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
