"""From rows to tables: rates with 95 % Wilson bounds, what falls short line by line, and the kill matrix.

python -m bench.drift.report FOLDER [--kill FILE.json] [--table FILE.md]
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
TARGETS = {
    ("a", "detected"): 1.0,
    ("a", "place"): 0.98,
    ("a", "cause"): 0.95,
    ("b", "detected"): 1.0,
    ("b", "place"): 0.95,
    ("double", "both"): 0.85,
    ("clean", "quiet"): 1.0,
}
FIGURES = {
    "a": ("detected", "place", "exact", "cause", "unaided", "named", "fixed"),
    "b": ("detected", "place", "exact"),
    "double": ("detected", "both"),
    "clean": ("quiet", "proved"),
    "policy": ("refused",),
}
GATES = ("S", "P float32", "P bfloat16", "D", "evidence", "error")


def wilson(right: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % interval of a rate."""
    if n == 0:
        return 0.0, 1.0
    p, centre = right / n, (right + z * z / 2) / (n + z * z)
    spread = z / (n + z * z) * math.sqrt(n * p * (1 - p) + z * z / 4)
    return max(0.0, centre - spread), min(1.0, centre + spread)


def read(folder: Path) -> list[Row]:
    """All rows of a campaign."""
    return [json.loads(line) for file in sorted(folder.glob("*.jsonl")) for line in file.read_text().splitlines()]


def valid(row: Row) -> bool:
    """Whether a row counts: equivalents do not, nor what has no place for the fault."""
    if row["population"] == "clean":
        return not broken_variant(row)
    if row["population"] == "policy":
        return bool(row.get("applies", True))
    # what was killed before the oracle spoke counts as a fault
    return bool(row.get("fault", True))


def broken_variant(row: Row) -> bool:
    """A correct implementation that is not one: a fault of this benchmark, named below the tables."""
    return not row.get("oracle", {"change": 0.0})["change"] <= 1e-9


def figure(row: Row, name: str) -> bool | None:
    """Whether a row is right in this figure; None where it does not say."""
    said = row.get("explain", {})
    if name == "quiet":
        return None if said.get("missing") else said.get("findings") == []
    if name == "proved":
        return bool(row.get("verdict", {}).get("passed"))
    if name == "refused":
        return row.get("passed") is False
    if said.get("missing"):
        return None
    if row.get("does_not_build") or row.get("hangs"):
        return True if name == "detected" else None
    if "crashed" in row or "ended" in row:
        return bool(row.get(name, False))
    return row.get(name, None if name in ("place", "exact") and row.get("places") == [] else False)


def rate(rows: Iterable[Row], name: str) -> tuple[int, int]:
    """(right, of how many)."""
    known = [value for row in rows if valid(row) and (value := figure(row, name)) is not None]
    return sum(known), len(known)


def shown(right: int, n: int) -> str:
    """A rate with its bounds."""
    if not n:
        return "–"
    low, high = wilson(right, n)
    return f"{right}/{n} = {right / n:.1%} ({low:.1%}–{high:.1%})"


def markdown(head: Sequence[str], body: Iterable[Sequence[object]]) -> list[str]:
    """A table."""
    rows = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in line] for line in body]
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)] + [""]


UNAIDED = (
    "cause: the class of the cause is right and its fix holds; unaided: of these, the answer is not the very class "
    "that the fault replaced, which the library holds for its own models and would not hold for a new one."
)


def table(rows: list[Row], population: str) -> list[str]:
    """Per VAE and in all."""
    mine = [row for row in rows if row["population"] == population]
    if not mine:
        return []
    vaes = list(dict.fromkeys(row["vae"] for row in mine))
    groups: list[tuple[str, list[Row]]] = [(vae, [r for r in mine if r["vae"] == vae]) for vae in vaes]
    body = []
    for name, group in (*groups, ("all", mine)):
        counted = sum(map(valid, group))
        rates = [shown(*rate(group, figure)) for figure in FIGURES[population]]
        body.append((name, len(group), counted, *rates))
    note = [UNAIDED, ""] if population == "a" else []
    return [f"## Population {population}", "", *note, *markdown(("VAE", "drawn", "faults", *FIGURES[population]), body)]


def place(row: Row) -> str:
    """Where the fault is, in words."""
    if "site" in row:
        return f"{row['site']['path'] or 'the VAE'} {row['site']['detail']}".strip()
    if "sites" in row:
        return " and ".join(s["path"] or "the VAE" for s in row["sites"])
    return str(row.get("source", ""))


def fault(row: Row) -> str:
    """What the fault is, in words."""
    return str(row.get("what") or row.get("kind") or " and ".join(row.get("kinds", [])))


def answer(row: Row) -> str:
    """What was said, or why nothing was."""
    for name in ("crashed", "ended"):
        if name in row:
            return f"{name}: {row[name]} {row.get('at', '')}"
    found = row.get("explain", {}).get("findings", [])
    if not found:
        return "; ".join(row.get("names", [])) or "nothing found"
    return "; ".join(f"{f['unit'] or 'the VAE'} {f['where']}: {f['cause']}: {f['change']}" for f in found[:3])


def short(row: Row) -> list[str]:
    """Figures that a row misses."""
    if not valid(row):
        return []
    wanted = {"a": ("detected", "place", "cause"), "b": ("detected", "place"), "double": ("both",)}
    names = wanted.get(row["population"], FIGURES[row["population"]])
    return [name for name in names if figure(row, name) is False]


def shortfalls(rows: list[Row]) -> list[str]:
    """Every case that falls short, line by line."""
    body = [
        (r["vae"], r["population"], fault(r), place(r), ", ".join(missed), answer(r)[:300])
        for r in rows
        if (missed := short(r))
    ]
    head = ("VAE", "population", "fault", "place", "misses", "said")
    return ["## What falls short", "", *markdown(head, body)] if body else ["## What falls short", "", "Nothing.", ""]


def equivalents(rows: list[Row]) -> list[str]:
    """What does not change the function, by the oracle."""
    mine = [r for r in rows if r["population"] != "policy" and not valid(r)]
    body = [
        (r["vae"], r["population"], fault(r)[:120], place(r), f"{r.get('oracle', {}).get('change', 0.0):.1e}")
        for r in mine
    ]
    head = ("VAE", "population", "fault", "place", "largest change")
    return ["## Equivalent", "", *markdown(head, body)] if body else []


def kill_matrix(rows: list[Row]) -> dict[str, dict[str, int]]:
    """Kind -> how many faults of it, and how many of them each gate fails."""
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        if row["population"] not in ("a", "b") or not valid(row) or "verdict" not in row:
            continue
        name = row["kind"] if row["population"] == "a" else f"b: {row['kind']}"
        cells = found.setdefault(name, dict.fromkeys(("faults", "killed", *GATES), 0))
        cells["faults"] += 1
        cells["killed"] += not row["verdict"]["passed"]
        for gate in GATES:
            cells[gate] += any(g.startswith(gate) for g in row["verdict"]["gates"])
    return dict(sorted(found.items()))


def kill_table(matrix: dict[str, dict[str, int]]) -> list[str]:
    """The matrix as a table."""
    if not matrix:
        return []
    body = [(kind, *cells.values()) for kind, cells in matrix.items()]
    return ["## Kill matrix", "", *markdown(("kind", "faults", "killed", *GATES), body)]


def policy_table(rows: list[Row]) -> list[str]:
    """What the verdict says of faults that no function shows."""
    mine = [r for r in rows if r["population"] == "policy" and valid(r)]
    if not mine:
        return []
    body = [(r["vae"], r["kind"], "passed" if r.get("passed") else "refused", answer(r)) for r in mine]
    return ["## Dtype policy and harness", "", *markdown(("VAE", "fault", "verdict", "under"), body)]


def totals(rows: list[Row]) -> dict[str, Any]:
    """The figures in all, as data."""
    found: dict[str, Any] = {}
    for population, names in FIGURES.items():
        mine = [r for r in rows if r["population"] == population]
        if mine:
            figures = {name: dict(zip(("right", "of"), rate(mine, name), strict=True)) for name in names}
            ill = sum(1 for r in mine if "crashed" in r or "ended" in r)
            found[population] = {"drawn": len(mine), "faults": sum(map(valid, mine)), "crashed": ill, **figures}
    return found


def reached(found: dict[str, Any]) -> bool:
    """Whether the figures of the targets are reached."""
    rates = [(found[p][f], least) for (p, f), least in TARGETS.items() if p in found]
    return all(r["right"] >= least * r["of"] for r, least in rates)


def line(row: Row) -> str:
    """One row for the eye."""
    state = "equivalent" if not valid(row) else "short: " + ", ".join(missed) if (missed := short(row)) else "right"
    state = "not explained" if row.get("explain", {}).get("missing") else state
    return f"{row['vae']} {row['population']} {fault(row)[:60]} at {place(row)}: {state} ({row['seconds']} s)"


def main() -> None:
    """Prints the tables; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kill", type=Path, help="JSON file for the kill matrix")
    parser.add_argument("--table", type=Path, help="Markdown file")
    options = parser.parse_args()
    rows = read(options.folder)
    matrix = kill_matrix(rows)
    parts: list[Callable[[list[Row]], list[str]]] = [shortfalls, policy_table, equivalents]
    text = [line for population in FIGURES for line in table(rows, population)]
    text += [line for part in parts for line in part(rows)] + kill_table(matrix)
    print("\n".join(text))
    if options.table:
        options.table.write_text("\n".join(text) + "\n")
    if options.kill:
        options.kill.write_text(json.dumps(matrix, indent=1) + "\n")
    print(json.dumps(totals(rows)))


if __name__ == "__main__":
    main()
