"""The campaign: faults are drawn by seed, each is judged in a child of its own, and written down as it is finished."""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from bench.drift import mutants, mutation, policy, report, trial, vaes
from bench.drift.clean_convs import VARIANTS
from bench.drift.forking import Emit, Work, asked, in_children
from bench.drift.kinds import KINDS, Site
from bench.drift.mutant_trial import lines_used
from bench.drift.mutant_trial import trial as mutant_trial
from bench.drift.vaes import NAMES, Prepared
from vaeport.vae import VAE

ROOT = Path(__file__).resolve().parents[2] / "src" / "vaeport"
POPULATIONS = ("a", "b", "double", "clean", "policy")
COUNTS = {"a": 500, "b": 500, "double": 140, "clean": 210, "policy": 10**6}
Task = tuple[dict[str, Any], Work]


def prepared_vaes(names: list[str], folder: Path, seed: int, jobs: int) -> list[Prepared]:
    """Each in a child of its own; kept in this process, so that all later children share what the reference did."""

    def work_on(name: str) -> Work:
        def work(emit: Emit) -> None:
            p = vaes.prepare(name, folder, seed)
            found = trial.clean_units(p)
            p.units = found.pop("units")
            emit({"fails": p.verdict, "units": len(p.units), **found})
            torch.save(p, folder / f"{name}.pt")

        return work

    for row in in_children((({"vae": name}, work_on(name)) for name in names), jobs, 900):
        print(row, file=sys.stderr)
        if row.get("fails") != []:
            raise SystemExit(f"{row['vae']}: the clean port does not pass its own proof: {row}")
    return [torch.load(folder / f"{name}.pt", weights_only=False) for name in names]


def share(count: int, prepared: list[Prepared], i: int) -> int:
    """How many of `count` fall to the i-th VAE."""
    return count // len(prepared) + (i < count % len(prepared))


def sites_of(prepared: Prepared) -> list[tuple[str, list[Site]]]:
    """Kinds that can be put into a VAE, with their sites."""
    vae = vaes.opened(prepared.weights)
    return [(name, sites) for name, kind in KINDS.items() if (sites := kind.sites(vae))]


def drawn(prepared: Prepared, count: int, choice: random.Random, every: bool) -> list[tuple[str, Site]]:
    """Kinds in turn and a site of each, none twice; or all sites of all kinds."""
    known = [(name, choice.sample(sites, len(sites))) for name, sites in sites_of(prepared)]
    if every:
        return [(name, site) for name, sites in known for site in sites]
    found: list[tuple[str, Site]] = []
    while len(found) < count and any(sites for _, sites in known):
        choice.shuffle(known)
        found += [(name, sites.pop()) for name, sites in known if sites]
    return found[:count]


def injected(*faults: tuple[str, Site]) -> trial.Fault:
    """A fault that puts these kinds at these sites."""

    def fault(vae: VAE) -> None:
        for name, site in faults:
            KINDS[name].inject(vae, site)

    return fault


def named(prepared: Prepared, population: str, seed: int, **more: Any) -> dict[str, Any]:
    """The start of a row."""
    return {"vae": prepared.name, "population": population, "seed": seed, **more}


def single_faults(prepared: Prepared, count: int, seed: int, every: bool) -> Iterator[Task]:
    """Population (a)."""
    for name, site in drawn(prepared, count, random.Random(f"{seed}/a/{prepared.name}"), every):
        row = named(prepared, "a", seed, kind=name, site=vars(site), expected=KINDS[name].cause)

        def work(emit: Emit, name: str = name, site: Site = site) -> None:
            trial.run(prepared, injected((name, site)), list(site.places), [KINDS[name].cause], emit)

        yield row, work


def double_faults(prepared: Prepared, count: int, seed: int) -> Iterator[Task]:
    """Two of population (a), drawn independently; each must change the function, by itself and beside the other."""
    choice = random.Random(f"{seed}/double/{prepared.name}")
    known = sites_of(prepared)
    for _ in range(count):
        pair = []
        for name, sites in (choice.choice(known), choice.choice(known)):
            pair.append((name, choice.choice(sites)))
        row = named(prepared, "double", seed, kinds=[n for n, _ in pair], sites=[vars(s) for _, s in pair])

        def work(emit: Emit, pair: list[tuple[str, Site]] = pair) -> None:
            alone = [trial.ask_oracle(prepared, injected(one)) for one in pair]
            emit({"alone": [vars(c) for c in alone]})
            if not all(c.fault for c in alone) or pair[0][1].path == pair[1][1].path:
                emit({"fault": False, "why": "one of the two is equivalent, or both are at one place"})
                return
            places = [p for _, site in pair for p in site.places]
            causes = [KINDS[name].cause for name, _ in pair]
            trial.run(prepared, injected(*pair), places, causes, emit, kill=False)

        yield row, work


def mutations(prepared: Prepared, count: int, seed: int) -> Iterator[Task]:
    """Population (b): of the lines that run when this VAE is imported, built, loaded and run."""
    used = asked(lambda: lines_used(prepared.name, ROOT))
    if "value" not in used:
        raise RuntimeError(f"the lines that {prepared.name} runs could not be found: {used}")
    files = {Path(file): set(lines) for file, lines in used["value"].items()}
    reached = [m for file in sorted(files) for m in mutants.of_source(file) if m.line in files[file]]
    vae = vaes.opened(prepared.weights)
    described, state = mutation.described(vae), vae.state_dict()
    for mutant in mutants.sampled(reached, count, random.Random(f"{seed}/b/{prepared.name}").randrange(2**32)):
        line = f"{mutant.file.relative_to(ROOT)}:{mutant.line}"
        row = named(prepared, "b", seed, kind=mutant.sort, source=line, scope=mutant.scope, what=mutant.what)
        yield {**row, "reached": len(reached)}, mutant_trial(prepared, mutant, described, state)


def clean_runs(prepared: Prepared, count: int, seed: int) -> Iterator[Task]:
    """Each correct implementation once, then three of them together, as often as asked."""
    choice = random.Random(f"{seed}/clean/{prepared.name}")
    known = [name for name in VARIANTS if VARIANTS[name](vaes.opened(prepared.weights))]
    groups = [(name,) for name in known]
    groups += [tuple(choice.sample(known, min(3, len(known)))) for _ in range(count)]
    for group in groups[:count]:

        def work(emit: Emit, group: tuple[str, ...] = group) -> None:
            def change(vae: VAE) -> None:
                for name in group:
                    VARIANTS[name](vae)

            emit({"oracle": vars(trial.ask_oracle(prepared, change))})
            emit({"verdict": trial.ask_proof(prepared, change, dtypes=())})
            emit({"explain": trial.explained(prepared, change)[0]})

        yield named(prepared, "clean", seed, kind="+".join(group)), work


def policies(prepared: Prepared, count: int, seed: int) -> Iterator[Task]:
    """Dtype-policy and harness faults."""
    for name, work in list(policy.tasks(prepared))[:count]:
        yield named(prepared, "policy", seed, kind=name), work


def tasks(population: str, prepared: Prepared, count: int, seed: int, every: bool) -> Iterator[Task]:
    """Those of one VAE."""
    if population == "a":
        return single_faults(prepared, count, seed, every)
    make = {"b": mutations, "double": double_faults, "clean": clean_runs, "policy": policies}[population]
    return make(prepared, count, seed)


def main(arguments: list[str] | None = None) -> int:
    """See the package."""
    options = _parser().parse_args(arguments)
    trial.VERDICTS["wanted"] = not options.no_verdict
    torch.set_num_threads(1)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    names = options.vae or list(NAMES)
    print(f"seed {options.seed}", file=sys.stderr)
    trial.explainer()  # here, so that all children have the same
    begun, rows = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="drift-") as folder:
        prepared = prepared_vaes(names, Path(folder), options.seed, options.jobs)
        for population in options.population or POPULATIONS:
            count = COUNTS[population] if options.count is None else options.count
            made = (
                task
                for i, p in enumerate(prepared)
                for task in tasks(population, p, share(count, prepared, i) or 1, options.seed, options.every)
            )
            with (out / f"{population}.jsonl").open("a") as file:
                for row in in_children(made, options.jobs, options.timeout):
                    file.write(json.dumps(row, default=str) + "\n")
                    file.flush()
                    rows.append(row)
                    print(f"{len(rows)} {report.line(row)}", file=sys.stderr)
    totals = report.totals(rows)
    print(json.dumps({"seed": options.seed, "seconds": round(time.monotonic() - begun, 1), **totals}))
    return 0 if report.reached(totals) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.drift", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--vae", nargs="*", choices=NAMES)
    parser.add_argument("--population", nargs="*", choices=POPULATIONS)
    parser.add_argument("--count", type=int, help="faults of each population, over all VAEs")
    parser.add_argument("--every", action="store_true", help="population a: every site of every kind")
    parser.add_argument("--no-verdict", action="store_true", help="leave the proof's own verdict, the kill matrix, out")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds that one fault may take")
    parser.add_argument("--out", default="drift-out", help="folder of the JSONL files, which are appended to")
    return parser
