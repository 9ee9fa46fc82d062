"""A saved folder is Diffusers' own layout, holds every bit, and is there whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from vaeport.checkpoint import open_checkpoint, read_config, save_folder
from vaeport.errors import BlockedError, ConfigError, InputError

WEIGHTS = "diffusion_pytorch_model.safetensors"
SOMETHING_ELSE = "the folder holds something other than a former save of this model; nothing was written"
CANNOT = "the folder cannot be written; nothing of this save was left behind"


def assert_saved(folder: Path, state: dict[str, torch.Tensor], variant: str | None = None) -> None:
    with open_checkpoint(folder, variant=variant) as checkpoint:
        assert list(checkpoint.entries) == sorted(state)
        for name, tensor in state.items():
            read = checkpoint.tensor(name)
            assert (read.dtype, read.shape) == (tensor.dtype, tensor.shape)
            assert torch.equal(read, tensor)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("variant", [None, "fp16"])
@pytest.mark.parametrize("max_shard_size", ["10GB", "4KB", 4000])
def test_every_bit_comes_back(
    tmp_path: Path,
    tensors: dict[str, torch.Tensor],
    config: dict[str, Any],
    max_shard_size: int | str,
    variant: str | None,
) -> None:
    folder = tmp_path / "deep" / "er" / "vae"
    files = save_folder(folder, tensors, config, max_shard_size=max_shard_size, variant=variant)
    assert_saved(folder, tensors, variant)
    assert sorted(files) == sorted(folder.iterdir())
    assert files[0] == folder / "config.json"
    assert read_config(folder) == config
    assert [path.name for path in folder.parent.iterdir()] == ["vae"]


@pytest.mark.parametrize("variant", [None, "fp16"])
@pytest.mark.parametrize("max_shard_size", ["10GB", "100KB"])
def test_the_folder_is_the_one_that_diffusers_writes(tmp_path: Path, max_shard_size: str, variant: str | None) -> None:
    model = AutoencoderKL(block_out_channels=(64,), norm_num_groups=8)
    model.save_pretrained(tmp_path / "theirs", max_shard_size=max_shard_size, variant=variant)
    config = read_config(tmp_path / "theirs")
    state = model.state_dict()
    save_folder(tmp_path / "ours", state, config, max_shard_size=max_shard_size, variant=variant)
    assert snapshot(tmp_path / "ours") == snapshot(tmp_path / "theirs")
    loaded = AutoencoderKL.from_pretrained(tmp_path / "ours", variant=variant).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


def test_shared_and_strided_memory(tmp_path: Path, config: dict[str, Any]) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    arena = torch.arange(100, dtype=torch.int32)
    state = {
        "base": base,
        "tied": base,
        "transposed": base.t(),
        "row": base[1],
        "column": base[:, 2],
        "parameter": torch.nn.Parameter(base),
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "expanded": torch.ones(1).expand(5),
        **{f"arena.{i}": arena[i * 10 : (i + 1) * 10] for i in range(10)},
    }
    save_folder(tmp_path / "whole", state, config)
    assert_saved(tmp_path / "whole", state)
    save_folder(tmp_path / "shards", state, config, max_shard_size=100)
    assert_saved(tmp_path / "shards", state)
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 5


def test_shards_hold_at_most_their_size(tmp_path: Path, config: dict[str, Any]) -> None:
    arena = torch.zeros(1000)
    save_folder(
        tmp_path / "vae", {str(i): arena[i * 100 : (i + 1) * 100] for i in range(10)}, config, max_shard_size=800
    )
    index = json.loads((tmp_path / "vae" / f"{WEIGHTS}.index.json").read_text())
    assert index["metadata"] == {"total_size": 4000}
    assert len(set(index["weight_map"].values())) == 5
    assert all(path.stat().st_size < 1200 for path in (tmp_path / "vae").glob("*.safetensors"))


def test_files_get_ordinary_permissions(tmp_path: Path, tensors: Any, config: dict[str, Any]) -> None:
    (tmp_path / "plain").touch()
    for path in save_folder(tmp_path / "vae", tensors, config):
        assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_saving_again_replaces_shards_and_keeps_other_variants(
    tmp_path: Path, tensors: dict[str, torch.Tensor], config: dict[str, Any]
) -> None:
    folder = tmp_path / "vae"
    save_folder(folder, tensors, config, max_shard_size=3000)
    half = {name: tensor.half() for name, tensor in tensors.items()}
    save_folder(folder, half, config, max_shard_size=3000, variant="fp16")
    torch.save({"x": torch.ones(1)}, folder / "diffusion_pytorch_model.bin")
    new = {"only": torch.ones(3)}
    save_folder(folder, new, config)
    assert_saved(folder, new)
    assert_saved(folder, half, "fp16")
    plain = [path.name for path in folder.iterdir() if ".fp16" not in path.name]
    assert sorted(plain) == ["config.json", "diffusion_pytorch_model.bin", WEIGHTS]
    assert [path.name for path in tmp_path.iterdir()] == ["vae"]


def test_saving_into_the_folder_that_the_tensors_are_mapped_from(
    tmp_path: Path, tensors: dict[str, torch.Tensor], config: dict[str, Any]
) -> None:
    save_folder(tmp_path / "vae", tensors, config)
    with open_checkpoint(tmp_path / "vae") as checkpoint:
        mapped = {name: checkpoint.tensor(name) for name in checkpoint.entries}
        save_folder(tmp_path / "vae", mapped, config)
        assert all(torch.equal(mapped[name], tensor) for name, tensor in tensors.items())
    assert_saved(tmp_path / "vae", tensors)


def test_a_folder_behind_a_link(tmp_path: Path, tensors: dict[str, torch.Tensor], config: dict[str, Any]) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    save_folder(tmp_path / "link", tensors, config)
    assert (tmp_path / "link").is_symlink()
    assert_saved(tmp_path / "real", tensors)


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"notes.txt": b"mine"}, "notes.txt"),
        ({"config.json": b'{"_class_name": "AutoencoderKL"}', "model_index.json": b"{}"}, "model_index.json"),
        ({"config.json": b'{"_class_name": "UNet2DConditionModel"}'}, "UNet2DConditionModel"),
        ({"config.json": b"{"}, "config.json is not sound JSON"),
        ({WEIGHTS: b""}, "the folder has no config.json"),
        ({"sub/config.json": b"{}"}, "sub"),
    ],
)
def test_unrelated_files_are_never_overwritten(
    tmp_path: Path, refuses: Any, tensors: Any, config: dict[str, Any], files: dict[str, bytes], found: str
) -> None:
    folder = tmp_path / "vae"
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    expected, fix = "a new or empty folder, or a save of AutoencoderKL", "save to a new folder"
    with refuses(InputError, SOMETHING_ELSE, where=folder, expected=expected, found=found, fix=fix):
        save_folder(folder, tensors, config)
    assert snapshot(folder) == files
    assert [path.name for path in tmp_path.iterdir()] == ["vae"]


def test_a_file_in_the_place_of_the_folder(tmp_path: Path, refuses: Any, tensors: Any, config: Any) -> None:
    (tmp_path / "vae").write_bytes(b"mine")
    with refuses(InputError, SOMETHING_ELSE, where=tmp_path / "vae", found="vae"):
        save_folder(tmp_path / "vae", tensors, config)
    assert (tmp_path / "vae").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"_class_name": None}, "no _class_name"),
        ({"f": print}, "not JSON serializable"),
        ({"x": float("nan")}, "not JSON compliant"),
        ({3: 1}, "not supported between"),
    ],
)
def test_config_that_is_no_json(
    tmp_path: Path, refuses: Any, tensors: Any, config: Any, changed: Any, found: str
) -> None:
    what, expected = (
        "the configuration cannot be written as config.json",
        "text, finite numbers, booleans, lists and dicts",
    )
    with refuses(ConfigError, what, where="config.json", expected=expected, found=found, fix="convert the value"):
        save_folder(tmp_path / "vae", tensors, config | changed)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("tensor", "found"),
    [
        (torch.eye(3).to_sparse(), "torch.sparse_coo, torch.float32, on cpu"),
        (torch.empty(3, device="meta"), "torch.strided, torch.float32, on meta"),
        (torch.ones(3, dtype=torch.complex128), "torch.complex128"),
    ],
)
def test_tensor_that_cannot_be_saved(tmp_path: Path, refuses: Any, config: Any, tensor: Any, found: str) -> None:
    what, expected = "the tensor cannot be saved as safetensors", "a dense tensor with values, of a plain dtype"
    with refuses(InputError, what, where="tensor 'w'", expected=expected, found=found, fix="make it dense"):
        save_folder(tmp_path / "vae", {"w": tensor}, config)
    assert not list(tmp_path.iterdir())


def test_arguments(tmp_path: Path, refuses: Any, tensors: Any, config: Any) -> None:
    with refuses(InputError, "there are no tensors to save", where=None, expected="at least one"):
        save_folder(tmp_path / "vae", {}, config)
    for size in ("10", "10XB", "manyGB", "0GB", "-5MB", 0, -5):
        with refuses(InputError, "not a shard size", where=None, expected='such as "500MB"', found=repr(size)):
            save_folder(tmp_path / "vae", tensors, config, max_shard_size=size)
    for variant in ("", "../x", "a.b", "{suffix}"):
        with refuses(InputError, "not a variant", where=None, expected="letters", found=repr(variant)):
            save_folder(tmp_path / "vae", tensors, config, variant=variant)
    assert not list(tmp_path.iterdir())


LIMITED = """
import resource, sys, torch
from pathlib import Path
from vaeport.checkpoint import save_folder
from vaeport.errors import BlockedError
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    save_folder(Path(sys.argv[1]), {"a": torch.ones(10), "w": torch.ones(1 << 20)}, {"_class_name": "X"})
except BlockedError as error:
    print(error)
"""


def test_a_limit_on_file_sizes(tmp_path: Path) -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    folder = tmp_path / "deep" / "vae"
    command = [sys.executable, "-c", LIMITED, str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    what, where, expected, found, fix = result.stdout.splitlines()
    assert what == CANNOT
    assert where == f"  where: {folder}"
    assert expected == "  expected: room for 4.19 MB and permission to write"
    assert found.startswith("  found: File too large; ")
    assert found.endswith(" free")
    assert fix == "  fix: free some space, or save elsewhere"
    assert not list(tmp_path.iterdir())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte, where the machine allows one to be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting needs root; the limit on file sizes is tested everywhere")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk(small_disk: Path, refuses: Any, config: dict[str, Any]) -> None:
    folder = small_disk / "vae"
    small = {"w": torch.ones(1000)}
    save_folder(folder, small, config)
    before = snapshot(small_disk)
    expected, found = "room for 4 MB", "No space left on device; 1.04 MB free"
    with refuses(BlockedError, CANNOT, where=folder, expected=expected, found=found, fix="free some space"):
        save_folder(folder, {f"w{i}": torch.ones(10**5) for i in range(10)}, config, max_shard_size="500KB")
    assert snapshot(small_disk) == before
    assert_saved(folder, small)


def test_a_read_only_disk(small_disk: Path, refuses: Any, config: dict[str, Any]) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    folder = small_disk / "vae"
    with refuses(BlockedError, CANNOT, where=folder, expected="permission to write", found="Read-only file system"):
        save_folder(folder, {"w": torch.ones(3)}, config)


@pytest.mark.parametrize("parent", ["/dev/null", "/proc"])
def test_a_place_where_no_folder_can_be(refuses: Any, config: dict[str, Any], parent: str) -> None:
    folder = Path(parent) / "vae"
    with refuses(BlockedError, CANNOT, where=folder, expected="permission to write"):
        save_folder(folder, {"w": torch.ones(3)}, config)


def test_when_moving_in_fails_the_former_save_is_back(
    tmp_path: Path, refuses: Any, tensors: Any, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "vae"
    save_folder(folder, tensors, config)
    before = snapshot(tmp_path)
    rename = Path.rename

    def fails_at_the_end(self: Path, target: Path) -> Path:
        if self.suffix == ".saving":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails_at_the_end)
    with refuses(BlockedError, CANNOT, where=folder, found="Input/output error"):
        save_folder(folder, {"w": torch.ones(3)}, config)
    assert snapshot(tmp_path) == before


def test_an_interrupted_save_leaves_nothing(
    tmp_path: Path, tensors: Any, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def interrupted(shard: Any, path: Path, **options: Any) -> None:
        if written:
            raise KeyboardInterrupt
        save_file(shard, path, **options)
        written.append(path)

    monkeypatch.setattr("safetensors.torch.save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_folder(tmp_path / "deep" / "vae", tensors, config, max_shard_size=3000)
    assert written
    assert not list(tmp_path.iterdir())


def test_metadata_says_format_pt(tmp_path: Path, tensors: Any, config: dict[str, Any]) -> None:
    save_folder(tmp_path / "vae", tensors, config)
    with open_checkpoint(tmp_path / "vae") as checkpoint:
        assert checkpoint.metadata == {"format": "pt"}
    assert load_file(tmp_path / "vae" / WEIGHTS).keys() == tensors.keys()
