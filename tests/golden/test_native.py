"""The native models against captures of the official code, at published width, through the production loader.

Each golden's weights are drawn again under the official keys, written as the official file is published, loaded by
`vaeport.load` as a user would, and run in float64: moments, the official latent convention, decode, and the activations
at every depth must agree by gate S.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import vaeport
from tests.golden.load import Golden, load_golden, subsample
from vaeport.mapping import plan
from vaeport.proof.gates import same_function
from vaeport.registry import ModelRegistry

NATIVE = {
    "ldm_sd1": ("autoencoder_kl", "sd1", "v1-5-pruned.safetensors"),
    "flux1": ("autoencoder_kl", "flux1", "ae.safetensors"),
    "wan2_1": ("wan", "wan2.1", "Wan2.1_VAE.pth"),
    "stable_audio_2_0": ("oobleck", "stable-audio-open-1.0", "model.safetensors"),
}


@pytest.fixture(scope="module", params=NATIVE)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Golden, vaeport.VAE]]:
    golden = load_golden(request.param)
    _, variant, name = NATIVE[request.param]
    file = tmp_path_factory.mktemp("official") / name
    state = golden.published_state()
    if variant == "sd1":
        # a whole pipeline's file: other models' keys lie beside the VAE's and tell which pipeline it is
        state["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.zeros(1, 77)
    if file.suffix == ".pth":
        torch.save(state, file)
    else:
        save_file(state, file)
    yield golden, vaeport.load(file, dtype=torch.float64)
    file.unlink()


def check(name: str, native: Tensor, official: Tensor) -> None:
    assert native.shape == official.shape, name
    measure = same_function(name, native, official)
    assert measure.passed, f"{name}: {measure}"


def each(golden: Golden, *endings: str) -> list[tuple[str, str]]:
    found = [(case, end) for case, _, end in (key.rpartition(".") for key in golden.outputs) if end in endings]
    assert found, f"no output ends in {endings}"
    return found


def encode(vae: vaeport.VAE, x: Tensor) -> dict[str, Tensor]:
    posterior = vae.encode(x).latent_dist
    return {
        "moments": posterior.parameters,
        "mode": posterior.mode(),
        "mean": posterior.mode(),
        "std": posterior.std,
        "latent": vae.normalize(posterior.mode()),
    }


def test_the_loader_knows_the_file(pair: tuple[Golden, vaeport.VAE]) -> None:
    golden, vae = pair
    name, variant, _ = NATIVE[golden.name]
    model = ModelRegistry.find(name).model
    assert isinstance(vae, model)
    assert vae.arch == model.variants[variant]


def test_encode(pair: tuple[Golden, vaeport.VAE]) -> None:
    golden, vae = pair
    compared = 0
    for case in sorted({key.rpartition(".")[0] for key in golden.inputs if key.endswith(".x")}):
        native = encode(vae, golden.inputs[f"{case}.x"])
        noise = golden.inputs.get(f"{case}.noise")
        if noise is not None:
            native["sample"] = native["mean"] + native["std"] * noise
            if vae.contract.modality == "audio":
                # the official pretransform hands on a sample
                native["latent"] = vae.normalize(native["sample"])
        for key, official in golden.outputs.items():
            if key.rpartition(".")[0] == case:
                check(key, native[key.rpartition(".")[2]], official)
                compared += 1
    assert compared >= 3


def test_decode(pair: tuple[Golden, vaeport.VAE]) -> None:
    golden, vae = pair
    assert vae.decoder is not None
    for case, kind in each(golden, "image", "video", "audio", "clamped"):
        z = golden.inputs[f"{case}.z"]
        official = golden.outputs[f"{case}.{kind}"]
        # the captures hand normalised latents to code that denormalises, and raw ones to code that does not
        raw = case == "decode_raw" or (golden.name, case) == ("ldm_sd1", "decode") or vae.contract.modality == "audio"
        z = z if raw else vae.denormalize(z)
        native = vae.decode(z).sample if kind == "clamped" else vae.decoder(z)
        check(f"{case}.{kind}", native, official)


def test_every_depth(pair: tuple[Golden, vaeport.VAE]) -> None:
    """Activations after the modules that own a weight, aligned by the weight map."""
    golden, vae = pair
    assert vae.encoder is not None
    assert vae.decoder is not None
    compared = 0
    for case in sorted({tap.split(".")[0] for tap in golden.taps}):
        paths = aligned(golden, vae)
        taps = {
            tap: paths[path]
            for tap in golden.taps
            if (path := tap.partition(".")[2]) in paths and tap.startswith(f"{case}.")
        }
        seen: dict[str, Tensor] = {}
        handles = [vae.get_submodule(native).register_forward_hook(keep(seen, tap)) for tap, native in taps.items()]
        if f"{case}.x" in golden.inputs:
            vae.encoder(golden.inputs[f"{case}.x"])
        else:
            z = golden.inputs[f"{case}.z"]
            raw = golden.name == "ldm_sd1" or vae.contract.modality == "audio"
            vae.decoder(z if raw else vae.denormalize(z))
        for handle in handles:
            handle.remove()
        for tap, native in seen.items():
            check(tap, subsample(native), golden.taps[tap])
            compared += 1
    assert compared >= 4, "too few depths are aligned"


def aligned(golden: Golden, vae: vaeport.VAE) -> dict[str, str]:
    """Official module path -> native module path, for modules that own weights on both sides."""
    shapes = {k: tuple(v) for k, v in golden.provenance["weights"]["layout"].items()}
    native = {k: tuple(v.shape) for k, v in vae.state_dict().items()}
    layouts = ModelRegistry.find(NATIVE[golden.name][0]).layouts
    fitting = next(p for p in (plan(layout, native, shapes) for layout in layouts) if p.fits)
    return {
        key.rpartition(".")[0]: s.native.rpartition(".")[0]
        for s in fitting.steps
        for key in s.stored
        if len(s.stored) == 1
    }


def keep(seen: dict[str, Tensor], tap: str) -> Callable[[nn.Module, object, Tensor], None]:
    def hook(module: nn.Module, args: object, out: Tensor) -> None:
        seen[tap] = out

    return hook
