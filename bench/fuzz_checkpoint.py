"""Fuzz the checkpoint reader: seeded mutations of real files, each opened, listed, and read to the last byte.

A case may succeed or end in a VaeportError with a short printable message. Any other exception, a hang, a crash, code
that ran, more than 64 MB of memory, or values other than those that safetensors' and torch's whole-file loaders read
is a failure and is reported with its seed; `--only SEED` repeats that case.

    python bench/fuzz_checkpoint.py [--count 2000] [--seed 0] [--workers 2] [--only SEED]

The last line of stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import pickle
import random
import resource
import shutil
import struct
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from io import BytesIO
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from vaeport.checkpoint import open_checkpoint, save_folder, summarise
from vaeport.errors import VaeportError

SECONDS_PER_CASE = 30
ADDRESS_SPACE = 2 << 30  # beyond what torch itself has mapped
MEMORY = 64 << 20
CANARY = Path(tempfile.gettempdir()) / f"vaeport-fuzz-code-ran-{os.getuid()}"
INDEX = "diffusion_pytorch_model.safetensors.index.json"

Rng = random.Random


@dataclass(frozen=True)
class Outcome:
    """How one case ended; `failure` says why it must not end so."""

    seed: int
    kind: str
    detail: str = ""
    failure: bool = False


class _Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(CANARY),)


# --- real files ---------------------------------------------------------------------------------------------------


def build_originals(root: Path) -> dict[str, Path]:
    """Write one real checkpoint of each layout below `root`: path to open by layout."""
    torch.manual_seed(0)
    shapes = {f"decoder.up.{i}.conv{j}.weight": (8, 8, 3, 3) for i in range(3) for j in (1, 2)}
    shapes |= {"decoder.up.0.conv1.bias": (8,), "quant_conv.weight": (4, 4, 1, 1), "scale": (), "empty": (0, 3)}
    tensors = {name: torch.randn(shape) for name, shape in shapes.items()}
    tensors["half"] = torch.randn(16, 5).half()
    tensors["transposed"] = torch.randn(6, 7).t()
    tensors["steps"] = torch.arange(9)
    config = {"_class_name": "AutoencoderKL"}
    save_folder(root / "single", tensors, config)
    save_folder(root / "sharded", tensors, config, max_shard_size=6000)
    for kind in ("zip", "legacy", "code", "legacy_code"):
        value: dict[str, Any] = {"state_dict": tensors, "epoch": 3}
        if "code" in kind:
            value["callback"] = _Hostile()
        (root / kind).mkdir()
        torch.save(value, root / kind / "model.pt", _use_new_zipfile_serialization="legacy" not in kind)
    (root / "plain_code").mkdir()
    (root / "plain_code" / "model.pt").write_bytes(pickle.dumps({"callback": _Hostile()}, protocol=4))
    weights = root / "single" / "diffusion_pytorch_model.safetensors"
    pickles = {kind: root / kind / "model.pt" for kind in ("zip", "legacy", "code", "legacy_code", "plain_code")}
    return {"single": weights, "sharded": root / "sharded", **pickles}


# --- mutations of bytes -------------------------------------------------------------------------------------------


def flip_bits(data: bytes, rng: Rng) -> bytes:
    changed = bytearray(data)
    reach = len(data) if rng.random() < 0.5 else min(len(data), 2000)  # headers and pickles lie at the start
    for _ in range(rng.choice((1, 1, 2, 8, 64)) if reach else 0):
        changed[rng.randrange(reach)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncate(data: bytes, rng: Rng) -> bytes:
    return data[: rng.choice((0, 1, 7, 8, 9, rng.randrange(len(data) + 1), max(len(data) - rng.randrange(200), 0)))]


def splice(data: bytes, rng: Rng) -> bytes:
    at, length = rng.randrange(len(data) + 1), rng.randrange(64)
    middle = rng.choice((b"", rng.randbytes(length), data[:length], b"\xff" * length))
    return data[:at] + middle + data[at + rng.choice((0, length)) :]


def integers(data: bytes, rng: Rng) -> bytes:
    """Overwrite four or eight bytes by an integer that a size or offset should not be."""
    at = rng.randrange(max(len(data) - 8, 1))
    packed = rng.choice((struct.pack("<q", rng.choice((-1, 2**62, 2**40, 2**31))), b"\xff" * 4, b"\0" * 4))
    return data[:at] + packed + data[at + len(packed) :]


BYTES: tuple[Callable[[bytes, Rng], bytes], ...] = (flip_bits, truncate, splice, integers)

# --- mutations of structure ---------------------------------------------------------------------------------------

SIZES = (-1, 0, 1, 3, 2**31, 2**40, 2**62, 2**63, 2**64, 10**400, 1.5, True, None, "8", [8], {})
SHAPES = ([], [2**40], [2**62, 4], [0, 2**62, 2**62], [-8], [1] * 70, [2] * 5000, [8.0], [True], "8", None, {}, [[8]])
DTYPES = ("F32", "F16", "BF16", "I64", "BOOL", "F4", "F8_E4M3", "f32", "", "X" * 10**5, None, 32, ["F32"])
NAMES = ("", ".", "a" * 10**5, "a." * 10**4, "\ud800", "\x1b[2J", "a\nb", "__metadata__", "0.0.0", "é" * 50, "../x")
TEXTS = ("", "[]", "null", "{", "[" * 10**5, '{"a":' * 10**4, '{"a":NaN}', "\ufeff{}", '{"a":1}x', "1" * 5000, "{}")


def mutate_header(data: bytes, rng: Rng) -> bytes:
    """Change a safetensors file in a way that keeps the rest of it consistent."""
    (length,) = struct.unpack("<Q", data[:8])
    raw, body = data[8 : 8 + length], data[8 + length :]
    what = rng.choice(("length", "text", "repeat", "entry", "entry", "entry", "entry", "metadata", "body"))
    if what == "length":
        value = rng.choice((0, 1, 2, len(data), len(data) - 8, 10**8, 2**63, 2**64 - 1, length + rng.randint(-9, 9)))
        return struct.pack("<Q", value) + data[8:]
    if what == "body":
        return data + rng.randbytes(rng.randrange(1, 40))
    if what == "text":
        raw = rng.choice(TEXTS).encode("utf-8", "surrogatepass")
    elif what == "repeat":
        end = raw.rindex(b"}")
        raw = raw[:end] + b"," + raw[1:end] + b"}"
    else:
        table = json.loads(raw)
        names = [name for name in table if name != "__metadata__"]
        name = rng.choice(names)
        if what == "metadata":
            table["__metadata__"] = rng.choice(
                (None, [], {"a": 1}, {"a": None}, "x", {"a": "b" * 10**5}, {"\ud800": ""})
            )
        else:
            mutate_entry(table, name, rng.choice(names), rng)
        raw = json.dumps(table).encode()
    raw += b" " * rng.choice((0, 0, -len(raw) % 8, 1))
    return struct.pack("<Q", len(raw)) + raw + body


def mutate_entry(table: dict[str, Any], name: str, other: str, rng: Rng) -> None:
    entry, move = table[name], rng.randint(-16, 16)
    begin, end = entry["data_offsets"]
    match rng.randrange(9):
        case 0:
            entry["shape"] = rng.choice(SHAPES)
        case 1:
            entry["dtype"] = rng.choice(DTYPES)
        case 2:
            entry["data_offsets"] = rng.choice(([begin + move, end + move], [end, begin], [begin], [begin, end + move]))
        case 3:
            entry["data_offsets"] = [rng.choice(SIZES), rng.choice((end, rng.choice(SIZES)))]
        case 4:
            entry.pop(rng.choice(("dtype", "shape", "data_offsets")))
        case 5:
            table[rng.choice(NAMES)] = table.pop(name)
        case 6:
            table[name] = rng.choice((None, [], 3, "x", dict(table[other])))
        case 7:
            entry["shape"] = [rng.choice(SIZES) for _ in range(rng.randrange(4))]
        case _:
            entry["extra"] = rng.choice((None, 1, {}, [[]]))


def mutate_index(folder: Path, rng: Rng) -> None:
    index = folder / INDEX
    shards = sorted(path for path in folder.glob("*.safetensors") if not path.is_symlink())
    table = json.loads(index.read_text())
    weights = table["weight_map"]
    name, shard = rng.choice(sorted(weights)), rng.choice(shards)
    outside = ("../x.safetensors", "/etc/passwd", "a/../../x.safetensors", "C:\\x", "..\\x", "", ".", "\0", "x" * 5000)
    match rng.randrange(10):
        case 0:
            weights[name] = rng.choice((*outside, INDEX, "config.json", None, 3, [], "missing.safetensors"))
        case 1:
            weights[rng.choice(NAMES)] = shard.name
        case 2:
            weights[name] = shard.name
        case 3:
            shard.unlink()
        case 4:
            (folder / rng.choice(shards).name).write_bytes(shard.read_bytes())
        case 5:
            table["weight_map"] = rng.choice((None, [], {}, 3, "x", {name: {}}))
        case 6:
            table["metadata"] = rng.choice((None, [], {"a": {"b": 1}}, {"a": 10**400}, "x"))
        case 7:
            link = folder / "link.safetensors"
            link.symlink_to(rng.choice(("/etc/hostname", "link.safetensors", str(shard.resolve()), "..", "/dev/zero")))
            weights[name] = link.name
        case 8:
            weights.pop(name)
        case _:
            index.write_bytes(rng.choice(TEXTS).encode("utf-8", "surrogatepass"))
            return
    index.write_text(json.dumps(table))


def mutate_zip(data: bytes, rng: Rng) -> bytes:
    """Repack a torch zip with one record dropped, doubled, renamed, compressed, or changed inside."""
    with zipfile.ZipFile(BytesIO(data)) as archive:
        records = [(info.filename, archive.read(info)) for info in archive.infolist()]
    target = rng.randrange(len(records)) if rng.random() < 0.5 else 0  # the first record is the pickle
    name, content = records[target]
    match rng.randrange(6):
        case 0:
            del records[target]
        case 1:
            records.append((name, rng.choice((content, b""))))
        case 2:
            records[target] = (rng.choice(("x", "archive/constants.pkl", "../x", name + "x", "a/" * 999)), content)
        case 3:
            records[target] = (name, content + b"\0" * rng.randrange(1, 64))
        case _:
            records[target] = (name, rng.choice(BYTES)(content, rng))
    out = BytesIO()
    with zipfile.ZipFile(out, "w", rng.choice((zipfile.ZIP_STORED,) * 4 + (zipfile.ZIP_DEFLATED,))) as archive:
        for record, value in records:
            archive.writestr(record, value)
    return out.getvalue()


def mutate(kind: str, path: Path, rng: Rng) -> None:
    """Damage the copy of an original in place, once to three times."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if kind == "sharded" and rng.random() < 0.7:
            try:
                mutate_index(path, rng)
            except Exception:  # the mutation before left no index to edit
                return
            continue
        file = rng.choice(sorted(path.glob("diffusion_*"))) if path.is_dir() else path
        data = file.read_bytes()
        structured = {"single": mutate_header, "sharded": mutate_header, "zip": mutate_zip, "code": mutate_zip}
        change = structured.get(kind) if rng.random() < 0.6 else None
        try:
            file.write_bytes((change or rng.choice(BYTES))(data, rng))
        except Exception:  # the mutation before left it too damaged to be changed by structure
            file.write_bytes(flip_bits(data, rng))


# --- one case -----------------------------------------------------------------------------------------------------


def run_case(seed: int, originals: dict[str, Path], scratch: Path) -> Outcome:
    rng = random.Random(seed)
    kind = rng.choice(("single", "sharded", "zip") * 2 + ("legacy", "code", "legacy_code", "plain_code"))
    shutil.rmtree(scratch, ignore_errors=True)
    source = originals[kind]
    folder = source if source.is_dir() else source.parent
    shutil.copytree(folder, scratch)
    path = scratch if source.is_dir() else scratch / source.name
    mutate(kind, path, rng)
    reset_peak()
    before = peak_bytes()
    outcome = read_all(seed, path)
    if CANARY.exists():
        CANARY.rmdir()
        return Outcome(seed, "code ran", str(path), failure=True)
    grown = peak_bytes() - before
    if grown > MEMORY and not outcome.failure:
        return Outcome(seed, "memory", f"{grown >> 20} MB in {kind}", failure=True)
    return outcome


def read_all(seed: int, path: Path) -> Outcome:
    try:
        with open_checkpoint(path) as checkpoint:
            inventory = summarise(checkpoint)
            text = "\n".join((*inventory.lines(), *inventory.lines(2), json.dumps(inventory.to_json())))
            text.encode()
            tensors = {name: checkpoint.tensor(name).clone() for name in checkpoint.entries}
            different = disagreement(tensors, checkpoint.files)
        return Outcome(seed, "wrong values", different, failure=True) if different else Outcome(seed, "success")
    except VaeportError as error:
        message = str(error)
        if len(message) > 4000 or not message.replace("\n", "").isprintable():
            return Outcome(seed, "unreadable message", repr(message[:300]), failure=True)
        return Outcome(seed, type(error).__name__)
    except BaseException as error:
        return Outcome(seed, f"uncaught {type(error).__name__}", str(error)[:300], failure=True)


def disagreement(tensors: dict[str, torch.Tensor], files: tuple[Path, ...]) -> str:
    """Where the libraries' own whole-file loaders refuse a file that was accepted, or read other values from it."""
    expected: dict[str, torch.Tensor] = {}
    for file in files:
        try:
            if file.suffix == ".safetensors":
                expected |= load_file(file)
            else:
                loaded = torch.load(file, map_location="cpu", weights_only=True, mmap=False)
                expected |= loaded.get("state_dict", loaded)
        except Exception as error:
            if "expected size (0 bytes" in str(error):
                return ""  # a storage said to be empty, which only a tensor without values gets through with
            return f"{type(error).__name__} from the library: {str(error)[:200]}"
    for name, tensor in tensors.items():
        if contents(tensor) != contents(expected[name]):
            return f"{name} differs"
    return ""


def contents(tensor: torch.Tensor) -> tuple[torch.Size, torch.dtype, bytes]:
    return tensor.shape, tensor.dtype, tensor.contiguous().reshape(-1).view(torch.uint8).numpy(force=True).tobytes()


def reset_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # without it the peak is that of the whole worker, which still shows one large case
        return


def peak_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) << 10


# --- workers ------------------------------------------------------------------------------------------------------


def work(pipe: Connection, originals: dict[str, Path], scratch: Path) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # zipfile warns of the doubled records that are made on purpose
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESS_SPACE, used + ADDRESS_SPACE))
    while (seed := pipe.recv()) is not None:
        pipe.send(run_case(seed, originals, scratch))


class Worker:
    """A process that runs cases one by one; it is replaced when a case kills it or takes too long."""

    def __init__(self, originals: dict[str, Path], scratch: Path) -> None:
        self.originals, self.scratch, self.seed, self.deadline = originals, scratch, -1, 0.0
        self.start()

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, self.originals, self.scratch), daemon=True)
        self.process.start()
        theirs.close()

    def give(self, seed: int) -> None:
        self.seed, self.deadline = seed, time.monotonic() + SECONDS_PER_CASE
        self.pipe.send(seed)

    def take(self) -> Outcome:
        """The outcome of the case that was given; call it when the pipe is ready or the deadline has passed."""
        try:
            if self.pipe.poll():
                return self.pipe.recv()
            kind, detail = "hang", f"more than {SECONDS_PER_CASE} s"
        except EOFError:
            self.process.join()
            kind, detail = "crash", f"exit code {self.process.exitcode}"
        self.process.kill()
        self.process.join()
        self.start()
        return Outcome(self.seed, kind, detail, failure=True)

    def stop(self) -> None:
        self.pipe.send(None)
        self.process.join()


def fuzz(seeds: list[int], workers: int, root: Path) -> list[Outcome]:
    originals = build_originals(root / "originals")
    pool = [Worker(originals, root / f"case-{number}") for number in range(min(workers, len(seeds)))]
    waiting, outcomes, idle = list(reversed(seeds)), [], list(pool)
    while waiting or len(idle) < len(pool):
        while idle and waiting:
            idle.pop().give(waiting.pop())
        busy = [worker for worker in pool if worker not in idle]
        ready = wait([worker.pipe for worker in busy], timeout=1)
        for worker in busy:
            if worker.pipe in ready or time.monotonic() > worker.deadline:
                outcomes.append(worker.take())
                idle.append(worker)
                if len(outcomes) % 200 == 0:
                    print(f"{len(outcomes)} of {len(seeds)}", file=sys.stderr)
    for worker in pool:
        worker.stop()
    return sorted(outcomes, key=lambda outcome: outcome.seed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0, help="cases are seeded SEED * 1,000,000 + 0, 1, 2, ...")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", type=int, help="run the case of this seed alone")
    arguments = parser.parse_args()
    seeds = [arguments.seed * 1_000_000 + number for number in range(arguments.count)]
    seeds = seeds if arguments.only is None else [arguments.only]
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as root:
        outcomes = fuzz(seeds, arguments.workers, Path(root))
    failures = [asdict(outcome) for outcome in outcomes if outcome.failure]
    counts = dict(sorted(Counter(outcome.kind for outcome in outcomes).items()))
    for failure in failures:
        print(f"seed {failure['seed']}: {failure['kind']}: {failure['detail']}")
    report = {"files": len(outcomes), "outcomes": counts, "failures": failures}
    print(json.dumps({**report, "torch": torch.__version__, "seconds": round(time.monotonic() - started, 1)}))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
