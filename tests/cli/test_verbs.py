"""The verbs on files: what they print, and that bad input ends in one clear error and leaves nothing behind."""

from __future__ import annotations

import json
import os
import pickle
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.cli.run import here, vaeport
from tests.narrow import saved
from vaeport.media import AudioReader, AudioWriter, VideoWriter, read_image, write_image


@pytest.fixture(scope="module")
def kl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved("autoencoder_kl", tmp_path_factory.mktemp("kl") / "vae")


@pytest.fixture(scope="module")
def oobleck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved("oobleck", tmp_path_factory.mktemp("oobleck") / "vae")


def test_help_needs_no_torch() -> None:
    done = vaeport("--help", PYTHONPROFILEIMPORTTIME="1")
    assert done.code == 0
    assert all(verb in done.stdout for verb in ("inspect", "encode", "decode", "prove", "models", "demo"))
    assert not any(line.endswith("| torch") for line in done.stderr.splitlines())


def test_encode_and_decode_an_image(kl: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "in.png", torch.randint(0, 256, (21, 30, 3), dtype=torch.uint8))
    done = vaeport("encode", tmp_path / "in.png", "-o", tmp_path / "z.safetensors", "--vae", kl, "--check", "--json")
    assert done.code == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["latent"] == [1, 4, 6, 8]
    assert report["round_trip"]["complete"] is True
    assert "height 21 padded to 24 (4k + 0); decoding cuts it off" in report["notes"]
    done = vaeport("decode", tmp_path / "z.safetensors", "-o", tmp_path / "out.png", "--vae", kl)
    assert done.code == 0, done.stderr
    assert read_image(tmp_path / "out.png").shape == (21, 30, 3)


def test_the_demo_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "ae.safetensors").write_text("weights of somebody")
    done = here("demo", "--folder", tmp_path)
    assert done.code == 2
    assert "a new or empty folder" in done.stderr
    assert (tmp_path / "ae.safetensors").read_text() == "weights of somebody"


def test_encode_and_decode_audio(oobleck: Path, tmp_path: Path) -> None:
    with AudioWriter(tmp_path / "in.wav", rate=44100, channels=2) as audio:
        audio.write(torch.rand(2, 1003) - 0.5)
    assert vaeport("encode", tmp_path / "in.wav", "-o", tmp_path / "z.safetensors", "--vae", oobleck).code == 0
    assert vaeport("decode", tmp_path / "z.safetensors", "-o", tmp_path / "out.wav", "--vae", oobleck).code == 0
    with AudioReader(tmp_path / "out.wav") as audio:
        assert audio.frames == 1003


def test_decode_states_its_preset(tmp_path: Path) -> None:
    wan = saved("wan", tmp_path / "vae")
    with VideoWriter(tmp_path / "in.mkv", rate=24, width=26, height=18) as video:
        video.write(torch.randint(0, 256, (5, 18, 26, 3), dtype=torch.uint8))
    assert vaeport("encode", tmp_path / "in.mkv", "-o", tmp_path / "z.safetensors", "--vae", wan).code == 0
    decode = ("decode", tmp_path / "z.safetensors", "--vae", wan, "--json", "-o")
    done = vaeport(*decode, tmp_path / "out.mp4", "--preset", "veryfast")
    assert done.code == 0, done.stderr
    assert json.loads(done.stdout)["notes"] == ["H.264 (x264, preset veryfast, crf 12), 4:2:0"]
    done = vaeport(*decode, tmp_path / "other.mp4", "--preset", "quick")
    assert done.code == 2
    assert "no such preset" in done.stderr
    assert not (tmp_path / "other.mp4").exists()


def test_an_overflow_is_one_clear_error(tmp_path: Path) -> None:
    folder = saved("autoencoder_kl", tmp_path / "vae")
    _edit_weights(folder, lambda s: s["decoder.conv_in.weight"].mul_(3e5))
    write_image(tmp_path / "in.png", torch.randint(0, 256, (16, 16, 3), dtype=torch.uint8))
    vae = ("--vae", folder, "--dtype", "float16")
    assert vaeport("encode", tmp_path / "in.png", "-o", tmp_path / "z.safetensors", *vae[:2]).code == 0
    done = vaeport("decode", tmp_path / "z.safetensors", "-o", tmp_path / "out.png", *vae)
    assert done.code == 2
    assert done.stderr.startswith("vaeport: ")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out.png").exists()


def test_inspect_prints_text_and_json(kl: Path) -> None:
    done = vaeport("inspect", kl)
    assert done.code == 0
    assert "encoder" in done.stdout
    found = json.loads(vaeport("inspect", kl, "--json").stdout)
    assert found["tensors"] == len(found["entries"]) > 100


def test_models_lists_every_variant() -> None:
    found = json.loads(vaeport("models", "--json").stdout)
    assert {(row["model"], row["variant"]) for row in found} >= {
        ("autoencoder_kl", "flux1"),
        ("wan", "wan2.1"),
        ("oobleck", "stable-audio-open-1.0"),
    }


class _Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch executed",)


def _truncated(folder: Path) -> None:
    file = folder / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def _huge_header(folder: Path) -> None:
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")


def _no_class_name(folder: Path) -> None:
    _edit_config(folder, lambda c: c.pop("_class_name"))


def _unknown_class(folder: Path) -> None:
    _edit_config(folder, lambda c: c.update(_class_name="AutoencoderKLWann"))


def _contradiction(folder: Path) -> None:
    _edit_config(folder, lambda c: c.update(latent_channels=8))


def _edit_config(folder: Path, edit: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    edit(config)  # type: ignore[operator]
    (folder / "config.json").write_text(json.dumps(config))


def _not_a_number(folder: Path) -> None:
    _edit_weights(folder, lambda s: s["encoder.conv_in.weight"].fill_(float("nan")))


def _missing_key(folder: Path) -> None:
    _edit_weights(folder, lambda s: s.pop("decoder.conv_in.weight"))


def _unexpected_key(folder: Path) -> None:
    _edit_weights(folder, lambda s: s.update({"decoder.extra.weight": torch.ones(3)}))


def _edit_weights(folder: Path, edit: object) -> None:
    from safetensors.torch import load_file

    state = load_file(folder / "diffusion_pytorch_model.safetensors")
    edit(state)  # type: ignore[operator]
    save_file(state, folder / "diffusion_pytorch_model.safetensors")


def _shard_is_missing(folder: Path) -> None:
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {"a": "diffusion_pytorch_model-00001-of-00001.safetensors"}}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))


def _shard_is_outside(folder: Path) -> None:
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {"a": "../outside.safetensors"}}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))


def _hostile_pickle(folder: Path) -> None:
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    (folder / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps({"a": _Hostile()}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_truncated, ("expected", "found")),
        (_huge_header, ("header",)),
        (_no_class_name, ("_class_name",)),
        (_unknown_class, ("AutoencoderKLWann", "did you mean AutoencoderKLWan")),
        (_contradiction, ("wrong shape", "config.json and the weights belong together")),
        (_not_a_number, ("not finite", "encoder.conv_in.weight")),
        (_missing_key, ("1 missing: decoder.conv_in.weight",)),
        (_unexpected_key, ("1 unexpected: decoder.extra.weight",)),
        (_shard_is_missing, ("00001-of-00001",)),
        (_shard_is_outside, ("outside",)),
        (_hostile_pickle, ("system",)),
    ],
)
def test_a_bad_checkpoint_is_one_clear_error(damage: object, words: tuple[str, ...], tmp_path: Path) -> None:
    folder = saved("autoencoder_kl", tmp_path / "vae")
    damage(folder)  # type: ignore[operator]
    write_image(tmp_path / "in.png", torch.zeros(16, 16, 3, dtype=torch.uint8))
    done = here("encode", tmp_path / "in.png", "-o", tmp_path / "z.safetensors", "--vae", folder, cwd=tmp_path)
    assert done.code in (2, 3)
    assert done.stderr.startswith("vaeport: ")
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
    assert not (tmp_path / "z.safetensors").exists()
    assert not (tmp_path / "executed").exists()


def test_bad_media_and_targets(kl: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"not an image")
    write_image(tmp_path / "in.png", torch.zeros(16, 16, 3, dtype=torch.uint8))
    for source, target in (
        (tmp_path / "absent.png", tmp_path / "z.safetensors"),
        (tmp_path / "bad.png", tmp_path / "z.safetensors"),
        (tmp_path / "in.png", tmp_path / "nowhere" / "z.safetensors"),
        (tmp_path / "in.png", tmp_path / "z.txt"),
        (tmp_path / "in.png", Path("/proc/z.safetensors")),
    ):
        done = here("encode", source, "-o", target, "--vae", kl)
        assert done.code in (2, 3), done.stderr
        assert "Traceback" not in done.stderr
        assert done.stderr.startswith("vaeport: ")
    assert not (tmp_path / "z.safetensors").exists()


def test_latents_of_another_contract_are_refused(kl: Path, oobleck: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "in.png", torch.zeros(16, 16, 3, dtype=torch.uint8))
    assert here("encode", tmp_path / "in.png", "-o", tmp_path / "z.safetensors", "--vae", kl).code == 0
    done = here("decode", tmp_path / "z.safetensors", "-o", tmp_path / "out.wav", "--vae", oobleck)
    assert done.code == 2
    assert "another model or another contract" in done.stderr
    assert not (tmp_path / "out.wav").exists()


def test_an_offline_hub_id_is_blocked(tmp_path: Path) -> None:
    write_image(tmp_path / "in.png", torch.zeros(16, 16, 3, dtype=torch.uint8))
    done = vaeport(
        "encode", tmp_path / "in.png", "-o", tmp_path / "z.safetensors", "--vae", "nobody/nothing",
        HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "hub"),
    )  # fmt: skip
    assert done.code == 3
    assert "Traceback" not in done.stderr
