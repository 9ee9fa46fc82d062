"""Training of the default VAE: the layers stay the same functions, the loss falls, a resumed run is the run itself."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import vaeport
from training import default_vae, evaluate, scenes
from training.learner import Learner, architecture
from training.running import cast, initialise, prepared, run
from training.scenes import Scenes
from vaeport.models.wan import Wan

SMALL = ("--base", "8", "--decoder-base", "8", "--dim-mult", "1", "1", "1", "1", "--channels", "4", "--device", "cpu")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def picture(height: int, width: int) -> Tensor:
    """Waves of each colour: uint8 [3, H, W]."""
    y, x = torch.linspace(0, 9, height)[:, None], torch.linspace(0, 12, width)
    waves = torch.stack([(y * a).sin() + (x * b).cos() for a, b in ((1, 2), (2, 1), (0.5, 3))])
    return ((waves + 2) * 63).byte()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    about = {"one": {"weight": 2}, "two": {"weight": 1}, "held": {"weight": 0}}
    pictures = {"one": picture(96, 120), "two": picture(80, 64), "held": picture(64, 64)}
    save_file(pictures, tmp_path / "photos.safetensors", {"photos": json.dumps(about)})
    return tmp_path / "photos.safetensors"


def train(photos: Path, out: Path, *args: str) -> int:
    sizes = ("--pixels", "0.2", "--batches", "0.06", "--every", "1000")
    return default_vae.main(["--photos", str(photos), "--out", str(out), *SMALL, *sizes, *args])


def learner() -> Learner:
    return Learner(architecture(8, 8, (1, 1, 1, 1), 4), torch.device("cpu"), seed=0, fused=False, peak=1e-3)


def log(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("frames", [1, 5, 9])
def test_prepared_layers_are_the_same_functions(frames: int) -> None:
    arch = architecture(8, 16, (1, 1, 2, 2), 16)
    vae = Wan(arch)
    assert vae.encoder is not None
    assert vae.decoder is not None
    for half, shape in ((vae.encoder, (2, 3, frames, 32, 40)), (vae.decoder, (2, 16, 1 + frames // 4, 4, 5))):
        initialise(half, torch.Generator().manual_seed(1))
        x = torch.randn(shape, generator=torch.Generator().manual_seed(2))
        twin = prepared(copy.deepcopy(half), fused=False)
        torch.testing.assert_close(run(twin, cast(twin, torch.float32), x), half(x), rtol=1e-4, atol=1e-4)
        assert twin.state_dict().keys() == half.state_dict().keys()
        assert not any(type(layer).__name__ == "SiLU" for layer in twin.modules())


def test_scenes_are_of_256_levels_and_of_their_generator(photos: Path) -> None:
    pictures, weights = default_vae.read_photos(photos)
    assert list(pictures) == ["one", "two"]
    assert list(default_vae.read_photos(photos, held_out=True)[0]) == ["held"]
    scenes = Scenes(list(pictures.values()), weights, torch.device("cpu"))
    drawn = [scenes.draw(3, 5, 24, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert drawn[0].shape == (3, 3, 5, 24, 24)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    levels = (drawn[0] + 1) * 127.5
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)
    assert levels.min() >= 0
    assert levels.max() <= 255


def test_a_camera_that_stands_still_sees_the_photo(photos: Path) -> None:
    from training.scenes import Camera

    photo = default_vae.read_photos(photos)[0]["one"]
    scenes = Scenes([photo], [1.0], torch.device("cpu"))
    at = torch.tensor([[30.0 + 7.5]]), torch.tensor([[20.0 + 7.5]])
    seen = scenes.look(Camera(torch.tensor([0]), *at, torch.ones(1, 1), torch.zeros(1, 1)), 16)
    torch.testing.assert_close(seen[0, :, 0] * 255, photo[:, 20:36, 30:46].float(), rtol=0, atol=0.05)


def test_loss_falls_and_the_result_loads(photos: Path, tmp_path: Path) -> None:
    assert train(photos, tmp_path / "run", "--steps", "40") == 0
    losses = [entry["loss"] for entry in log(tmp_path / "run")]
    assert len(losses) == 40
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    vae = vaeport.load(tmp_path / "run/vae", dtype="float32")
    z = vae.encode(torch.rand(1, 3, 5, 32, 32) * 2 - 1).latent_dist.mode()
    assert z.shape == (1, 4, 2, 4, 4)
    assert vae.decode(z).sample.shape == (1, 3, 5, 32, 32)
    config = json.loads((tmp_path / "run/vae/config.json").read_text())
    assert config["_class_name"] == "AutoencoderKLWan"
    assert all(std > 0 for std in config["latents_std"])
    assert config["latents_mean"] != [0.0] * 4
    stored = load_file(tmp_path / "run/vae/diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}


def test_a_resumed_run_is_the_run(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(photos, tmp_path / "whole", "--steps", "6") == 0
    assert train(photos, tmp_path / "parts", "--steps", "6", "--pause", "1e-4") == 3
    done = len(log(tmp_path / "parts"))
    assert 0 < done < 6
    assert "paused" in capsys.readouterr().err
    checkpoint = str(tmp_path / "parts/checkpoint")
    assert train(photos, tmp_path / "parts", "--steps", "6", "--resume", checkpoint) == 0
    assert [e["loss"] for e in log(tmp_path / "parts")] == [e["loss"] for e in log(tmp_path / "whole")]
    name = "vae/diffusion_pytorch_model.safetensors"
    whole, parts = (load_file(tmp_path / run_ / name) for run_ in ("whole", "parts"))
    for key, tensor in whole.items():
        assert torch.equal(parts[key], tensor), key


@pytest.mark.parametrize("renames", [1, 2])
def test_a_save_that_was_killed_between_its_renames_is_no_end(renames: int, tmp_path: Path) -> None:
    folder, old = tmp_path / "checkpoint", tmp_path / "checkpoint.old"
    learner().save(folder)
    if renames == 1:
        folder.rename(old)
        (tmp_path / "checkpoint.new").mkdir()
    else:
        shutil.copytree(folder, old)
    for step in (1, 2):
        one = learner()
        one.resume(folder)
        assert one.progress.step == step - 1
        one.progress.step = step
        one.save(folder)
        assert list(tmp_path.iterdir()) == [folder]


def test_the_last_whole_checkpoint_stays_until_there_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, old = tmp_path / "checkpoint", tmp_path / "checkpoint.old"
    learner().save(folder)
    folder.rename(old)

    def killed(path: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        learner().save(folder)
    learner().resume(folder)


def test_a_checkpoint_of_another_architecture_is_refused(photos: Path, tmp_path: Path) -> None:
    assert train(photos, tmp_path / "run", "--steps", "1") == 0
    with pytest.raises(SystemExit, match="another architecture"):
        train(photos, tmp_path / "run", "--steps", "2", "--base", "16", "--resume", str(tmp_path / "run/checkpoint"))


def test_what_was_never_trained_on_is_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.read_photos is scenes.read_photos
    file = tmp_path / "photos.safetensors"
    about = {"one": {"weight": 1}, "held": {"weight": 0}}
    save_file({"one": picture(8, 8), "held": picture(285, 325)}, file, {"photos": json.dumps(about)})
    monkeypatch.setattr(evaluate, "seen", lambda vae, video: (255 - video, video.numel() // 4))
    assert evaluate.main(["--photos", str(file)]) == 0
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0] for row in rows] == ["| held, photo", "| held, clip"]
    assert [row[1] for row in rows] == ["280 x 320", "17 x 256 x 256"]
    assert {tuple(row[3:]) for row in rows} == {("4 : 1", "2 : 1 |")}
