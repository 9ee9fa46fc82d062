"""Checks on a model file that somebody adds, in this tree or elsewhere: read as a syntax tree, run only when asked.

for finding in check_model("models/wan.py"):
    print(finding)
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from vaeport.checkpoint.files import exists, nearest_paths, reading
from vaeport.checkpoint.text import cut, listing, size_text
from vaeport.configs import BUCKETS
from vaeport.errors import ConfigError, VaeportError
from vaeport.port.contracts.rules import Finding
from vaeport.port.model_constants import constants_outside
from vaeport.port.model_file import MODEL_RULES, ModelFile
from vaeport.port.model_words import file_name, reference_imports, runtime_words
from vaeport.syntax import assignments, last_name, model_names, parse_file

__all__ = ["MODEL_RULES", "Finding", "check_model"]

LARGEST = 1_000_000  # bytes


def check_model(path: str | Path, *, family: str | None = None, importing: bool = False) -> list[Finding]:
    """The rules of `MODEL_RULES` that a model file breaks, in the order of its lines; empty if it may be added.

    family      the file may be named after it
    importing   if nothing else is wrong, run the file and hold its class to its contract

    Raises:
        ConfigError: there is no such file.
        BlockedError: the system refuses to read it.
    """
    path = Path(path)
    if not exists(path) or not path.is_file():
        raise ConfigError("no model file here", where=path, found="a folder" if exists(path) else nearest_paths(path))
    with reading(path):
        size = path.stat().st_size
        if size > LARGEST:
            return [_unreadable(path, f"at most {size_text(LARGEST)}", size_text(size), "keep data out of code")]
        try:
            tree = parse_file(path)
        except ConfigError as error:
            return [_unreadable(error.where, "Python", error.found, "correct the syntax")]
    entry: str | None = None
    names: tuple[str, ...] = ()
    found: list[Finding] = []
    try:
        entry, names = model_names(tree, path)
    except ConfigError as error:
        found.append(_unreadable(error.where, error.expected, error.found, f"{error.what}; write it out"))
    file = ModelFile(path, tree, entry, names)
    found += [*_entry(file), *file_name(file, family), *_bucket(file), *_constants(file)]
    found += [*reference_imports(file), *runtime_words(file)]
    if importing and not found:
        found += _imported(file)
    return sorted(dict.fromkeys(found), key=_line)


def _unreadable(where: object, expected: object, found: object, fix: str) -> Finding:
    rule = "model-unreadable"
    return Finding(rule, str(where), MODEL_RULES[rule], str(expected), cut(str(found)), fix)


def _entry(file: ModelFile) -> Iterator[Finding]:
    entries = [node for target, _, node in assignments(file.tree) if target == "EntryClass"]
    expected = "`EntryClass = <Class>` as the last statement"
    if not entries:
        fix = "end the file with it; a file without a model belongs elsewhere"
        yield file.finding("entry-class", None, expected, "none", fix)
        return
    last = file.tree.body[-1]
    for node in entries:
        if node is not last:
            found = f"the last statement is in line {last.lineno}"
            yield file.finding("entry-class-last", node.lineno, expected, found, "move it to the end, once")
    if file.entry is not None and file.owner is None:
        known = listing(list(file.classes)) or "none"
        fix = "name the VAE that this file defines"
        yield file.finding("entry-class-here", entries[-1].lineno, f"one of its classes: {known}", file.entry, fix)


def _bucket(file: ModelFile) -> Iterator[Finding]:
    """As far as literals tell; what they leave open, an import tells."""
    config = file.attribute("config_class")
    for modality, line in file.modalities():
        bucket = {str(name): kind.__name__ for name, kind in BUCKETS.items()}.get(str(modality))
        if bucket is None:
            fix = "name the modality of what goes into the encoder"
            yield file.finding("wrong-bucket", line, f"one of {', '.join(BUCKETS)}", modality, fix)
        elif config is not None:
            others = {kind.__name__ for kind in BUCKETS.values()} - {bucket}
            if others & file.ancestors(last_name(config[0])):
                expected = f"config_class = {bucket}, for the contract says {modality}"
                fix = "correct the one or the other"
                yield file.finding("wrong-bucket", config[1], expected, ast.unparse(config[0]), fix)


def _constants(file: ModelFile) -> Iterator[Finding]:
    archs = file.arch_classes
    for node in constants_outside(file.tree, archs):
        expected = f"in {' or '.join(sorted(archs)) or 'a class derived from VAEArchConfig'}"
        fix = "make it a field of the arch config, or the default of the layer whose rule it is"
        yield file.finding("constant-outside", node.lineno, expected, ast.unparse(node), fix)


def _imported(file: ModelFile) -> Iterator[Finding]:
    """Runs the file, and does what the registry does before it uses a class."""
    from vaeport.discovery import checked
    from vaeport.proof.importing import import_object, stubbed

    before = set(stubbed)
    try:
        model = import_object(f"{file.path}:{file.entry}")
    except VaeportError as error:
        yield file.finding("not-importable", None, "a module", error.found or error.what, "correct what it imports")
        return
    if missing := sorted(stubbed - before):
        fix = "install them, or do without"
        yield file.finding("not-importable", None, "modules that are installed", listing(missing), fix)
        return
    line = file.owner.lineno if file.owner else None
    try:
        checked(model)
    except VaeportError as error:
        found = error.what if error.found is None else f"{error.what}: {error.found}"
        yield file.finding("wrong-bucket", line, str(error.expected or "a complete VAE"), found, error.fix or "")
    except Exception as error:  # its contract is its own code
        found = f"{type(error).__name__}: {error}"
        yield file.finding("wrong-bucket", line, "a contract of its first variant", found, "correct contract_of")


def _line(finding: Finding) -> int:
    line = finding.where.rpartition(":")[2]
    return int(line) if line.isdigit() else 0
