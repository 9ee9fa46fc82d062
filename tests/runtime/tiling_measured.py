"""How far each published tiling is from the whole: the table of docs/tiling.md.

python -m tests.runtime.tiling_measured

A real clip, tiles of the published sizes, narrow models with drawn weights, float32. The whole decodes what the whole
encoded, and so does the tiled one.
"""

from __future__ import annotations

import math

import torch

from tests.narrow import native
from vaeport.media import to_model
from vaeport.media.samples import clip
from vaeport.registry import ModelRegistry
from vaeport.runtime.tiling import tiled
from vaeport.vae import VAE

CASES = (
    ("kl", "diffusers", (1, 640, 640)),
    ("wan", "diffusers", (5, 320, 320)),
    ("wan2_2", "diffusers", (5, 640, 640)),
    ("hunyuan_video", "official-spatial", (5, 320, 320)),
    ("hunyuan_video", "official-framewise", (81, 64, 64)),
    ("hunyuan_video", "diffusers-framewise", (33, 64, 64)),
    ("ltx", "diffusers-spatial", (9, 576, 576)),
    ("ltx", "diffusers-framewise", (33, 64, 64)),
    ("ltx2", "official-spatial", (9, 832, 832)),
    ("ltx2", "official-framewise", (105, 64, 64)),
    ("ltx2", "diffusers-spatial", (9, 576, 576)),
    ("ltx2", "diffusers-framewise", (33, 64, 64)),
)


def model(name: str) -> VAE:
    """A narrow model in float32; AutoencoderKL with the tile of 512 pixels that SD 1 has."""
    double = native(name)
    arch = double.arch.replace(sample_size=512) if name == "kl" else double.arch
    vae = type(double)(arch)
    vae.load_state_dict(double.state_dict())
    return vae.float().eval().requires_grad_(False)


def measured(name: str, tiling: str, shape: tuple[int, int, int]) -> tuple[float, float, float]:
    """Relative rms of the latents' error; largest error of the decoded over its range; PSNR in dB, peak the range."""
    whole = model(name)
    ours = tiled(whole, tiling)
    x = to_model(torch.stack(list(clip(*shape))))[None]
    x = x[:, :, 0] if whole.contract.modality == "image" else x
    z, other = (vae.encode(x).latent_dist.mode() for vae in (whole, ours))
    y, close = (vae.decode(z).sample for vae in (whole, ours))
    peak = float(y.max() - y.min())
    error = (y - close).double()
    psnr = 10 * math.log10(peak**2 / float(error.square().mean()))
    return float((z - other).norm() / z.norm()), float(error.abs().max()) / peak, psnr


def main() -> None:
    """Print the table."""
    print("| model | tiling | frames, height, width | latents: relative rms | decoded: largest / range | PSNR |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, tiling, shape in CASES:
        latents, largest, psnr = measured(name, tiling, shape)
        registered = ModelRegistry.find_class(type(native(name))).name
        sizes = " x ".join(map(str, shape))
        print(f"| {registered} | `{tiling}` | {sizes} | {latents:.1e} | {largest:.1e} | {psnr:.1f} dB |", flush=True)


if __name__ == "__main__":
    main()
