"""The native models against captures of the official code, at published width, through the production loader.

Each golden's weights are drawn again under the official keys, written as the official file is published, loaded by
`vaeport.load` as a user would, and run in float64: moments, the official latent convention, decode, and the activations
at every depth must agree by gate S.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import vaeport
from tests.golden.load import Golden, load_golden, subsample
from vaeport.errors import InputError
from vaeport.mapping import plan
from vaeport.proof.gates import same_function
from vaeport.proof.noise import Noise
from vaeport.registry import ModelRegistry

NATIVE = {
    "ldm_sd1": ("autoencoder_kl", "sd1", "v1-5-pruned.safetensors"),
    "flux1": ("autoencoder_kl", "flux1", "ae.safetensors"),
    "wan2_1": ("wan", "wan2.1", "Wan2.1_VAE.pth"),
    "wan2_2": ("wan2_2", "wan2.2", "Wan2.2_VAE.pth"),
    "stable_audio_2_0": ("oobleck", "stable-audio-open-1.0", "model.safetensors"),
    "ltxv_0_9_0": ("ltx_video", "ltxv-0.9.0", "ltx-video-2b-v0.9.safetensors"),
    "ltxv_0_9_1": ("ltx_video", "ltxv-0.9.1", "ltx-video-2b-v0.9.1.safetensors"),
    "ltxv_0_9_5": ("ltx_video", "ltxv-0.9.5", "ltx-video-2b-v0.9.5.safetensors"),
    "ltx2_0": ("ltx2", "ltx2.0", "ltx-2-19b-dev.safetensors"),
    "ltx2_3": ("ltx2", "ltx2.3", "ltx-2.3-22b-dev.safetensors"),
    "hunyuan_video": ("hunyuan_video", "hunyuan_video", "pytorch_model.pt"),
    "gamecraft": ("gamecraft", "gamecraft", "pytorch_model.pt"),
    "gamecraft_open": ("gamecraft", None, "pytorch_model.pt"),
}
QUICK = {"ldm_sd1", "flux1", "wan2_1", "stable_audio_2_0", "hunyuan_video"}
NAMES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.full) for name in NATIVE]


@pytest.fixture(scope="module", params=NAMES)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Golden, vaeport.VAE]]:
    golden = load_golden(request.param)
    file = write_official(golden, tmp_path_factory.mktemp("official") / NATIVE[request.param][2])
    yield golden, vaeport.load(file, dtype=torch.float64)
    file.unlink()


def write_official(golden: Golden, file: Path) -> Path:
    """The weights under the official keys, and the configuration where it is published."""
    state = golden.published_state()
    arguments = golden.provenance["arguments"]
    if golden.name == "ldm_sd1":
        # a whole pipeline's file: other models' keys lie beside the VAE's and tell which pipeline it is
        state["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.zeros(1, 77)
    if golden.name.startswith("ltx"):
        # one copy of the statistics serves both halves
        save_file(state, file, {"config": json.dumps({"vae": arguments, "transformer": {}})})
    elif file.suffix == ".safetensors":
        save_file(state, file)
    else:
        torch.save(state, file)
    if file.name == "pytorch_model.pt":
        config = {"_class_name": "AutoencoderKLCausal3D", **arguments}
        file.with_name("config.json").write_text(json.dumps(config))
    return file


def check(name: str, native: Tensor, official: Tensor) -> None:
    assert native.shape == official.shape, name
    measure = same_function(name, native, official)
    assert measure.passed, f"{name}: {measure}"


def cases(golden: Golden, given: str) -> list[str]:
    found = sorted({key.rpartition(".")[0] for key in golden.inputs if key.endswith(f".{given}")})
    assert found
    return found


def latents(golden: Golden, vae: vaeport.VAE, case: str) -> Tensor:
    """The latents of a decoding case as `decode` takes them."""
    z = golden.inputs[f"{case}.z"]
    # the captures hand normalised latents to code that denormalises, and raw ones to code that does not
    if case == "decode_raw" or (golden.name, case) == ("ldm_sd1", "decode") or vae.contract.modality == "audio":
        return z
    mixed = golden.inputs.get(f"{case}.noise")
    return vae.denormalize(z) if mixed is None else vae.with_decode_noise(z, noise=mixed)


def drawn_in_order(golden: Golden, case: str) -> Noise:
    """The noise that the official decoder drew."""
    return Noise(lambda n, shape: golden.inputs[f"{case}.noise_{n:02d}"])


def legal(vae: vaeport.VAE, x: Tensor) -> Tensor:
    """What is left of an input that the official code crops and the native model refuses."""
    rules = zip(vae.contract.axes, x.shape[2:], strict=True)
    if all(rule.crops or rule.padded(n) == n for rule, n in rules):
        return x
    with pytest.raises(InputError, match=r"crop it to \d+"):
        vae.encode(x)
    return x[:, :, : vae.contract.axes[0].decoded(vae.contract.axes[0].latents(x.shape[2]))]


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
    if variant is None:
        assert (vae.arch.mid_block_causal_attn, vae.arch.disable_causal_conv) == (False, True)
    else:
        assert vae.arch.replace(extra={}) == model.variants[variant]
        saved = vae.arch.to_published()
        assert vae.arch == type(vae.arch).from_published(saved)
        assert saved["_class_name"] == vae.arch.class_names[0]


def test_encode(pair: tuple[Golden, vaeport.VAE]) -> None:
    golden, vae = pair
    compared = 0
    for case in cases(golden, "x"):
        native = encode(vae, legal(vae, golden.inputs[f"{case}.x"]))
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
    compared = 0
    for case in cases(golden, "z"):
        z = latents(golden, vae, case)
        with drawn_in_order(golden, case):
            raw = vae.decoder_at()(z)
        native = dict.fromkeys(("image", "video", "audio"), raw)
        native["red"] = raw[:, :1]
        if f"{case}.clamped" in golden.outputs:
            native["clamped"] = vae.decode(z).sample
        if f"{case}.mixed" in golden.outputs:
            native["mixed"] = vae.normalize(z)
        for key, official in golden.outputs.items():
            if key.rpartition(".")[0] == case:
                check(key, native[key.rpartition(".")[2]], official)
                compared += 1
    assert compared >= 1


def test_the_official_convention_of_latents(pair: tuple[Golden, vaeport.VAE]) -> None:
    """Loaded so, `encode` gives and `decode` takes what the official code does; nobody normalises twice."""
    golden, vae = pair
    if golden.name in ("ldm_sd1", "stable_audio_2_0"):
        assert vae.normalize(torch.ones(1, 4, 1)).shape == (1, 4, 1)
        return
    vae.config.latents = "normalized"
    try:
        case = next(key.rpartition(".")[0] for key in golden.outputs if re.fullmatch(r"encode(_image)?\.latent", key))
        posterior = vae.encode(legal(vae, golden.inputs[f"{case}.x"])).latent_dist
        check(case, posterior.mode(), golden.outputs[f"{case}.latent"])
        assert vae.normalize(posterior.mode()) is posterior.mode()
        case = next(
            key.rpartition(".")[0] for key in golden.outputs if re.fullmatch(r"decode(_image)?\.(video|image)", key)
        )
        with drawn_in_order(golden, case):
            found = vae.decode(golden.inputs[f"{case}.z"]).sample
        kind = (
            "clamped"
            if f"{case}.clamped" in golden.outputs
            else "video"
            if vae.contract.modality == "video"
            else "image"
        )
        check(case, found, golden.outputs[f"{case}.{kind}"])
    finally:
        vae.config.latents = "raw"


def test_every_depth(pair: tuple[Golden, vaeport.VAE]) -> None:
    """Activations after the modules that own a weight, aligned by the weight map."""
    golden, vae = pair
    assert vae.encoder is not None
    compared = 0
    paths = aligned(golden, vae)
    for case in sorted({tap.split(".")[0] for tap in golden.taps}):
        taps = {
            tap: paths[path]
            for tap in golden.taps
            if (path := tap.partition(".")[2]) in paths and tap.startswith(f"{case}.")
        }
        seen: dict[str, Tensor] = {}
        handles = [vae.get_submodule(native).register_forward_hook(keep(seen, tap)) for tap, native in taps.items()]
        if f"{case}.x" in golden.inputs:
            vae.encoder(legal(vae, golden.inputs[f"{case}.x"]))
        else:
            with drawn_in_order(golden, case):
                vae.decoder_at()(latents(golden, vae, case))
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
