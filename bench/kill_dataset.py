"""Data sets that are disturbed: a process is killed, one hangs, the disk is full; then the same command goes on.

    python -m bench.kill_dataset [--rounds 100] [--faults worker,driver,hang,reader,disk] [--seed 0] [--json-out FILE]

Every round runs `vaeport dataset` on the same pictures, one of them broken, with the VAE of the package, in an order of
layouts and engines; at a random moment a fault strikes. Then the command is repeated until it ends well. A round passes
if the files are, byte for byte, those of an undisturbed run, `--verify` finds no fault, and every id is there once. The
last line is one JSON object; exit code 1 if a round fails. A traceback fails it, too.

    worker      SIGKILL for a process below the driver: a worker, a reader, the server that forks them
    driver      SIGKILL for the driver
    hang        SIGSTOP for a process below the driver; if that stops all, as a hanging fork server does, a kill follows
    reader      SIGSTOP for a process that reads: it is to be replaced, and the run to go on by itself
    disk        the folder is a file system without room (tmpfs, as root), or files may not grow (RLIMIT_FSIZE)
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vaeport.dataset import verify
from vaeport.dataset.log import committed
from vaeport.media import write_image
from vaeport.runtime.load import DEFAULT

FAULTS = ("worker", "driver", "hang", "reader", "disk")
LAYOUTS = ("parquet", "webdataset", "safetensors")
PICTURES, SHARD, PATIENCE = 24, 3, 4
LIMIT = 60
"""seconds that a run may take"""


@dataclass(frozen=True)
class Round:
    """What is done to one run."""

    fault: str
    layout: str
    workers: int
    moment: float


def source(folder: Path) -> Path:
    """Small pictures of four sizes, the last of them broken."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    for n in range(PICTURES):
        size = ((16, 24), (24, 16), (32, 32), (17, 23))[n % 4]
        write_image(folder / f"{n:02d}.png", torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=generator))
    (folder / f"{PICTURES - 1:02d}.png").write_bytes(b"\x89PNG\r\n\x1a\n no more")
    return folder


def command(pictures: Path, out: Path, layout: str, workers: int) -> list[str]:
    """The command line of a run."""
    options = ["--vae", str(DEFAULT), "--dtype", "float32", "--as", layout, "--shard-items", str(SHARD)]
    options += ["--workers", str(workers), "--readers", "1", "--timeout", str(PATIENCE), "--json"]
    return [sys.executable, "-m", "vaeport.cli", "dataset", str(pictures), "-o", str(out), *options]


def started(args: list[str], most: int | None = None) -> subprocess.Popen[str]:
    """The run, in a session of its own; no file may grow beyond `most` bytes."""

    def limited() -> None:
        if most is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(args, start_new_session=True, env=environment, preexec_fn=limited, **pipes)


def below(pid: int, depth: int = 99) -> list[int]:
    """All processes that descend from one, down to a depth, the nearest first."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            children.setdefault(int(stat.read_text().rpartition(")")[2].split()[1]), []).append(int(stat.parent.name))
    found, rest = list[int](), [pid]
    for _ in range(depth):
        rest = [child for parent in rest for child in children.get(parent, [])]
        found += rest
    return found


def reading(run: subprocess.Popen[str], workers: int) -> list[int]:
    """Processes that read: the server of one that encodes forks them off, and the driver's server the latter."""
    found = [run.pid]
    for _ in range(2 if workers == 1 else 4):
        found = [pid for parent in found for pid in below(parent, 1)]
    return found


def strike(one: Round, run: subprocess.Popen[str], draw: random.Random) -> str:
    """The fault; says what was hit."""
    fault = one.fault
    if fault == "driver":
        run.kill()
        return "driver"
    processes = below(run.pid)
    while fault == "reader" and not (processes := reading(run, one.workers)) and run.poll() is None:
        time.sleep(0.005)
    if not processes:
        return "nothing: no such process below the driver"
    pid = draw.choice(processes)
    with suppress(OSError):
        os.kill(pid, signal.SIGKILL if fault == "worker" else signal.SIGSTOP)
    return f"process {processes.index(pid)} of {len(processes)}"


def end(run: subprocess.Popen[str], pids: Sequence[int]) -> int | str | None:
    """Its exit code, None if it had to be killed, or the last lines of a traceback; nothing of it is left."""
    try:
        _, said = run.communicate(timeout=LIMIT)
        code: int | str | None = said[-800:] if "Traceback" in said else run.returncode
    except subprocess.TimeoutExpired:
        code = None
    for pid in {run.pid, *pids, *below(run.pid)}:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    run.communicate()
    return code


@contextmanager
def small_disk(folder: Path, kib: int) -> Iterator[bool]:
    """The folder as a file system of so little room, if this user may mount one."""
    folder.mkdir()
    made = os.geteuid() == 0 and _ran("mount", "-t", "tmpfs", "-o", f"size={kib}k", "none", str(folder))
    try:
        yield made
    finally:
        if made:
            _ran("umount", "-l", str(folder))


def _ran(*args: str) -> bool:
    return subprocess.run(args, capture_output=True, check=False).returncode == 0


def contents(folder: Path) -> dict[str, bytes]:
    """All files of latents, and the quarantine."""
    paths = [p for name in ("data", "latents") for p in (folder / name).rglob("*") if p.is_file()]
    paths += [folder / "quarantine.jsonl"] if (folder / "quarantine.jsonl").exists() else []
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in paths}


def undisturbed(args: list[str], out: Path) -> float:
    """Seconds from the manifest to the end of a run; SystemExit if it does not end well."""
    run = started(args)
    _wait_for_manifest(run, out)
    begin = time.monotonic()
    code = end(run, ())
    if code != 1 or verify(out).faults:
        raise SystemExit(f"an undisturbed run failed: exit code {code}")
    return time.monotonic() - begin


def _wait_for_manifest(run: subprocess.Popen[str], out: Path) -> None:
    while not (out / "manifest.json").exists() and run.poll() is None:
        time.sleep(0.01)


def disturbed(one: Round, pictures: Path, out: Path, draw: random.Random, span: float) -> dict[str, Any]:
    """A run with its fault, within `span` seconds of the manifest, and what repeats of the command make of it."""
    args = command(pictures, out, one.layout, one.workers)
    full = one.fault == "disk"
    room = round(4 + one.moment * 40)
    with small_disk(out, room) if full else nullcontext() as mounted:
        begin = time.monotonic()
        run = started(args, None if mounted or not full else 1000 * room)
        hit = "disk"
        if not full:
            _wait_for_manifest(run, out)
            time.sleep(one.moment * 0.8 * span)  # runs differ by that much
            hit = "nothing: it had ended" if run.poll() is not None else strike(one, run, draw)
        first = end(run, below(run.pid))
        before = len(committed(out)) if out.exists() else 0
        if mounted:
            _ran("mount", "-o", "remount,size=64m", str(out))
        runs = 0
        code: int | str | None = first
        while code != 1 and runs < 4:  # 1: all is done, and the broken picture is quarantined
            run, runs = started(args), runs + 1
            code = end(run, ())
        faults = list(verify(out).faults)
        told = {"hit": hit, "first": first, "committed": before, "runs": runs, "last": code, "faults": faults}
        return told | {"contents": contents(out), "seconds": round(time.monotonic() - begin, 1)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the rounds; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.kill_dataset", description="data sets that are disturbed")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--faults", default=",".join(FAULTS), help="in this order, again and again")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json-out", type=Path, metavar="FILE", help="also write the JSON object to FILE")
    options = parser.parse_args(arguments)
    faults = options.faults.split(",")
    if unknown := set(faults) - set(FAULTS):
        parser.error(f"no such fault: {', '.join(sorted(unknown))}")
    draw = random.Random(options.seed)
    hits: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    failures: list[dict[str, Any]] = []
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="vaeport-kill-") as temporary:
        place = Path(temporary)
        pictures = source(place / "src")
        whole: dict[str, dict[str, bytes]] = {}
        span = 0.0
        for layout in LAYOUTS:
            span = undisturbed(command(pictures, place / layout, layout, 1), place / layout)
            whole[layout] = contents(place / layout)
        for n in range(options.rounds):
            one = Round(faults[n % len(faults)], LAYOUTS[n % 3], 1 + n // len(faults) % 2, draw.random())
            told = disturbed(one, pictures, place / "out", draw, span)
            shutil.rmtree(place / "out")
            same = told.pop("contents") == whole[one.layout]
            passed = told["last"] == 1 and same and not told["faults"] and not isinstance(told["first"], str)
            hits[one.fault if not told["hit"].startswith("nothing") else "none"] += 1
            ends["went on by itself" if told["runs"] == 0 else f"repeated {told['runs']} times"] += 1
            line = {"round": n, "fault": one.fault, "layout": one.layout, "workers": one.workers, "same": same} | told
            print(json.dumps(line), file=sys.stderr, flush=True)
            if not passed:
                failures.append(line)
    found = {"bench": "kill_dataset", "rounds": options.rounds, "seed": options.seed, "struck": dict(hits)}
    found |= {"ended": dict(ends), "failures": failures, "seconds": round(time.monotonic() - begin)}
    if options.json_out:
        options.json_out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
