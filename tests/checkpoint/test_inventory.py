"""What `vaeport inspect` is made of: totals, a tree, merged rows, and not a byte of the weights."""

from __future__ import annotations

import json
import math
import struct
import time
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from vaeport.checkpoint import Inventory, open_checkpoint, summarise
from vaeport.checkpoint.inventory import Group


@pytest.fixture
def inventory(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> Inventory:
    path = tmp_path / "a.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})
    with open_checkpoint(path) as checkpoint:
        return summarise(checkpoint)


def test_totals(inventory: Inventory, tensors: dict[str, torch.Tensor]) -> None:
    assert inventory.tensors == len(inventory.entries) == len(tensors)
    assert inventory.parameters == sum(tensor.numel() for tensor in tensors.values())
    assert inventory.nbytes == sum(tensor.nbytes for tensor in tensors.values())
    assert inventory.dtypes == {"bfloat16": 16, "float32": 13_824 + 120, "float64": 8, "int64": 56}
    assert inventory.metadata == {"format": "pt"}
    assert inventory.format == "safetensors"


def test_the_tree_adds_up(inventory: Inventory, tensors: dict[str, torch.Tensor]) -> None:
    def check(groups: tuple[Group, ...], prefix: str) -> int:
        for group in groups:
            members = [t for name, t in tensors.items() if f"{name}.".startswith(f"{group.prefix}.")]
            assert group.prefix.startswith(prefix)
            assert (group.tensors, group.nbytes) == (len(members), sum(t.nbytes for t in members))
            assert group.parameters == sum(t.numel() for t in members)
            assert not group.groups or check(group.groups, f"{group.prefix}.") == group.tensors
        return sum(group.tensors for group in groups)

    assert check(inventory.groups, "") == len(tensors)
    decoder = next(group for group in inventory.groups if group.prefix == "decoder")
    assert [group.prefix for group in decoder.groups] == ["decoder.norm_out", "decoder.up"]


def test_json(inventory: Inventory) -> None:
    data = json.loads(json.dumps(inventory.to_json()))
    assert (data["tensors"], data["parameters"]) == (inventory.tensors, inventory.parameters)
    first = data["entries"][0]
    assert first["name"] == "decoder.norm_out.bias"
    assert (first["shape"], first["dtype"], first["nbytes"]) == ([8], "bfloat16", 16)
    assert Path(first["file"]) == inventory.files[0]
    assert {group["prefix"] for group in data["groups"]} == {"decoder", "empty", "quant_conv", "scale", "steps"}


def test_text(inventory: Inventory) -> None:
    assert inventory.lines() == [
        f"path        {inventory.path}",
        "format      safetensors",
        "tensors     11",
        "parameters  3,502",
        "size        14 kB",
        "dtypes      bfloat16 16 B, float32 13.9 kB, float64 8 B, int64 56 B",
        "metadata    format=pt",
        "",
        "tensor                                       shape             dtype     count  parameters     size",
        "decoder.norm_out.bias                        [8]               bfloat16                  8     16 B",
        "decoder.up.{0..2}.block.{0..1}.conv1.weight  [8, 4..12, 3, 3]  float32      x6       3,456  13.8 kB",
        "empty                                        [0, 3]            float32                   0      0 B",
        "quant_conv.weight                            [5, 6]            float32                  30    120 B",
        "scale                                        []                float64                   1      8 B",
        "steps                                        [7]               int64                     7     56 B",
    ]


def test_text_to_a_depth(inventory: Inventory) -> None:
    rows = {row.name: row for row in inventory.rows(max_depth=2)}
    assert list(rows) == ["decoder.norm_out.*", "decoder.up.*", "empty", "quant_conv.weight", "scale", "steps"]
    up = rows["decoder.up.*"]
    assert (up.tensors, up.parameters, up.nbytes, up.shape, up.dtype) == (6, 3456, 13_824, "", "float32")
    assert [row.name for row in inventory.rows(3)][1] == "decoder.up.{0..2}.*"
    assert sum(row.tensors for row in inventory.rows(1)) == inventory.tensors


def write_empty(path: Path, shapes: dict[str, list[int]]) -> Path:
    """A sparse file of half-precision zeros."""
    header: dict[str, Any] = {}
    position = 0
    for name, shape in shapes.items():
        end = position + 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [position, end]}
        position = end
    raw = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + position)
    return path


def rows_of(path: Path, shapes: dict[str, list[int]]) -> list[tuple[str, str, int]]:
    with open_checkpoint(write_empty(path, shapes)) as checkpoint:
        return [(row.name, row.shape, row.tensors) for row in summarise(checkpoint).rows()]


def test_a_row_names_no_tensor_that_is_not_there(tmp_path: Path) -> None:
    names = ["b.0.c.0.w", "b.0.c.1.w", "b.1.c.0.w", "b.1.c.1.w", "b.2.c.0.w", "b.4.c.0.w", "b.10.c.0.w"]
    assert rows_of(tmp_path / "a.safetensors", {name: [2] for name in names}) == [
        ("b.{0..1}.c.{0..1}.w", "[2]", 4),
        ("b.{2,4,10}.c.0.w", "[2]", 3),
    ]


def test_rank_separates_rows_and_sizes_are_ranges(tmp_path: Path) -> None:
    shapes = {"b.0.w": [2, 3], "b.1.w": [4, 3], "b.2.w": [4], "b.v2.w": [4], "b.007.w": [4]}
    assert rows_of(tmp_path / "a.safetensors", shapes) == [
        ("b.{0..1}.w", "[2..4, 3]", 2),
        ("b.2.w", "[4]", 1),
        ("b.007.w", "[4]", 1),
        ("b.v2.w", "[4]", 1),
    ]


def test_every_combination_is_listed_exactly_once(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    names = [f"a.{i}.b.{j}.c.{k}" for i, j, k in product(range(4), repeat=3)]
    kept = [name for name in names if torch.rand(1, generator=generator) < 0.6]
    rows = rows_of(tmp_path / "a.safetensors", {name: [1] for name in kept})
    expanded = [name for row, _, _ in rows for name in expand(row)]
    assert sorted(expanded) == sorted(kept)
    assert [len(expand(row)) for row, _, _ in rows] == [count for _, _, count in rows]


def expand(row: str) -> list[str]:
    def alternatives(part: str) -> list[str]:
        if not part.startswith("{"):
            return [part]
        spans = [span.split("_") for span in part[1:-1].split(",")]
        return [str(number) for span in spans for number in range(int(span[0]), int(span[-1]) + 1)]

    parts = row.replace("..", "_").split(".")
    return [".".join(choice) for choice in product(*map(alternatives, parts))]


def test_hostile_names(tmp_path: Path) -> None:
    names = ["a." * 100_000, "\x1b[2J", "9" * 5000 + ".w", "", "..", "x" * 500]
    path = write_empty(tmp_path / "a.safetensors", {name: [1] for name in names})
    with open_checkpoint(path) as checkpoint:
        inventory = summarise(checkpoint)
    assert all(line.isprintable() and len(line) < 400 for line in inventory.lines())
    assert len(json.loads(json.dumps(inventory.to_json()))["entries"]) == len(names)


def test_ten_gigabytes_in_two_seconds(tmp_path: Path) -> None:
    weight_map = {}
    for shard in range(4):
        shapes = {f"decoder.{shard}.block.{i}.conv{j}.weight": [512, 256, 10] for i in range(480) for j in (1, 2)}
        path = write_empty(tmp_path / f"model-0000{shard + 1}-of-00004.safetensors", shapes)
        weight_map |= dict.fromkeys(shapes, path.name)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) > 10e9
    started = time.process_time()
    with open_checkpoint(tmp_path) as checkpoint:
        inventory = summarise(checkpoint)
        lines = inventory.lines()
        json.dumps(inventory.to_json())
    assert time.process_time() - started < 2
    assert inventory.nbytes == 3840 * 512 * 256 * 10 * 2
    assert lines[-1].split()[:2] == ["decoder.{0..3}.block.{0..479}.conv2.weight", "[512,"]
