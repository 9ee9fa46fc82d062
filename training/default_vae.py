"""Trains the VAE that comes with the package, on one GPU, from packed photos; see docs/default.md.

    python -m training.default_vae --photos .probe/photos.safetensors --minutes 7.7 --out out/default

Seeded are the first weights and, by its number, the batch and the noise of each step. With --steps on a CPU, the same
number of threads gives the same VAE, and a run that was resumed is the run that it would have been. On a GPU that holds
up to rounding, which training enlarges: cuDNN chooses among its algorithms by their speed, and some add in any order.
With --minutes the clock sets the learning rate and the number of steps, so no two runs are the same.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from training.learner import Learner, architecture, with_statistics
from training.scenes import Scenes, read_photos
from vaeport.models.wan import Wan


@dataclass(frozen=True)
class Bucket:
    """One shape of batch, and how often it comes."""

    frames: int
    batch: int
    size: int
    share: float


BUCKETS = (
    Bucket(1, 64, 160, 0.30),
    Bucket(1, 16, 320, 0.15),
    Bucket(5, 16, 160, 0.20),
    Bucket(9, 10, 160, 0.20),
    Bucket(17, 5, 160, 0.15),
)


def bucket_of(step: int, seed: int) -> Bucket:
    """The shape of a step's batch."""
    return random.Random(f"{seed} {step}").choices(BUCKETS, [b.share for b in BUCKETS])[0]


def generator_of(step: int, seed: int, device: torch.device) -> torch.Generator:
    """Random numbers of one step."""
    return torch.Generator(device).manual_seed(seed * 1_000_003 + step)


def trained(learner: Learner, scenes: Scenes, args: argparse.Namespace) -> bool:
    """Steps until the budget is spent (true) or the pause comes (false); writes the log and checkpoints."""
    progress, start, saved = learner.progress, time.monotonic(), time.monotonic()
    before, last = progress.seconds, learner.progress.step
    with (args.out / "log.jsonl").open("a") as log:
        while True:
            now = time.monotonic()
            progress.seconds = before + now - start
            done = progress.step / args.steps if args.steps else progress.seconds / (60 * args.minutes)
            paused = args.pause and now - start >= 60 * args.pause
            if done >= 1 or paused or now - saved > 120:
                learner.save(args.out / "checkpoint")
                saved = time.monotonic()
                if done >= 1 or paused:
                    return bool(done >= 1)
            bucket = bucket_of(progress.step, args.seed)
            generator = generator_of(progress.step, args.seed, learner.device)
            shape = (max(1, round(bucket.batch * args.batches)), bucket.frames, int(bucket.size * args.pixels) // 8 * 8)
            parts = learner.step(scenes.draw(*shape, generator), done, generator)
            numbers = {name: round(float(part), 5) for name, part in parts.items()}
            spent = time.monotonic() - now
            entry = {
                "step": progress.step,
                "done": round(done, 4),
                "shape": shape,
                "ms": round(1e3 * spent, 1),
                **numbers,
            }
            if progress.step - last >= args.every:
                last = progress.step
                print(json.dumps(entry), file=sys.stderr, flush=True)
            log.write(json.dumps(entry) + "\n")


@torch.no_grad()
def statistics(vae: Wan, scenes: Scenes, seed: int, *, batches: int, size: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each latent channel over stills and clips: [Z] each."""
    found = []
    for i in range(batches):
        video = scenes.draw(4, (1, 9)[i % 2], size, generator_of(-1 - i, seed, scenes.device))
        found.append(vae.encode(video).latent_dist.mode().transpose(0, 1).flatten(1).cpu())
    std, mean = torch.std_mean(torch.cat(found, 1).double(), 1)
    return mean, std


def export(learner: Learner, scenes: Scenes, args: argparse.Namespace) -> Path:
    """Writes the average of the weights as a component folder in half precision."""
    vae = learner.averaged()
    size = max(32, int(160 * args.pixels) // 8 * 8)
    mean, std = statistics(vae, scenes, args.seed, batches=32, size=size)
    folder: Path = args.out / "vae"
    with_statistics(vae.cpu(), mean, std).half().save(folder)
    return folder


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=Path(".probe/photos.safetensors"))
    parser.add_argument("--out", type=Path, required=True, help="gets log.jsonl, checkpoint/ and, in the end, vae/")
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--minutes", type=float, help="of training, over all runs that are resumed")
    budget.add_argument("--steps", type=int, help="the same, as steps")
    parser.add_argument("--pause", type=float, help="minutes after which this run stops, to be resumed")
    parser.add_argument("--resume", type=Path, metavar="CHECKPOINT", help="the folder checkpoint/ of an earlier run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=2e-3, help="peak of the learning rate")
    parser.add_argument("--base", type=int, default=16, help="encoder's width at full resolution")
    parser.add_argument("--decoder-base", type=int, default=32)
    parser.add_argument("--dim-mult", type=int, nargs="+", default=[1, 1, 2, 2])
    parser.add_argument("--channels", type=int, default=16, help="of the latents")
    parser.add_argument("--fused", action="store_true", help="compile norms with torch.compile")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--pixels", type=float, default=1.0, help="scale of the sizes of crops")
    parser.add_argument("--batches", type=float, default=1.0, help="scale of the sizes of batches")
    parser.add_argument("--every", type=int, default=100, help="steps from one printed line to the next")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """See the module; 0 when the training is over, 3 when it paused."""
    args = parse(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    device = torch.device(args.device)
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    photos, weights = read_photos(args.photos)
    scenes = Scenes(list(photos.values()), weights, device)
    arch = architecture(args.base, args.decoder_base, tuple(args.dim_mult), args.channels)
    learner = Learner(arch, device, seed=args.seed, fused=args.fused, peak=args.rate)
    if args.resume:
        learner.resume(args.resume)
    count = sum(w.numel() for w in learner.weights.values())
    print(f"{count:,} parameters, from step {learner.progress.step}, {learner.progress.seconds:.0f} s", file=sys.stderr)
    over = trained(learner, scenes, args)
    at = f"step {learner.progress.step}, {learner.progress.seconds:.0f} s"
    if not over:
        print(f"paused at {at}; go on with --resume {args.out / 'checkpoint'}", file=sys.stderr)
        return 3
    print(f"{export(learner, scenes, args)}: trained, {at}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
