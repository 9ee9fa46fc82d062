"""Checks on the names in a model file and on its own: what it is called, what it imports, what it speaks of."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator

from vaeport.checkpoint.text import listing
from vaeport.port.contracts.rules import Finding
from vaeport.port.model_file import ModelFile, snake_case
from vaeport.syntax import imports

REFERENCES = ("diffusers", "transformers")
RUNTIME_WORDS = {
    *("tile", "tiles", "tiled", "tiling", "offload", "offloads", "offloaded", "offloading"),
    *("device", "devices", "cuda", "cpu", "gpu", "gpus", "mps", "xpu", "npu"),
}
COMMON_WORDS = {
    "vae",
    "autoencoder",
    "encoder",
    "decoder",
    "model",
    "models",
    "video",
    "image",
    "audio",
    "kl",
    "causal",
}
"""Words of a name that tell no architecture from another."""


def file_name(file: ModelFile, family: str | None) -> Iterator[Finding]:
    """The stem is a name of the class, whole words of one, or has the family in it."""
    if file.entry is None:
        return
    names = [snake_case(name) for name in (file.entry, *file.names)]
    if not named_after(file.path.stem, names, family):
        known = list(dict.fromkeys([*names, *([family] if family else [])]))
        fix = "rename the file, its weight map and its test alike"
        yield file.finding("file-name", None, f"a name in one of {listing(known)}", file.path.stem, fix)


def named_after(stem: str, names: Iterable[str], family: str | None) -> bool:
    """Whether a stem is a name, words of one that are not all common, or has the family in it."""
    if stem in names:
        return True
    if family is not None and (_has_words(stem, family) or re.sub(r"^vae|vae$", "", stem) == family):
        return True
    return not set(stem.split("_")) <= COMMON_WORDS and any(_has_words(name, stem) for name in names)


def _has_words(name: str, part: str) -> bool:
    """Whether whole words of `name`, one after the other, are `part` but for its underscores."""
    words, wanted = name.split("_"), part.replace("_", "")
    return any("".join(words[i:j]) == wanted for i in range(len(words)) for j in range(i + 1, len(words) + 1))


def reference_imports(file: ModelFile) -> Iterator[Finding]:
    """Diffusers and Transformers at any depth, and imports whose name only a run would tell."""
    for name, line in imports(file.tree):
        if name.partition(".")[0] in REFERENCES or name == "?":
            found = "an import whose name is computed" if name == "?" else name
            fix = "write it with the layers of this library; tests alone may import the reference"
            yield file.finding("reference-import", line, f"neither {' nor '.join(REFERENCES)}", found, fix)


def runtime_words(file: ModelFile) -> Iterator[Finding]:
    """Names and one-word texts that belong to the runtime; docstrings and comments may say what they like."""
    for node in ast.walk(file.tree):
        for text in _identifiers(node):
            if RUNTIME_WORDS & set(re.split(r"[_.:]", snake_case(text))):
                fix = "take it out: tiles and devices are the runtime's, which runs any model"
                line = getattr(node, "lineno", None)
                yield file.finding("tiling-or-device", line, "layers and shapes alone", text, fix)


def _identifiers(node: ast.AST) -> Iterator[str]:
    """The names that a node introduces or uses, and a text that looks like one."""
    match node:
        case ast.Name(text) | ast.Attribute(_, text) | ast.arg(text) | ast.keyword(str(text)):
            yield text
        case ast.FunctionDef(text) | ast.AsyncFunctionDef(text) | ast.ClassDef(text) | ast.ImportFrom(str(text)):
            yield text
        case ast.alias(text, other):
            yield from (text, other or "")
        case ast.Constant(str(text)) if re.fullmatch(r"[A-Za-z_]\w*(:\d+)?", text):
            yield text
