"""A result that is not finite is told with the layer that made it so, wherever it lies and however the half ran."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.narrow import drawn
from tests.runtime.test_files import pixels, write_clip, write_sound
from vaeport.errors import InputError, LatentFileError
from vaeport.layers import TIME, Layer
from vaeport.media import read_latents, write_image, write_latents
from vaeport.runtime import files
from vaeport.runtime.files import decode_file, encode_file
from vaeport.runtime.finite import _needed, overflow, require_finite
from vaeport.runtime.tiling import tiled
from vaeport.vae import VAE

LAYERS = {
    "autoencoder_kl": ("encoder.conv_in", "decoder.levels.0.blocks.0.main.conv1"),
    "wan": ("encoder.levels.0.blocks.0.main.conv2", "decoder.levels.1.resample.time.rest.conv"),
    "oobleck": ("encoder.levels.0.conv", "decoder.levels.1.units.1.main.conv1"),
}


def overflowing(name: str, path: str, dtype: torch.dtype = torch.float16) -> VAE:
    """A narrow model in which the layer at `path`, and no other, gives more than the type holds."""
    vae = drawn(name).to(dtype)
    layer = vae.get_submodule(path)
    size = layer.weight_g if hasattr(layer, "weight_g") else layer.weight
    assert isinstance(size, Tensor)
    size.mul_(0.9 * torch.finfo(dtype).max / float(size.abs().max()))
    return vae


def decoder(vae: VAE) -> Layer:
    """As it is written, not as it may run."""
    assert vae.decoder is not None
    return vae.decoder


def source(name: str, folder: Path) -> Path:
    if name == "autoencoder_kl":
        write_image(folder / "in.png", pixels(16, 24))
        return folder / "in.png"
    return write_clip(folder / "in.mkv", 13) if name == "wan" else write_sound(folder / "in.wav", 4111)


def target(name: str, folder: Path) -> Path:
    return folder / {"autoencoder_kl": "out.png", "wan": "out.mkv", "oobleck": "out.wav"}[name]


@pytest.mark.parametrize("name", list(LAYERS))
@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_files_name_the_layer(name: str, half: str, tmp_path: Path) -> None:
    path = LAYERS[name][half == "decoder"]
    vae, latents = overflowing(name, path), tmp_path / "z.safetensors"
    if half == "encoder":
        into = latents
        with pytest.raises(InputError) as caught:
            encode_file(vae, source(name, tmp_path), latents)
    else:
        encode_file(drawn(name).half(), source(name, tmp_path), latents)
        into = target(name, tmp_path)
        with pytest.raises(InputError) as caught:
            decode_file(vae, latents, into)
    told = caught.value
    assert told.what == f"{path} overflows in float16"
    assert "65504" in str(told.expected)
    assert "NaN or infinite" in str(told.found)
    assert told.fix is not None
    assert f'{half}_dtype="bfloat16"' in told.fix
    assert (latents.name if half == "decoder" else source(name, tmp_path).name) in str(told.where)
    first = {"encoder": "latents 0 to", "decoder": {"wan": "frames 1 to 4", "oobleck": "samples 0 to"}.get(name, "")}
    assert name == "autoencoder_kl" or first[half] in str(told.where)
    assert not into.exists()
    assert not list(tmp_path.glob(".vaeport-*"))


@pytest.mark.parametrize("budget", [None, "2GiB"])
@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_files_name_the_layer_however_the_half_ran(
    budget: str | None, half: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The half runs by kernels, where there are any; what is looked at are its layers as they are written."""
    watched: list[Layer] = []
    monkeypatch.setattr(files, "overflow", lambda layer, *a, **b: (watched.append(layer), overflow(layer, *a, **b))[1])
    path, latents = LAYERS["wan"][half == "decoder"], tmp_path / "z.safetensors"
    vae = overflowing("wan", path, torch.float32)
    clip = source("wan", tmp_path)
    if half == "decoder":
        encode_file(drawn("wan"), clip, latents)
    run = encode_file if half == "encoder" else decode_file
    named = (clip, latents) if half == "encoder" else (latents, tmp_path / "out.mp4")
    with pytest.raises(InputError) as caught:
        run(vae, *named, budget=budget)
    assert watched == [vae._half(half)]  # type: ignore[arg-type]
    assert caught.value.what == f"{path} overflows in float32"


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_only_what_the_positions_depend_on_runs_again(half: str) -> None:
    """A clip of 61 latents in which all is well up to the last one; pieces stay in phase with the first."""
    vae = drawn("wan")
    layer, size = (vae.encoder, (3, 241, 8, 8)) if half == "encoder" else (decoder(vae), (4, 61, 1, 1))
    assert layer is not None
    layer.get_submodule("conv_in").weight.mul_(1e20)
    x = torch.zeros(1, *size)
    x[:, :, -1] = 1e30
    fed: list[int] = []

    def pieces() -> Iterator[Tensor]:
        at = 0
        for piece in (x[:, :, :1], *x[:, :, 1:].split(4 if half == "encoder" else 1, 2)):
            fed.append(at)
            at += piece.shape[2]
            yield piece

    outputs = (60, 61) if half == "encoder" else (237, 241)
    kept = list(_needed(layer, pieces(), TIME, outputs))
    needs = layer.needs(outputs, TIME)
    assert needs is not None
    assert x.shape[2] - sum(piece.shape[2] for piece in kept[1:]) <= needs[0]
    assert 2 < len(kept) < 45
    assert torch.equal(kept[0], x[:, :, :1])
    assert sum(piece.shape[2] for piece in kept[1:]) % (4 if half == "encoder" else 1) == 0
    assert torch.equal(torch.cat(kept[1:], 2), x[:, :, -sum(piece.shape[2] for piece in kept[1:]) :])
    assert overflow(layer, pieces(), name=half, axis=TIME, outputs=outputs).what.startswith(f"{half}.conv_in overflows")
    fed.clear()
    assert len(list(_needed(layer, pieces(), TIME, (0, 1)))) == 1
    assert len(fed) <= 2


def test_no_layer_can_be_told_where_all_were_finite() -> None:
    vae = drawn("wan")
    error = overflow(decoder(vae), [torch.zeros(1, 4, 2, 2, 2)], name="decoder", axis=TIME, where="z.safetensors")
    assert error.what == "the result of the decoder is not finite"
    assert "no layer can be told: all gave finite values" in str(error.found)
    assert error.where == "z.safetensors"


def test_no_layer_can_be_told_without_memory() -> None:
    def pieces() -> Iterator[Tensor]:
        yield torch.zeros(1, 4, 1, 2, 2)
        raise torch.OutOfMemoryError("CUDA out of memory")

    error = overflow(decoder(drawn("wan")), pieces(), name="decoder", axis=TIME)
    assert "there was no memory for running it once more" in str(error.found)

    def broken() -> Iterator[Tensor]:
        raise RuntimeError("something else")
        yield

    with pytest.raises(RuntimeError, match="something else"):
        overflow(decoder(drawn("wan")), broken(), name="decoder", axis=TIME)


def test_layers_are_as_they_were_afterwards() -> None:
    vae = overflowing("wan", LAYERS["wan"][1])
    layer, z = decoder(vae), torch.ones(1, 4, 2, 2, 2, dtype=torch.float16)
    own = layer.get_submodule("conv_in")
    own.forward = forward = own.forward  # type: ignore[method-assign]
    before = {name: dict(vars(module)) for name, module in layer.named_modules()}
    assert overflow(layer, [z], name="decoder", axis=TIME).what.startswith(LAYERS["wan"][1])
    assert {name: dict(vars(module)) for name, module in layer.named_modules()} == before
    assert own.forward is forward


def test_weights_that_are_not_finite_in_their_type_are_told() -> None:
    vae = drawn("autoencoder_kl")
    vae.get_submodule("decoder.conv_in").weight.mul_(1e6)
    vae.half()
    error = overflow(decoder(vae), [torch.ones(1, 4, 4, 4).half()], name="decoder")
    assert error.what == "decoder.conv_in overflows in float16"
    assert "its weight are not finite in float16" in str(error.found)


def test_in_float32_the_checkpoint_is_to_blame() -> None:
    vae = overflowing("autoencoder_kl", "decoder.conv_out", torch.float32)
    error = overflow(decoder(vae), [torch.full((1, 4, 4, 4), 9.0)], name="decoder")
    assert error.what == "decoder.conv_out overflows in float32"
    assert error.fix is not None
    assert "check the checkpoint" in error.fix


@pytest.mark.parametrize("name", ["autoencoder_kl", "wan"])
def test_a_tiled_half_names_its_layer(name: str) -> None:
    vae = tiled(overflowing(name, LAYERS[name][1]), "diffusers")
    z = torch.ones(1, 4, *(() if name == "autoencoder_kl" else (3,)), 4, 4, dtype=torch.float16)
    axis = None if name == "autoencoder_kl" else TIME
    assert overflow(decoder(vae), [z], name="decoder", axis=axis).what.startswith(LAYERS[name][1])


class TestLatents:
    """What was not finite before it was decoded."""

    def test_in_the_file(self, tmp_path: Path) -> None:
        self._written(tmp_path, lambda z: z.fill_(float("nan")))
        with pytest.raises(LatentFileError, match=r"the latents are not finite(.|\n)*encode again"):
            decode_file(drawn("autoencoder_kl"), tmp_path / "z.safetensors", tmp_path / "out.png")
        assert not (tmp_path / "out.png").exists()

    def test_in_the_type_of_the_decoder(self, tmp_path: Path) -> None:
        self._written(tmp_path, lambda z: z.fill_(1e6))
        with pytest.raises(LatentFileError, match=r"not finite in the decoder's torch\.float16(.|\n)*float32"):
            decode_file(drawn("autoencoder_kl").half(), tmp_path / "z.safetensors", tmp_path / "out.png")

    def _written(self, folder: Path, change: Callable[[Tensor], Tensor]) -> None:
        encode_file(drawn("autoencoder_kl"), source("autoencoder_kl", folder), folder / "z.safetensors")
        latents, header = read_latents(folder / "z.safetensors")
        write_latents(folder / "z.safetensors", change(latents), header)


def test_whole_results() -> None:
    vae = overflowing("autoencoder_kl", "decoder.conv_out")
    z = torch.ones(1, 4, 4, 4, dtype=torch.float16)
    y = decoder(vae)(z)
    with pytest.raises(InputError, match=r"decoder\.conv_out overflows in float16(.|\n)*latents\.pt"):
        require_finite(y, decoder(vae), z, name="decoder", where="latents.pt")
    require_finite(torch.ones(3), decoder(vae), z, name="decoder")
    with pytest.raises(InputError, match="the input of the decoder is not finite"):
        require_finite(y, decoder(vae), z * float("nan"), name="decoder")
