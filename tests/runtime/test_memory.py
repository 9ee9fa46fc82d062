"""What loading costs in memory, measured by the system on models at full published width, each in its own process.

The files hold zeros that take no space on disk; the pages that they fill in memory are real.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runtime.made import official, sparse, write_config
from tests.weights.laws import diffusers_shapes
from vaeport.models.autoencoder_kl import AutoencoderKL

MIB = 1 << 20
MOST = 1.2
"""anonymous memory over the bytes of the weights that are kept"""
UNCHANGED = 0.1
"""the same where weights are kept as they are stored: they stay on disk, but for what several stored tensors make up"""
CLIP = {"cond_stage_model.transformer.text_model.embeddings.position_ids": (1, 77)}

SCRIPT = """
import json, re, sys
from pathlib import Path
import torch
import vaeport
import vaeport.models.autoencoder_kl, vaeport.models.wan, vaeport.models.oobleck, vaeport.checkpoint.hub
torch.set_num_threads(1)
path, options = sys.argv[1], json.loads(sys.argv[2])

def anonymous():
    return int(re.search(r"Anonymous:\\s+(\\d+) kB", Path("/proc/self/smaps_rollup").read_text())[1]) << 10

def mapped():
    total, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            ours = path in line
        elif ours and line.startswith("Rss:"):
            total += int(line.split()[1]) << 10
    return total

torch.zeros(1 << 20, device="meta").norm()  # what torch itself keeps once it has run
torch.aminmax(torch.zeros(1 << 20))
before = anonymous()
vae = vaeport.load(path, **options)
after = anonymous()
kept = sum(p.nbytes for p in vae.parameters())
print(json.dumps({"kept": kept, "grown": after - before, "mapped": mapped(), "dtype": str(vae.dtype)}))
"""


def cost(path: Path, **options: Any) -> dict[str, Any]:
    command = [sys.executable, "-c", SCRIPT, str(path), json.dumps(options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    sizes = {key: f"{found[key] / MIB:.0f} MiB" for key in ("kept", "grown", "mapped")}
    print(f"\n{path.name} {options}: {sizes}")
    return found


@pytest.fixture(scope="module")
def sd1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A component folder with 335 MB of float32."""
    arch = AutoencoderKL.variants["sd1"]
    folder = write_config(tmp_path_factory.mktemp("sd1"), arch.to_published())
    file = sparse(folder / "diffusion_pytorch_model.safetensors", diffusers_shapes(arch))
    assert file.stat().st_size > 330_000_000
    return folder


def test_as_stored(sd1: Path) -> None:
    found = cost(sd1)
    assert found["kept"] > 330_000_000
    assert found["dtype"] == "torch.float32"
    assert found["grown"] <= UNCHANGED * found["kept"]


def test_converted(sd1: Path) -> None:
    found = cost(sd1, dtype="bfloat16")
    assert found["dtype"] == "torch.bfloat16"
    assert found["grown"] <= MOST * found["kept"]
    assert found["grown"] >= 0.9 * found["kept"], "what is converted is in memory, or this measures nothing"


@pytest.mark.parametrize(
    ("half", "share", "dtype"), [("encoder", 0.41, None), ("decoder", 0.59, None), ("decoder", 0.59, "bfloat16")]
)
def test_half(sd1: Path, half: str, share: float, dtype: str | None) -> None:
    """The other half costs nothing, neither of its own memory nor of the file's pages."""
    found = cost(sd1, load_encoder=half == "encoder", load_decoder=half == "decoder", dtype=dtype)
    stored = found["kept"] * (1 if dtype is None else 2)
    assert stored == pytest.approx(share * 334_615_452, rel=0.01)
    assert found["grown"] <= (UNCHANGED if dtype is None else MOST) * found["kept"]
    if dtype is None:
        assert 0.95 * stored <= found["mapped"] <= 1.05 * stored, "its pages of the file, and no more, were touched"


def test_official_safetensors(tmp_path: Path) -> None:
    """A pipeline's file: the other models' gigabytes are not touched."""
    unet = {f"model.diffusion_model.input_blocks.{i}.w": (1 << 26,) for i in range(8)}
    file = sparse(tmp_path / "v1-5-pruned.safetensors", {**official("ldm_sd1", "first_stage_model."), **CLIP, **unet})
    assert file.stat().st_size > 2 << 30
    found = cost(file)
    assert found["grown"] <= UNCHANGED * found["kept"]
    assert found["mapped"] <= 1.05 * found["kept"]


def test_official_pickle(tmp_path: Path) -> None:
    shapes = official("ldm_sd1", "first_stage_model.") | CLIP
    file = tmp_path / "v1-5-pruned.ckpt"
    torch.save({"state_dict": {key: torch.zeros(shape) for key, shape in shapes.items()}, "epoch": 1}, file)
    found = cost(file, load_encoder=False)
    file.unlink()
    assert found["grown"] <= UNCHANGED * found["kept"]
    assert found["mapped"] <= 1.1 * found["kept"]
