"""A data set into a folder: the latents are those of `vaeport encode`, nothing is lost, and no two runs are mixed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.dataset.material import clip, contents, pictures, rows, sound
from tests.dataset.test_readers import Scripted, items
from tests.media.material import file_size_limit
from tests.narrow import drawn
from vaeport.dataset import Settings, encode_dataset, status, verify
from vaeport.dataset.encoding import Encoding, Quarantined, Record
from vaeport.dataset.formats.parquet import ParquetWriter
from vaeport.dataset.local import Resources
from vaeport.dataset.lock import Lock
from vaeport.dataset.log import committed
from vaeport.dataset.readers import Readers
from vaeport.dataset.share import Share
from vaeport.errors import BlockedError, DatasetError, InputError
from vaeport.media import read_latents, write_image
from vaeport.runtime.files import decode_file, encode_file
from vaeport.vae import VAE

pytestmark = pytest.mark.usefixtures("nothing_is_left")
SIZES = [(16, 24), (8, 8), (16, 24), (21, 30), (8, 8), (16, 24), (8, 8)]


def run(vae: VAE, source: Path, folder: Path, **settings: Any) -> Any:
    options = {"shard_items": 3, **settings}
    return encode_dataset(vae, source, folder, Settings(**options), resources=Resources(2, 30))


@pytest.fixture(scope="module")
def whole(kl: VAE, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `src`, pictures of which one is broken, and `out`, what an undisturbed run makes of them."""
    folder = tmp_path_factory.mktemp("whole")
    pictures(folder / "src", SIZES)
    (folder / "src" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n no more")
    run(kl, folder / "src", folder / "out")
    return folder


def test_latents_are_those_of_encode(kl: VAE, whole: Path, tmp_path: Path) -> None:
    found = rows(whole / "out")
    assert sorted(found) == [f"{n:02d}" for n in range(len(SIZES))]
    for key, row in found.items():
        encode_file(kl, whole / "src" / f"{key}.png", tmp_path / "z.safetensors")
        latents, header = read_latents(tmp_path / "z.safetensors")
        assert torch.equal(row["latents"], latents[0])
        assert row["told"]["source"] == header.source
        assert (row["height"], row["width"]) == SIZES[int(key)]
        assert (row["vae_latent_dtype"], row["media_type"], row["num_frames"]) == ("float32", "image", 1)
        assert (row["text_embedding_bytes"], row["text_embedding_shape"]) == (b"", [])


def test_videos_and_pictures_of_a_video_model(wan: VAE, tmp_path: Path) -> None:
    for n, frames in enumerate((1, 4, 9)):
        clip(tmp_path / "src" / f"{n}.mkv", frames, 17, 26)
    pictures(tmp_path / "src" / "more", [(16, 24)])
    assert run(wan, tmp_path / "src", tmp_path / "out").items == 4
    for key, row in rows(tmp_path / "out").items():
        source = tmp_path / "src" / row["file_name"]
        encode_file(wan, source, tmp_path / "z.safetensors")
        assert torch.equal(row["latents"], read_latents(tmp_path / "z.safetensors")[0][0])
        if key.isdigit():
            frames = (1, 4, 9)[int(key)]
            assert (row["num_frames"], row["fps"], row["duration_sec"]) == (frames, 24.0, frames / 24)


def test_recordings(oobleck: VAE, tmp_path: Path) -> None:
    sound(tmp_path / "src" / "a.flac", 1000)
    sound(tmp_path / "src" / "b.wav", 500, rate=22050)
    sound(tmp_path / "src" / "mono.wav", 700, channels=1)
    found = run(oobleck, tmp_path / "src", tmp_path / "out", layout="safetensors", resample=True)
    assert (found.items, found.quarantined) == (2, 1)
    for name in ("a.flac", "b.wav"):
        encode_file(oobleck, tmp_path / "src" / name, tmp_path / "z.safetensors", resample=True)
        latents, header = read_latents(tmp_path / "z.safetensors")
        same, told = read_latents(tmp_path / "out" / "latents" / f"{name[0]}.safetensors")
        assert torch.equal(same, latents)
        assert told == header
    (line,) = (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()
    assert json.loads(line)["reason"] == "another number of channels"
    assert json.loads(line)["file"] == str(tmp_path / "src" / "mono.wav")


@pytest.mark.parametrize("name", ["kl", "wan", "oobleck"])
@pytest.mark.parametrize("seed", [None, 3])
def test_a_batch_gives_what_its_items_give_alone(
    request: pytest.FixtureRequest, name: str, seed: int | None, tmp_path: Path
) -> None:
    vae = drawn({"kl": "autoencoder_kl"}.get(name, name)).double()
    if name == "kl":
        pictures(tmp_path / "src", SIZES)
    for n, length in enumerate((5, 5, 9, 5)):
        if name == "wan":
            clip(tmp_path / "src" / f"{n}.mkv", length)
        elif name == "oobleck":
            sound(tmp_path / "src" / f"{n}.wav", 100 * length)
    for batch in (1, 2, 3):
        run(
            vae, tmp_path / "src", tmp_path / f"out{batch}", batch=batch, seed=seed, layout="safetensors", shard_items=9
        )
    for path in (tmp_path / "out1" / "latents").iterdir():
        alone = read_latents(path)[0]
        assert alone.dtype == torch.float64
        for batch in (2, 3):
            same = read_latents(tmp_path / f"out{batch}" / "latents" / path.name)[0]
            assert same.shape == alone.shape
            assert (same - alone).abs().max() <= 1e-12 * alone.abs().max()


def test_items_of_one_shape_do_run_together(kl: VAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    encode = type(kl).encode
    monkeypatch.setattr(type(kl), "encode", lambda self, x: seen.append(tuple(x.shape)) or encode(self, x))
    run(kl, pictures(tmp_path / "src", SIZES), tmp_path / "out", batch=2, shard_items=9)
    assert sorted((shape[0], *shape[2:]) for shape in seen) == [
        (1, 8, 8),
        (1, 16, 24),
        (1, 24, 32),
        (2, 8, 8),
        (2, 16, 24),
    ]


def test_a_bad_item_in_a_batch_is_found(tmp_path: Path) -> None:
    kl = drawn("autoencoder_kl")
    pictures(tmp_path / "src", [(16, 24)] * 4)
    write_image(tmp_path / "src" / "02.png", torch.full((16, 24, 3), 255, dtype=torch.uint8))
    encode = kl.encode

    def encoded(x: torch.Tensor) -> Any:
        out = encode(x)
        out.latent_dist.mean[(x > 0.99).all(1).flatten(1).all(1)] = float("nan")
        return out

    kl.encode = encoded  # type: ignore[method-assign]
    assert run(kl, tmp_path / "src", tmp_path / "out", batch=4, shard_items=9).items == 3
    (line,) = (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()
    assert (json.loads(line)["id"], json.loads(line)["reason"]) == ("02", "the latents are not finite")


def test_samples_are_those_of_encode_with_the_seed_that_is_told(kl: VAE, whole: Path, tmp_path: Path) -> None:
    run(kl, whole / "src", tmp_path / "out", seed=7)
    found = rows(tmp_path / "out")
    assert len({row["told"]["seed"] for row in found.values()}) == len(found)
    for key, row in found.items():
        encode_file(kl, whole / "src" / f"{key}.png", tmp_path / "z.safetensors", seed=row["told"]["seed"])
        assert torch.equal(row["latents"], read_latents(tmp_path / "z.safetensors")[0][0])


def test_what_is_broken_is_quarantined_with_its_reason(whole: Path) -> None:
    (line,) = (whole / "out" / "quarantine.jsonl").read_text().splitlines()
    told = json.loads(line)
    assert (told["id"], told["reason"]) == ("broken", "the picture cannot be read")
    assert told["file"] == str(whole / "src" / "broken.png")
    assert status(whole / "out").to_json() == {
        "folder": str(whole / "out"),
        "complete": True,
        "items": 7,
        "quarantined": 1,
        "of_items": 8,
        "shards": 3,
        "of_shards": 3,
    }


def test_latent_files_decode(kl: VAE, whole: Path, tmp_path: Path) -> None:
    run(kl, whole / "src", tmp_path / "out", layout="safetensors", normalize=True)
    report = decode_file(kl, tmp_path / "out" / "latents" / "03.safetensors", tmp_path / "x.png")
    assert report.shape == (21, 30, 3)


@pytest.mark.parametrize("layout", ["parquet", "webdataset", "safetensors"])
def test_interrupted_runs_end_as_undisturbed_ones(kl: VAE, whole: Path, tmp_path: Path, layout: str) -> None:
    run(kl, whole / "src", tmp_path / "whole", layout=layout)
    shutil.copytree(tmp_path / "whole", tmp_path / "out")
    (log,) = (tmp_path / "out" / "log").iterdir()
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:2]) + lines[3][: len(lines[3]) // 2])  # killed while the second was committed
    (tmp_path / "out" / "manifest.json").write_text(
        json.dumps(json.loads((tmp_path / "out" / "manifest.json").read_text()) | {"complete": False})
    )
    assert len(committed(tmp_path / "out")) == 1
    names = sorted(contents(tmp_path / "out"))
    (tmp_path / "out" / names[-1]).write_bytes(b"half a file")
    assert verify(tmp_path / "out").faults
    tells: list[int] = []
    options = Settings(shard_items=3, layout=layout)  # type: ignore[arg-type]
    encode_dataset(kl, whole / "src", tmp_path / "out", options, tell=lambda done, _: tells.append(done))
    assert sum(tells) == 5
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert verify(tmp_path / "out").faults == ()
    assert (tmp_path / "out" / "manifest.json").read_text() == (tmp_path / "whole" / "manifest.json").read_text()


def test_a_whole_run_is_not_repeated(kl: VAE, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole / "out", tmp_path / "out")
    tells: list[int] = []
    options = Settings(shard_items=3)
    encode_dataset(kl, whole / "src", tmp_path / "out", options, tell=lambda done, _: tells.append(done))
    assert tells == []


def test_a_file_that_is_gone_is_made_again(kl: VAE, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole / "out", tmp_path / "out")
    (tmp_path / "out" / "data" / "000001-000.parquet").unlink()
    assert verify(tmp_path / "out").faults == ("data/000001-000.parquet: No such file or directory",)
    run(kl, whole / "src", tmp_path / "out")
    assert contents(tmp_path / "out") == contents(whole / "out")


def test_what_was_quarantined_is_tried_again(kl: VAE, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "all")
    source, out = tmp_path / "all" / "src", tmp_path / "all" / "out"
    shutil.copy(source / "00.png", source / "broken.png")
    assert run(kl, source, out).quarantined == 1
    found = encode_dataset(kl, source, out, Settings(shard_items=3), retry=True)
    assert (found.items, found.quarantined) == (8, 0)
    assert torch.equal(rows(out)["broken"]["latents"], rows(out)["00"]["latents"])
    assert verify(out).faults == ()
    assert (out / "quarantine.jsonl").read_text() == ""


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"normalize": True}, "settings.normalize = True"),
        ({"batch": 2}, "settings.batch = 2"),
        ({"seed": 1}, "latents.posterior = 'sample'"),
        ({"layout": "webdataset"}, "settings.layout = 'webdataset'"),
    ],
)
def test_the_output_of_other_settings_is_refused(kl: VAE, whole: Path, settings: dict[str, Any], names: str) -> None:
    before = {path: path.read_bytes() for path in (whole / "out").rglob("*") if path.is_file()}
    with pytest.raises(DatasetError, match="another run") as error:
        run(kl, whole / "src", whole / "out", **settings)
    assert names in str(error.value.found)
    assert {path: path.read_bytes() for path in (whole / "out").rglob("*") if path.is_file()} == before


def test_the_output_of_another_vae_or_source_is_refused(kl: VAE, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as error:
        run(drawn("autoencoder_kl", seed=1), whole / "src", whole / "out")
    assert "vae.encoder_sha256" in str(error.value.found)
    pictures(tmp_path / "src", SIZES[:3])
    with pytest.raises(DatasetError) as error:
        run(kl, tmp_path / "src", whole / "out")
    assert "source.items = 3" in str(error.value.found)
    assert "source.items = 8" in str(error.value.expected)


def test_a_folder_with_something_else_is_refused(kl: VAE, whole: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(DatasetError, match="holds something else"):
        run(kl, whole / "src", tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_two_drivers_cannot_share_a_folder(kl: VAE, whole: Path) -> None:
    with Lock(whole / "out", Share()), pytest.raises(DatasetError, match="another run works in this folder"):
        run(kl, whole / "src", whole / "out")
    with Lock(whole / "out", Share(0, 2)), Lock(whole / "out", Share(1, 2)):
        with pytest.raises(DatasetError), Lock(whole / "out", Share(0, 2)):
            pass
        with pytest.raises(DatasetError), Lock(whole / "out", Share()):
            pass


def test_a_full_disk_leaves_what_is_committed_and_the_run_goes_on(kl: VAE, tmp_path: Path) -> None:
    source = pictures(tmp_path / "src", [(8, 8), (8, 8), (64, 96), (64, 96)])
    run(kl, source, tmp_path / "whole", shard_items=2)
    limit = max(len(data) for data in contents(tmp_path / "whole").values()) - 1000
    with file_size_limit(limit), pytest.raises(BlockedError, match="larger than the system allows") as error:
        run(kl, source, tmp_path / "out", shard_items=2)
    assert str(error.value.where).endswith("000001-000.parquet")
    assert list(committed(tmp_path / "out")) == [0]
    assert run(kl, source, tmp_path / "out", shard_items=2).complete
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize("times", [1, 2])
def test_a_reader_lost_in_the_middle_of_a_long_item(wan: VAE, tmp_path: Path, times: int) -> None:
    """It is encoded while it is read; then it is begun once more, and given up if that ends the same way."""
    ids = ["a", f"die@3x{times}", "z"]
    with Readers(Scripted(tmp_path, (1, 8, 8, 3)), count=1, timeout=60) as readers:
        begun = Encoding(wan, Settings()).begun(readers.opened(items(*ids), 1))
        found = [outcome for finish in begun for outcome in finish()]
    latents = [one.latents for one in found if isinstance(one, Record)]
    assert len(latents) == 4 - times
    assert all(torch.equal(one, latents[0]) for one in latents)
    lost = [one.error.found for one in found if isinstance(one, Quarantined)]
    assert lost == ["its reader was killed by signal 9 (SIGKILL), 2 times"][: times - 1]


def test_latents_that_have_no_room_in_the_layout_are_quarantined(
    kl: VAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values of one type that Parquet and its readers know end at 2 GiB."""
    source = pictures(tmp_path / "src", [(8, 8), (16, 24)])
    assert ParquetWriter.LARGEST == 2**31 - 2
    monkeypatch.setattr(ParquetWriter, "LARGEST", 4 * 4 * 2 * 2)
    found = run(kl, source, tmp_path / "out")
    assert (found.items, found.quarantined) == (1, 1)
    told = json.loads((tmp_path / "out" / "quarantine.jsonl").read_text())
    assert (told["id"], told["reason"], told["found"]) == ("01", "the latents are too large", "384 bytes")
    assert "--size and --frames" in told["fix"]


def test_files_are_of_bounded_size(kl: VAE, whole: Path, tmp_path: Path) -> None:
    run(kl, whole / "src", tmp_path / "out", shard_items=8, shard_bytes=500)
    names = sorted(contents(tmp_path / "out"))
    assert names == [f"data/000000-{n:03d}.parquet" for n in range(len(names))]
    assert len(names) > 2
    ours, theirs = rows(tmp_path / "out"), rows(whole / "out")
    assert all(torch.equal(ours[key]["latents"], theirs[key]["latents"]) for key in theirs)


@pytest.mark.parametrize("damage", ["bit", "cut", "stray"])
def test_verify_sees_damage(whole: Path, tmp_path: Path, damage: str) -> None:
    shutil.copytree(whole / "out", tmp_path / "out")
    assert verify(tmp_path / "out").faults == ()
    path = tmp_path / "out" / "data" / "000001-000.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "bit":
        path.write_bytes(content)
    elif damage == "cut":
        path.write_bytes(content[:-1])
    else:
        shutil.copy(path, path.with_name("000009-000.parquet"))
    (fault,) = verify(tmp_path / "out").faults
    assert {"bit": "checksum", "cut": "bytes, of", "stray": "no committed shard"}[damage] in fault


@pytest.mark.parametrize("given", [(0, 60), (2, 0)])
def test_resources_out_of_range(given: tuple[int, float]) -> None:
    with pytest.raises(InputError, match="nothing would be read"):
        Resources(*given)


@pytest.mark.parametrize("settings", [{"batch": 0}, {"frames": 0}, {"fps": "0"}, {"fps": "x"}, {"layout": "csv"}])
def test_settings_out_of_range(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Settings(**settings)


def test_a_vae_without_its_encoder_is_refused(whole: Path, tmp_path: Path) -> None:
    kl = drawn("autoencoder_kl")
    kl.encoder = None
    with pytest.raises(InputError, match="without its encoder"):
        run(kl, whole / "src", tmp_path / "out")
