"""What the default VAE makes of photos and clips that it was not trained on, as the table of docs/default.md.

    python -m training.evaluate --photos .probe/photos.safetensors [--vae FOLDER] [--pictures FOLDER]

Photos are taken whole, clips are 17 frames of 256 x 256 that pan over them, 3 pixels a frame. PSNR is that of pixels in
bytes, of the posterior's mode, in float32 on the CPU.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

import vaeport
from training.scenes import read_photos
from vaeport.media import write_image
from vaeport.vae import VAE

FRAMES, SIZE, STEP = 17, 256, 3


def pan(photo: Tensor) -> Tensor:
    """uint8 [3, FRAMES, SIZE, SIZE]: the camera moves to the right and a little down."""
    top, left = (photo.shape[1] - SIZE - FRAMES) // 2, (photo.shape[2] - SIZE - FRAMES * STEP) // 2
    corners = [(top + t, left + t * STEP) for t in range(FRAMES)]
    return torch.stack([photo[:, y : y + SIZE, x : x + SIZE] for y, x in corners], 1)


@torch.no_grad()
def seen(vae: VAE, video: Tensor) -> tuple[Tensor, int]:
    """uint8 [3, T, H, W] through the VAE and back, and how many numbers its latent has."""
    z = vae.encode(video[None] / 127.5 - 1).latent_dist.mode()
    return ((vae.decode(z).sample[0] + 1) * 127.5).round().clamp(0, 255).byte(), z.numel()


def psnr(a: Tensor, b: Tensor) -> float:
    """dB, of bytes."""
    return float(10 * torch.log10(255**2 / (a.double() - b.double()).square().mean()))


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=Path(".probe/photos.safetensors"))
    parser.add_argument("--vae", type=Path, help="a component folder; otherwise the VAE of the package")
    parser.add_argument("--pictures", type=Path, help="folder for each photo beside what was made of it")
    args = parser.parse_args(argv)
    vae = vaeport.load(args.vae, dtype="float32") if args.vae else vaeport.load()
    print("| not trained on | size | PSNR | numbers, in : latent | bytes, in : latent in half precision |")
    print("| --- | --- | --- | --- | --- |")
    for name, whole in read_photos(args.photos, held_out=True)[0].items():
        photo = whole[:, : whole.shape[1] // 8 * 8, : whole.shape[2] // 8 * 8]  # whole latents
        for kind, video in (("photo", photo[:, None]), ("clip", pan(photo))):
            back, count = seen(vae, video)
            size = " x ".join(str(n) for n in (video.shape[1:] if kind == "clip" else video.shape[2:]))
            ratios = f"{video.numel() / count:.0f} : 1 | {video.numel() / count / 2:.0f} : 1"
            print(f"| {name}, {kind} | {size} | {psnr(back, video):.1f} dB | {ratios} |")
            if kind == "photo" and args.pictures:
                args.pictures.mkdir(parents=True, exist_ok=True)
                write_image(args.pictures / f"{name}.png", torch.cat([video[:, 0], back[:, 0]], 2).movedim(0, -1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
