"""`--tiling`: the verbs run tile by tile when asked, and refuse names that the model does not have."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.cli.run import here, vaeport
from tests.narrow import saved
from vaeport.media import read_image, write_image


def test_tiling_is_asked_for_by_name(tmp_path: Path) -> None:
    """The narrow model's tile is 32 pixels: a picture of 40 is cut, one of 32 is not."""
    vae = saved("autoencoder_kl", tmp_path / "vae")
    for size, differs in ((40, True), (32, False)):
        write_image(tmp_path / "in.png", torch.randint(0, 256, (32, size, 3), dtype=torch.uint8))
        latents = []
        for name, options in (("whole", ()), ("tiled", ("--tiling", "diffusers"))):
            z = tmp_path / f"{name}.safetensors"
            done = here("encode", tmp_path / "in.png", "-o", z, "--vae", vae, "--check", "--json", *options)
            assert done.code == 0, done.stderr
            assert json.loads(done.stdout)["round_trip"]["complete"] is True
            latents.append(next(iter(load_file(z).values())))
        assert torch.equal(*latents) != differs
        pictures = []
        for options in ((), ("--tiling", "diffusers")):
            done = here("decode", z, "-o", tmp_path / "out.png", "--vae", vae, *options)
            assert done.code == 0, done.stderr
            pictures.append(read_image(tmp_path / "out.png"))
        assert torch.equal(*pictures) != differs


def test_other_names_are_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "in.png", torch.zeros(32, 32, 3, dtype=torch.uint8))
    for model, words in (("autoencoder_kl", "one of diffusers"), ("oobleck", "audio is never tiled")):
        vae = saved(model, tmp_path / model)
        target = tmp_path / "z.safetensors"
        done = here("encode", tmp_path / "in.png", "-o", target, "--vae", vae, "--tiling", "official")
        assert done.code == 2
        assert words in done.stderr
        assert "Traceback" not in done.stderr
        assert not target.exists()


def test_shared_options_are_those_of_both_verbs() -> None:
    for verb in ("encode", "decode"):
        told = vaeport(verb, "--help", COLUMNS="200").stdout
        for option in ("--vae", "--subfolder", "--model", "--variant", "--weights-variant", "--filename", "--revision"):
            assert option in told
        for option in ("--dtype", "--device", "--tiling", "--json", "--output"):
            assert option in told
