"""Checkpoints that the tests write, and what two models must agree on to have the same weights."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.layers.laws import difference
from tests.narrow import MODELS, both, diffusers_class, media, reference, shapes, weight_map
from tests.weights.laws import official_shapes
from vaeport.mapping import Layout, plan
from vaeport.proof.precision import Float64Mode
from vaeport.vae import VAE

NAMES = ("kl", "kl16", "wan", "oobleck")
CLIPS = {"kl": (1, 3, 16, 24), "kl16": (1, 3, 24, 16), "wan": (1, 3, 5, 16, 8), "oobleck": (1, 2, 4096)}
SAME = 1e-12
"""rms difference over the rms of the reference, in float64"""
CODES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float8_e4m3fn: "F8_E4M3"}
CODES |= {torch.int64: "I64", torch.int8: "I8", torch.float64: "F64"}


def theirs(name: str) -> Any:
    """Diffusers' narrow model in float32, with drawn weights. Shared by tests, so none may change it."""
    return both(name, torch.float32)[1]


def another(name: str) -> Any:
    """The same model once more, to be changed."""
    model = reference(MODELS[name][1])
    model.load_state_dict(theirs(name).state_dict())
    return model


def their_state(name: str) -> dict[str, Tensor]:
    """A copy of its weights, under Diffusers' keys."""
    return {key: tensor.clone() for key, tensor in theirs(name).state_dict().items()}


def their_class(name: str) -> Any:
    """The class of `theirs`, which reads files with code of its own."""
    return diffusers_class(MODELS[name][1])


def official_state(name: str, layout: Layout, prefix: str = "") -> dict[str, Tensor]:
    """The same weights under the keys of an official layout."""
    model, arch = MODELS[name]
    with torch.device("meta"):
        native = shapes(model(arch))
    state = their_state(name)
    read = plan(weight_map(model).DIFFUSERS, native, {k: tuple(v.shape) for k, v in state.items()}).require(name, "")
    weights = dict(read.convert(state.__getitem__))
    written = plan(layout, native)
    return {
        prefix + key.removeprefix(written.prefix): tensor.contiguous()
        for step in written.steps
        for key, tensor in step.write(weights[step.native]).items()
    }


def component(folder: Path, name: str, state: Mapping[str, Tensor] | None = None, **config: Any) -> Path:
    """A component folder: the published config with changes, and weights under Diffusers' keys or those given."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(state or their_state(name)), folder / "diffusion_pytorch_model.safetensors")
    return write_config(folder, {**MODELS[name][1].to_published(), **config})


def write_config(folder: Path, config: Mapping[str, Any]) -> Path:
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))
    return folder


def beside(folder: Path, name: str, file: str, state: Mapping[str, Tensor]) -> Path:
    """A single weight file, a pickle unless its name says safetensors, with the model's config.json beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder, MODELS[name][1].to_published())
    (save_file if file.endswith("safetensors") else torch.save)(dict(state), folder / file)
    return folder / file


def sparse(
    path: Path,
    entries: Mapping[str, Sequence[int]],
    dtypes: Mapping[str, torch.dtype] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """A safetensors file of zeros that takes no space on disk; `dtypes` by key, float32 for the others."""
    table: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    end = 0
    for key, shape in entries.items():
        dtype = (dtypes or {}).get(key, torch.float32)
        begin, end = end, end + torch.Size(shape).numel() * dtype.itemsize
        table[key] = {"dtype": CODES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    header = json.dumps(table).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + end)
    return path


def official(golden: str, prefix: str) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of an official class at full width, as captured from it, behind another prefix."""
    published = official_shapes(golden)
    before = {"ldm_sd1": "first_stage_model.", "stable_audio_2_0": "pretransform.model."}.get(golden, "")
    return {prefix + key.removeprefix(before): shape for key, shape in published.items()}


def run(model: Any, name: str) -> tuple[Tensor, Tensor]:
    """Moments of a clip and the decoded mode, in float64 even where the reference casts to float32."""
    x = media(name, CLIPS[name])
    with torch.no_grad(), Float64Mode():
        posterior = model.encode(x).latent_dist
        return moments(posterior), model.decode(posterior.mode()).sample


def moments(posterior: Any) -> Tensor:
    """Mean and spread, whatever the class calls them."""
    return torch.cat((posterior.mode(), posterior.std), 1)


def assert_same(ours: VAE, theirs: Any, name: str) -> None:
    """Both encode and decode alike in float64, to which the reference is converted; neither is a constant."""
    for found, expected in zip(run(ours, name), run(theirs.double(), name), strict=True):
        size = float(expected.square().mean().sqrt())
        assert size > 0.01
        assert float(expected.std()) > 0.01 * size
        assert difference(found, expected) <= SAME * size


def listing(folder: Path) -> dict[str, bytes]:
    """All that a folder holds, to be compared before and after."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
