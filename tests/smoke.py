"""Is an installed vaeport whole? Run by `make package` in an empty environment, outside the sources.

    python tests/smoke.py [--extras]

Without `--extras` none may be installed: the core has to work alone, and what needs an extra has to name it.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

import vaeport

EXTRAS = ("av", "PIL", "soundfile", "pyarrow", "ray", "diffusers", "skimage", "matplotlib")


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`vaeport ARGUMENTS` as it is installed."""
    program = Path(sys.executable).with_name("vaeport")
    return subprocess.run([program, *arguments], cwd=cwd, capture_output=True, text=True, check=False)


def main() -> None:
    """Raises where something is missing."""
    place = Path(vaeport.__file__).parent
    assert "site-packages" in place.parts, f"not the installed package: {place}"
    for name in ("py.typed", "kernels/hopper_conv.cu", "skills/port-vae/SKILL.md", "media/samples/guitar.flac"):
        assert (place / name).is_file(), name
    vae = vaeport.load()
    x = torch.rand(1, 3, 5, 32, 48) * 2 - 1
    with torch.no_grad():
        z = vae.encode(x).latent_dist.mode()
        assert z.shape == (1, 16, 2, 4, 6)
        streamed = torch.cat(list(vae.stream_decode(z.split(1, 2))), 2)
        torch.testing.assert_close(vae.decode(z).sample, streamed, rtol=0, atol=1e-5)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        vae.save(folder / "vae")
        again = vaeport.load(folder / "vae")
        assert again.weights_hash() == vae.weights_hash()
        assert "autoencoder_kl" in command("models", cwd=folder).stdout
        assert '"wan"' in command("inspect", str(folder / "vae"), "--json", cwd=folder).stdout
        if "--extras" in sys.argv:
            from vaeport.media import write_image

            write_image(folder / "photo.png", torch.full((33, 47, 3), 128, dtype=torch.uint8))
            done = command("encode", "photo.png", "--check", cwd=folder)
            assert done.returncode == 0, done.stderr
            assert command("decode", "photo.safetensors", cwd=folder).returncode == 0
        else:
            here = [name for name in EXTRAS if importlib.util.find_spec(name)]
            assert not here, f"not an empty environment: {here}"
            (folder / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n")
            done = command("encode", "photo.png", cwd=folder)
            assert (done.returncode, "pip install 'vaeport[video]'" in done.stderr) == (3, True), done.stderr
    print(f"vaeport {vaeport.__version__} on Python {sys.version.split()[0]}, torch {torch.__version__}: whole")


if __name__ == "__main__":
    main()
