"""`vaeport demo`: the main job on real files, with the VAE of the package and three architectures, and one port."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vaeport.cli.output import Show, with_output
from vaeport.errors import InputError

if TYPE_CHECKING:
    from vaeport.vae import VAE

# native name, published configuration, official layout, its prefix and its file's name, reference
SHOWN = (
    ("autoencoder_kl", "flux1", "ldm", "", "ae.safetensors", "diffusers:AutoencoderKL"),
    ("wan", "wan2.1", "wan-official", "", "Wan2.1_VAE.pth", "diffusers:AutoencoderKLWan"),
    (
        "oobleck",
        "stable-audio-open-1.0",
        "stable-audio-tools",
        "pretransform.model.",
        "model.safetensors",
        "diffusers:AutoencoderOobleck",
    ),
)


@with_output
def command(
    show: Show,
    folder: Annotated[Path | None, typer.Option(help="Keep inputs, latents and outputs in this new folder.")] = None,
) -> None:
    """Real pictures through the VAE of the package; then official layouts (seeded weights): run, streamed, proved."""
    from vaeport.cli.common import say

    with tempfile.TemporaryDirectory(prefix="vaeport-demo-") as temporary:
        place = folder or Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        if any(place.iterdir()):
            what = "the demo writes files under official names, and the folder holds some already"
            raise InputError(what, where=place, expected="a new or empty folder", fix="name another one")
        say("the VAE that comes with the package: a photo and a clip, there and back")
        pictures = _pictures(place)
        rows = []
        for model, variant, layout, prefix, name, reference in SHOWN:
            say(f"{model} {variant}: writing {name} with seeded weights, loading it, running it, proving it")
            rows.append(_shown(place, model, variant, layout, prefix, name, reference))
        say("porting diffusers:AutoencoderKL with a checkpoint, as if nobody knew it")
        port = _ported(place / "port", say)
    told = {"pictures": pictures, "models": rows, "port": port}
    show(told, [*_picture_lines(pictures), *_table(rows), *(f"  {name:<10} {text}" for name, text in port.items())])
    passed = all(row["verdict"] == "PASS" for row in rows) and port["parity"].startswith("non_skip_pass")
    passed = passed and all(row["complete"] for row in pictures)
    raise typer.Exit(0 if passed else 1)


def _pictures(place: Path) -> list[dict[str, Any]]:
    """A photo and a clip through the VAE of the package, whose weights are trained: what comes back can be seen."""
    from vaeport.runtime.files import compare_files, decode_file, encode_file
    from vaeport.runtime.load import load

    vae = load()
    rows = []
    for modality in ("image", "video"):
        source, target = _media(place, modality)
        latents = place / f"{source.stem}.safetensors"
        target = target.with_stem(f"{source.stem}-default")
        shape = encode_file(vae, source, latents).shape
        decode_file(vae, latents, target)
        found = compare_files(vae, source, latents)
        trip = f"{source.name} -> {'x'.join(map(str, shape))} -> {target.name}"
        rows.append({"round trip": trip, "PSNR dB": found["signal_to_noise_db"], "complete": found["complete"]})
    return rows


def _picture_lines(pictures: list[dict[str, Any]]) -> list[str]:
    said = [f"  {row['round trip']:<46} PSNR {row['PSNR dB']} dB" for row in pictures]
    return ["Real pictures through the VAE that comes with the package", *said, ""]


def _ported(root: Path, say: Callable[[str], None]) -> dict[str, str]:
    """A port to its hand-over: no map and no name of a weight is given, only the class, its arguments, a checkpoint."""
    from vaeport.port.request import Request
    from vaeport.port.run import Port
    from vaeport.proof.seeded import write_seeded
    from vaeport.registry import ModelRegistry

    model, variant, *_, reference = SHOWN[0]
    registration = ModelRegistry.find(model)
    arch = registration.model.variants[variant]
    root.mkdir(parents=True, exist_ok=True)
    weights = write_seeded(root / "official.safetensors", registration, arch, registration.layouts[0], "", seed=0)
    arguments = arch.to_published()
    request = Request(reference, "demo", arguments=arguments, weights=str(weights), dtypes=(), root=root)
    state, _ = Port(request, lambda text: say(f"  {text}")).run()
    evidence = json.loads(request.path("map.json").read_text())["evidence"]
    return {
        "reuse": f"{state.reuse.verdict} {state.reuse.native}",
        "map": "; ".join(line for line in evidence if not line.startswith("open by graph")),
        "convert": f"strict load: {state.conversion.strict_load}",
        "parity": f"{state.parity.status}: {state.parity.command}: {state.parity.result}",
        "hand-over": f"{state.readme}, {state.status_file}, {request.home}/component_skill_handoff.yaml",
    }


def _shown(
    place: Path, model: str, variant: str, layout: str, prefix: str, name: str, reference: str
) -> dict[str, Any]:
    import torch

    from vaeport.proof.seeded import write_seeded
    from vaeport.proof.setup import prove
    from vaeport.registry import ModelRegistry
    from vaeport.runtime.files import decode_file, encode_file
    from vaeport.runtime.load import load

    registration = ModelRegistry.find(model)
    arch = registration.model.variants[variant]
    official = next(one for one in registration.layouts if one.name == layout)
    checkpoint = write_seeded(place / name, registration, arch, official, prefix, seed=0)
    with torch.no_grad():
        vae = load(checkpoint)
        source, target = _media(place, vae.contract.modality)
        encoded = encode_file(vae, source, place / f"{model}.safetensors")
        decoded = decode_file(vae, place / f"{model}.safetensors", target)
        streamed = _streamed(vae)
    del vae
    complete = _size(source) == _size(target)
    verdict = prove(reference=reference, native=model, variant=variant, weights=checkpoint, dtypes=())
    checkpoint.unlink()
    worst = max((row.figure for row in verdict.rows), default=float("nan"))
    return {
        "model": model,
        "official file": name,
        "round trip": f"{source.name} -> {'x'.join(map(str, encoded.shape))} -> {target.name}",
        "size kept": "x".join(map(str, decoded.shape)) if complete else "NO",
        "streamed - whole": streamed,
        "gate S": worst,
        "verdict": "PASS" if bool(verdict) and complete and (streamed is None or streamed <= 1e-5) else "FAIL",
        "failures": [f"{failure.name}: {failure.says}" for failure in verdict.failures],
    }


def _media(place: Path, modality: str) -> tuple[Path, Path]:
    """The demo's input, written to `place`, and where its round trip goes."""
    import shutil

    from vaeport.media import VideoWriter, write_image
    from vaeport.media.samples import clip, photo, recording

    if modality == "image":
        write_image(place / "photo.png", photo()[100:356, 100:350])
        return place / "photo.png", place / "photo-decoded.png"
    if modality == "video":
        with VideoWriter(place / "clip.mp4", rate=16, width=100, height=64) as video:
            for frame in clip(frames=15, height=64, width=100):
                video.write(frame[None])
        return place / "clip.mp4", place / "clip-decoded.mp4"
    shutil.copy(recording(), place / "guitar.flac")
    return place / "guitar.flac", place / "guitar-decoded.wav"


def _size(file: Path) -> tuple[int, ...]:
    """Height and width of an image, and frames of a video; channels and samples of a recording: read from the file."""
    from vaeport.media import AudioReader, VideoReader, read_image

    if file.suffix == ".png":
        return tuple(read_image(file).shape)
    if file.suffix == ".mp4":
        with VideoReader(file) as video:
            return (sum(1 for _ in video), video.height, video.width)
    with AudioReader(file) as audio:
        return audio.channels, audio.frames


def _streamed(vae: VAE) -> float | None:
    """rms difference between decoding whole and in pieces, relative to the output; None for images."""
    import torch

    if vae.contract.modality == "image":
        return None
    decoder = vae.decoder
    assert decoder is not None
    length = {"video": (4, 3, 5), "audio": (13,)}[vae.contract.modality]
    z = torch.randn(1, vae.contract.latent_channels, *length, generator=torch.Generator().manual_seed(0))
    whole = (
        vae.decode(z).sample if vae.decode_pieces is None else decoder(z).clamp(*(vae.contract.clamp or (None, None)))
    )
    pieces = torch.cat(list(vae.stream_decode(z.split([1, *[3] * ((length[0] - 1) // 3)], 2))), 2)
    return float((pieces - whole).double().pow(2).mean().sqrt() / whole.double().pow(2).mean().sqrt())


def _table(rows: list[dict[str, Any]]) -> list[str]:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Official file, round trip of a real file, streaming, and gate S in float64 against Diffusers")
    columns = [name for name in rows[0] if name != "failures"]
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        values = (row[name] for name in columns)
        table.add_row(*(f"{v:.1e}" if isinstance(v, float) else "-" if v is None else str(v) for v in values))
    console = Console(width=None if Console().is_terminal else 140)
    with console.capture() as captured:
        console.print(table)
    failed = [f"{row['model']}: {failure}" for row in rows for failure in row["failures"]]
    return [*captured.get().splitlines(), *failed]
