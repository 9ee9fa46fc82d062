"""A model file as its checks see it: its syntax tree, and what it says of the class that it registers."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vaeport.checkpoint.text import cut
from vaeport.port.contracts.rules import Finding
from vaeport.syntax import assignments, last_name

MODEL_RULES = {
    "model-unreadable": "a model file cannot be read without running it",
    "entry-class": "the model file registers no class",
    "entry-class-last": "EntryClass does not end the model file",
    "entry-class-here": "EntryClass names no class of its file",
    "wrong-bucket": "the model is in no bucket, or in that of another modality",
    "file-name": "the file is named neither by architecture nor by family",
    "constant-outside": "a constant of the architecture stands outside the arch config",
    "reference-import": "production code imports a reference library",
    "tiling-or-device": "a model file speaks of tiling or devices",
    "not-importable": "the model file cannot be imported",
}


@dataclass(frozen=True)
class ModelFile:
    """entry: the name that `EntryClass` is set to, if any; names: all of `class_names` and `aliases`."""

    path: Path
    tree: ast.Module
    entry: str | None
    names: tuple[str, ...]

    @cached_property
    def classes(self) -> dict[str, ast.ClassDef]:
        """The classes that the file defines."""
        return {node.name: node for node in self.tree.body if isinstance(node, ast.ClassDef)}

    @property
    def owner(self) -> ast.ClassDef | None:
        """The class that is registered."""
        return self.classes.get(self.entry or "")

    @property
    def arch_classes(self) -> set[str]:
        """Names of the file's arch configs."""
        named = self.attribute("arch_class")
        derived = {name for name in self.classes if any(base.endswith("ArchConfig") for base in self.ancestors(name))}
        return derived | ({last_name(named[0])} if named else set())

    def attribute(self, name: str) -> tuple[ast.expr, int] | None:
        """What the body of the registered class sets an attribute to, and the line."""
        nodes = assignments(self.owner) if self.owner else ()
        return next(((value, node.lineno) for target, value, node in nodes if target == name), None)

    def ancestors(self, name: str) -> set[str]:
        """The name itself and those of all bases, as far as the file tells."""
        seen: set[str] = set()
        todo = [name]
        while todo:
            one = todo.pop()
            if one not in seen:
                seen.add(one)
                todo += [last_name(base) for base in self.classes[one].bases] if one in self.classes else []
        return seen

    def modalities(self) -> Iterator[tuple[object, int]]:
        """What the contract says outright, and where: that of the class, else any in the file."""
        found = list(_modalities(self.owner)) if self.owner else []
        yield from found or _modalities(self.tree)

    def finding(self, rule: str, line: int | None, expected: str, found: object, fix: str) -> Finding:
        """A broken rule, at a line or for the whole file."""
        where = str(self.path) if line is None else f"{self.path}:{line}"
        return Finding(rule, where, MODEL_RULES[rule], expected, cut(str(found)), fix)


def _modalities(tree: ast.AST) -> Iterator[tuple[object, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and last_name(node.func) == "LatentContract":
            for key in node.keywords:
                if key.arg == "modality" and isinstance(key.value, ast.Constant):
                    yield key.value.value, key.value.lineno


def snake_case(name: str) -> str:
    """`AutoencoderKLWan` -> `autoencoder_kl_wan`."""
    name = name.replace("AutoencoderKL", "AutoencoderKL_").strip("_")
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
