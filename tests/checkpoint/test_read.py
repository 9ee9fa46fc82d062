"""Every published layout opens, and what cannot be opened is refused with the way out."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from huggingface_hub import save_torch_state_dict
from safetensors.torch import save_file

from vaeport.checkpoint import Checkpoint, open_checkpoint
from vaeport.errors import BlockedError, CheckpointError, KeyMismatchError


@pytest.fixture(scope="module")
def vae() -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        norm_num_groups=4,
    )


def assert_holds(checkpoint: Checkpoint, state: dict[str, torch.Tensor]) -> None:
    assert list(checkpoint.entries) == sorted(state)
    for name, tensor in state.items():
        listed, read = checkpoint.entries[name], checkpoint.tensor(name)
        assert (listed.name, listed.shape, listed.dtype) == (name, tensor.shape, tensor.dtype)
        assert listed.nbytes == tensor.nbytes
        assert listed.file in checkpoint.files
        assert torch.equal(read, tensor)


@pytest.mark.parametrize("variant", [None, "fp16", "non_ema"])
@pytest.mark.parametrize("max_shard_size", ["10GB", "40KB"])
@pytest.mark.parametrize("safe", [True, False])
def test_folders_as_diffusers_writes_them(
    tmp_path: Path, vae: AutoencoderKL, variant: str | None, max_shard_size: str, safe: bool
) -> None:
    vae.save_pretrained(tmp_path, variant=variant, max_shard_size=max_shard_size, safe_serialization=safe)
    with open_checkpoint(tmp_path, variant=variant) as checkpoint:
        assert_holds(checkpoint, vae.state_dict())
        assert (len(checkpoint.files) > 1) == (max_shard_size == "40KB")
        assert checkpoint.format == ("safetensors" if safe else "pickle")


@pytest.mark.filterwarnings("ignore:This serialization format is now deprecated:FutureWarning")
def test_the_earlier_spelling_of_a_variant_index_opens_as_in_diffusers(tmp_path: Path, vae: AutoencoderKL) -> None:
    vae.save_pretrained(tmp_path, variant="fp16", max_shard_size="40KB")
    index = tmp_path / "diffusion_pytorch_model.safetensors.index.fp16.json"
    text = index.read_text()
    index.unlink()
    for shard in tmp_path.glob("*.fp16-*"):
        name = shard.name.replace(".fp16-", "-").replace(".safetensors", ".fp16.safetensors")
        shard.rename(tmp_path / name)
        text = text.replace(shard.name, name)
    (tmp_path / "diffusion_pytorch_model.safetensors.fp16.index.json").write_text(text)
    with open_checkpoint(tmp_path, variant="fp16") as checkpoint:
        assert_holds(checkpoint, AutoencoderKL.from_pretrained(tmp_path, variant="fp16").state_dict())


@pytest.mark.parametrize("pattern", ["model{suffix}.safetensors", "diffusion_pytorch_model.bf16{suffix}.safetensors"])
def test_folders_as_the_hub_library_writes_them(tmp_path: Path, tensors: dict[str, torch.Tensor], pattern: str) -> None:
    save_torch_state_dict(tensors, tmp_path, filename_pattern=pattern, max_shard_size=2000)
    with open_checkpoint(tmp_path, variant="bf16" if "bf16" in pattern else None) as checkpoint:
        assert_holds(checkpoint, tensors)
        assert len(checkpoint.files) > 1


def test_an_index_by_its_own_path_and_metadata(tmp_path: Path, vae: AutoencoderKL) -> None:
    vae.save_pretrained(tmp_path, max_shard_size="40KB")
    first = sorted(tmp_path.glob("*-00001-of-*"))[0]
    with open_checkpoint(first) as checkpoint:
        part = {name: checkpoint.tensor(name).clone() for name in checkpoint.entries}
    save_file(part, first, metadata={"format": "other", "origin": "here"})
    with open_checkpoint(str(tmp_path / "diffusion_pytorch_model.safetensors.index.json")) as checkpoint:
        assert_holds(checkpoint, vae.state_dict())
        size = sum(tensor.nbytes for tensor in vae.state_dict().values())
        assert checkpoint.metadata["total_size"] == str(size)
        assert (checkpoint.metadata["format"], checkpoint.metadata["origin"]) == ("other", "here")
        assert "pt" in (value for key, value in checkpoint.metadata.items() if key.startswith("format ("))


def test_the_order_among_several_weights_is_that_of_diffusers(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    expected = None
    for number, name in enumerate(["pytorch_model.bin", "model.safetensors", "diffusion_pytorch_model.safetensors"]):
        expected = tensors | {"which": torch.tensor(number)}
        if name.endswith(".bin"):
            torch.save(expected, tmp_path / name)
        else:
            save_file({key: tensor.contiguous() for key, tensor in expected.items()}, tmp_path / name)
        with open_checkpoint(tmp_path) as checkpoint:
            assert_holds(checkpoint, expected)


def test_an_index_goes_before_a_single_file_as_in_diffusers(tmp_path: Path, vae: AutoencoderKL) -> None:
    vae.save_pretrained(tmp_path, max_shard_size="40KB")
    save_file({"stale": torch.ones(1)}, tmp_path / "diffusion_pytorch_model.safetensors")
    with open_checkpoint(tmp_path) as checkpoint:
        assert_holds(checkpoint, AutoencoderKL.from_pretrained(tmp_path).state_dict())


def test_tensors_outlive_the_checkpoint(tmp_path: Path) -> None:
    save_file({"x": torch.arange(5.0)}, tmp_path / "a.safetensors")
    torch.save({"x": torch.arange(5.0)}, tmp_path / "a.pt")
    for name in ("a.safetensors", "a.pt"):
        with open_checkpoint(tmp_path / name) as checkpoint:
            tensor = checkpoint.tensor("x")
        assert tensor.tolist() == [0, 1, 2, 3, 4]
        tensor[0] = 7  # writing copies the page; the file keeps its values
        with open_checkpoint(tmp_path / name) as checkpoint:
            assert checkpoint.tensor("x").tolist() == [0, 1, 2, 3, 4]
        with pytest.raises(CheckpointError, match=r"the checkpoint is closed"):
            checkpoint.tensor("x")


def test_unknown_tensor(tmp_path: Path, refuses: Any) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"decoder.conv_in.weight": torch.ones(1)}, path)
    with (
        open_checkpoint(path) as checkpoint,
        refuses(
            KeyMismatchError,
            "the checkpoint holds no tensor 'decoder.conv_in.wieght'",
            where=path,
            found="nearest names: decoder.conv_in.weight",
            fix="`vaeport inspect`",
        ),
    ):
        checkpoint.tensor("decoder.conv_in.wieght")


def test_only_other_variants(tmp_path: Path, refuses: Any) -> None:
    for variant in ("fp16", "ema"):
        save_file({"x": torch.ones(1)}, tmp_path / f"diffusion_pytorch_model.{variant}.safetensors")
    what, found = "the folder holds weights of other variants only", "variant='ema', variant='fp16'"
    fix = "ask for one of those found, such as variant='ema'"
    with refuses(CheckpointError, what, where=tmp_path, expected="no variant", found=found, fix=fix):
        open_checkpoint(tmp_path)
    what, fix = "the folder lacks this variant", "ask for one of those found"
    with refuses(CheckpointError, what, where=tmp_path, expected="variant='bf16'", found=found, fix=fix):
        open_checkpoint(tmp_path, variant="bf16")


def test_variant_of_a_file(tmp_path: Path, refuses: Any) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"x": torch.ones(1)}, path)
    what = "a variant chooses among the files of a folder, and this is no folder"
    with refuses(CheckpointError, what, where=path, found="variant='fp16'", fix="leave the variant out"):
        open_checkpoint(path, variant="fp16")


def test_missing_path_offers_its_neighbours(tmp_path: Path, refuses: Any) -> None:
    (tmp_path / "Wan2.1_VAE.pth").touch()
    what = "no such file or folder"
    found = f"in {tmp_path}: nearest names: Wan2.1_VAE.pth"
    with refuses(CheckpointError, what, where=tmp_path / "Wan2.1-VAE.pth", found=found, fix="check the path"):
        open_checkpoint(tmp_path / "Wan2.1-VAE.pth")
    found = f"the folder {tmp_path / 'no'} does not exist either; in {tmp_path}: 1 names, none like it"
    with refuses(CheckpointError, what, where=tmp_path, found=found):
        open_checkpoint(tmp_path / "no" / "such" / "file.pt")
    with refuses(CheckpointError, what, where="xxxx"):
        open_checkpoint("x" * 5000 + ".pt")


@pytest.mark.parametrize(
    ("names", "found", "fix"),
    [
        ([], "an empty folder", "check the path"),
        (["notes.txt"], "notes.txt", "check the path"),
        (["ae.safetensors"], "ae.safetensors", "give the file itself: "),
        (["vae/config.json", "unet/config.json"], "component folders: unet, vae", "give the component: "),
    ],
)
def test_folder_without_known_weights(tmp_path: Path, refuses: Any, names: list[str], found: str, fix: str) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    what, expected = "the folder holds no weights under a known name", "diffusion_pytorch_model.safetensors"
    with refuses(CheckpointError, what, where=tmp_path, expected=expected, found=found, fix=fix):
        open_checkpoint(tmp_path)


def test_shards_without_their_index(tmp_path: Path, refuses: Any, vae: AutoencoderKL) -> None:
    vae.save_pretrained(tmp_path, max_shard_size="40KB")
    (tmp_path / "diffusion_pytorch_model.safetensors.index.json").unlink()
    what = "the folder holds shards but no index that says which tensor lies where"
    expected, found = "diffusion_pytorch_model.safetensors.index.json", "diffusion_pytorch_model-00001-of-0000"
    with refuses(CheckpointError, what, where=tmp_path, expected=expected, found=found, fix="download the index"):
        open_checkpoint(tmp_path)


def test_unknown_kind_of_file(tmp_path: Path, refuses: Any) -> None:
    path = tmp_path / "weights.gguf"
    path.write_bytes(b"GGUF\x03\0\0\0")
    expected, found = ".safetensors, .pt, .pth, .ckpt, .bin or .index.json", ".gguf; the file looks like a GGUF file"
    with refuses(CheckpointError, "not a known kind of weight file", where=path, expected=expected, found=found):
        open_checkpoint(path)


def test_a_pipe_is_not_waited_for(tmp_path: Path, refuses: Any) -> None:
    os.mkfifo(tmp_path / "a.safetensors")
    with refuses(CheckpointError, "not a regular file", where=tmp_path / "a.safetensors", fix="of a weight file"):
        open_checkpoint(tmp_path / "a.safetensors")


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """A folder that everyone may enter, while this process may not read what it does not own."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    user = os.geteuid()
    try:
        yield folder
    finally:
        os.seteuid(user)
        shutil.rmtree(folder)


def test_no_permission(as_nobody: Path, refuses: Any) -> None:
    path = as_nobody / "inner" / "a.safetensors"
    path.parent.mkdir()
    save_file({"x": torch.ones(1)}, path)
    path.chmod(0)
    if os.geteuid() == 0:
        os.seteuid(65534)
    with refuses(BlockedError, "the file cannot be read", where=path, found="Permission denied", fix="permissions"):
        open_checkpoint(path)


def test_no_permission_to_look(as_nobody: Path, refuses: Any) -> None:
    path = as_nobody / "inner" / "a.safetensors"
    path.parent.mkdir(mode=0)
    if os.geteuid() == 0:
        os.seteuid(65534)
    with refuses(BlockedError, "the file cannot be read", where=path, found="Permission denied", fix="permissions"):
        open_checkpoint(path)
