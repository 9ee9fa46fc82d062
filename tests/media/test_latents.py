from __future__ import annotations

import json
import random
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.media.material import file_size_limit
from vaeport.errors import BlockedError, InputError, LatentFileError
from vaeport.media import LatentHeader, read_latents, write_latents

CONTRACT = {"channels": 16, "layout": "BCTHW", "factors": {"time": 4, "height": 8}, "mean": [0.1, -0.25], "clamp": None}


def header(**changes: Any) -> LatentHeader:
    values: dict[str, Any] = {
        "model": "wan",
        "class_name": "AutoencoderKLWan",
        "contract": CONTRACT,
        "weights_hash": "ab12",
        "posterior": "mode",
        "normalized": True,
        "source": {
            "modality": "video",
            "frames": 17,
            "height": 48,
            "width": 63,
            "rate": "30000/1001",
            "pad": {"frames": (0, 0), "width": (0, 1)},
        },
        "dtype": "float32",
    }
    return LatentHeader(**values | changes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_tensor_and_header_come_back(tmp_path: Path, dtype: torch.dtype) -> None:
    latents = torch.randn(16, 5, 6, 8).to(dtype).transpose(1, 2)
    made = header(dtype=str(dtype).removeprefix("torch."))
    write_latents(tmp_path / "z.safetensors", latents, made)
    back, found = read_latents(tmp_path / "z.safetensors")
    assert torch.equal(back, latents)
    assert back.dtype == dtype
    assert found == made
    assert found.source["pad"] == {"frames": [0, 0], "width": [0, 1]}
    found.require(CONTRACT, "wan")


def test_the_tensor_outlives_its_file(tmp_path: Path) -> None:
    write_latents(tmp_path / "z.safetensors", torch.ones(1000), header())
    back, _ = read_latents(tmp_path / "z.safetensors")
    with (tmp_path / "z.safetensors").open("r+b") as file:  # in place, where a mapping would see it
        file.write(bytes((tmp_path / "z.safetensors").stat().st_size))
    assert back.sum() == 1000


def test_another_contract_is_refused_field_by_field() -> None:
    other = {**CONTRACT, "channels": 48, "factors": {"time": 4, "height": 16}, "mean": [0.1, -0.5], "patch": 2}
    del other["clamp"]
    with pytest.raises(LatentFileError) as caught:
        header().require(other, "wan2.2")
    assert caught.value.where == (
        "contract.channels, contract.clamp, contract.factors.height, contract.mean, contract.patch, model"
    )
    assert "contract.channels = 48" in str(caught.value.expected)
    assert "contract.channels = 16" in str(caught.value.found)
    assert "contract.clamp = absent" in str(caught.value.expected)
    assert "contract.patch = absent" in str(caught.value.found)
    assert "model = 'wan2.2'" in str(caught.value.expected)
    header().require({**CONTRACT, "mean": (0.1, -0.25)}, "wan")


@pytest.mark.parametrize(
    "change",
    [
        {"posterior": "mean"},
        {"normalized": 1},
        {"model": ""},
        {"class_name": None},
        {"contract": [1]},
        {"contract": {"scale": float("nan")}},
        {"contract": {"dtype": torch.float32}},
        {"dtype": "int64"},
        {"dtype": "nn"},
        {"weights_hash": 3},
        {"format_version": 0},
        {"source": {}},
        {"source": {"modality": "smell"}},
        {"source": {"modality": "video", "frames": 0}},
        {"source": {"modality": "video", "frames": True}},
        {"source": {"modality": "video", "colour": 1}},
        {"source": {"modality": "video", "rate": "1/0"}},
        {"source": {"modality": "video", "rate": 24}},
        {"source": {"modality": "video", "pad": {"width": [0, -1]}}},
        {"source": {"modality": "video", "pad": {"width": 1}}},
        {"source": {"modality": "video", "pad": {"depth": [0, 1]}}},
    ],
)
def test_a_wrong_header_is_refused_when_made_and_when_read(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="latent header"):
        header(**change)
    try:
        document = json.dumps(json.loads(header().to_json()) | change)
    except TypeError:
        return  # not even JSON
    save_file({"latents": torch.ones(2)}, tmp_path / "z.safetensors", {"vaeport": document})
    with pytest.raises(LatentFileError) as caught:
        read_latents(tmp_path / "z.safetensors")
    assert caught.value.where == tmp_path / "z.safetensors"


@pytest.mark.parametrize(
    ("metadata", "tensors", "said"),
    [
        (None, {"latents": torch.ones(2)}, "not a latent file"),
        ({"format": "pt"}, {"latents": torch.ones(2)}, "not a latent file"),
        ({"vaeport": header().to_json()}, {"decoder.weight": torch.ones(2)}, "not a latent file"),
        ({"vaeport": header().to_json()}, {"latents": torch.ones(2), "more": torch.ones(2)}, "not a latent file"),
        ({"vaeport": "{"}, {"latents": torch.ones(2)}, "damaged"),
        ({"vaeport": "[" * 100_000}, {"latents": torch.ones(2)}, "damaged"),
        ({"vaeport": "[]"}, {"latents": torch.ones(2)}, "damaged"),
        ({"vaeport": '{"model": "wan"}'}, {"latents": torch.ones(2)}, "damaged"),
        ({"vaeport": header().to_json().replace("{", '{"new_field": 1, ', 1)}, {"latents": torch.ones(2)}, "damaged"),
        ({"vaeport": header().to_json()}, {"latents": torch.ones(2).half()}, "contradicts"),
        ({"vaeport": header().to_json()}, {"latents": torch.ones(2).int()}, "contradicts"),
    ],
)
def test_foreign_files_are_refused(
    tmp_path: Path, metadata: dict[str, str] | None, tensors: dict[str, torch.Tensor], said: str
) -> None:
    save_file(tensors, tmp_path / "z.safetensors", metadata)
    with pytest.raises(LatentFileError, match=said) as caught:
        read_latents(tmp_path / "z.safetensors")
    assert caught.value.where == tmp_path / "z.safetensors"


def test_a_newer_format_asks_for_a_newer_vaeport(tmp_path: Path) -> None:
    document = json.loads(header().to_json()) | {"format_version": 7, "of the future": 1}
    save_file({"latents": torch.ones(2)}, tmp_path / "z.safetensors", {"vaeport": json.dumps(document)})
    with pytest.raises(LatentFileError, match="newer than this vaeport") as caught:
        read_latents(tmp_path / "z.safetensors")
    assert caught.value.found == 7
    assert "upgrade" in (caught.value.fix or "")


def test_cut_and_damaged_files_raise_one_clear_error(tmp_path: Path) -> None:
    file, dice, refused = tmp_path / "z.safetensors", random.Random(2), 0
    write_latents(file, torch.randn(4, 8, 8), header())
    whole = file.read_bytes()
    for part in (1, 7, 8, 20, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:part])
        with pytest.raises(LatentFileError, match="cannot be read"):
            read_latents(file)
    file.write_bytes((1 << 62).to_bytes(8, "little") + whole[8:])
    with pytest.raises(LatentFileError, match="cannot be read"):
        read_latents(file)
    for _ in range(500):
        damaged = bytearray(whole)
        for _ in range(2):
            damaged[dice.randrange(900)] = dice.randrange(256)
        file.write_bytes(damaged)
        try:
            read_latents(file)
        except LatentFileError:
            refused += 1
    assert refused > 300


def test_what_does_not_fit_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(LatentFileError, match=r"\.safetensors"):
        write_latents(tmp_path / "z.mp4", torch.ones(2), header())
    with pytest.raises(LatentFileError, match="folder"):
        write_latents(tmp_path / "none" / "z.safetensors", torch.ones(2), header())
    for latents in (torch.ones(2).half(), torch.ones(2).int()):
        with pytest.raises(InputError, match="contradict"):
            write_latents(tmp_path / "z.safetensors", latents, header())
    assert not list(tmp_path.iterdir())


def test_no_room_is_blocked_and_keeps_the_old_file(tmp_path: Path) -> None:
    write_latents(tmp_path / "z.safetensors", torch.ones(2), header())
    with file_size_limit(100_000), pytest.raises(BlockedError, match="larger than the system allows"):
        write_latents(tmp_path / "z.safetensors", torch.ones(1_000_000), header())
    assert [path.name for path in tmp_path.iterdir()] == ["z.safetensors"]
    assert read_latents(tmp_path / "z.safetensors")[0].shape == (2,)


def test_a_header_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        header().model = "other"  # type: ignore[misc]
    assert replace(header(), model="other").model == "other"
