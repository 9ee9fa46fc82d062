"""What an unlabelled checkpoint is, for people and for programs: the data behind `vaeport inspect`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vaeport.checkpoint import Checkpoint
from vaeport.checkpoint.text import cut, listing, size_text
from vaeport.configs import VAEArchConfig
from vaeport.errors import ConfigError
from vaeport.mapping.outline import Outline
from vaeport.registry import ModelRegistry
from vaeport.runtime.identify import differences, different, shapes_of
from vaeport.runtime.label import Label, label_of
from vaeport.runtime.reader import near, read_as, readings
from vaeport.runtime.reading import Reading

Verdict = Literal["known", "ambiguous", "contradiction", "unknown"]
_RELATIVES = 3


@dataclass(frozen=True)
class Identification:
    """What a checkpoint is, and why.

    verdict     known: one architecture accounts for every key; ambiguous: several do; contradiction: the weights are
                not what the configuration says; unknown: `readings` are the nearest, if any is near
    label       what the checkpoint says of itself
    fault       why it could not be read, if it could not
    outlines    layouts that share names with the checkpoint, where no reading is near
    groups      tensors and bytes that are no VAE's, by the first part of their names
    """

    verdict: Verdict
    checkpoint: Checkpoint
    label: Label | None
    fault: str
    readings: tuple[Reading, ...]
    outlines: tuple[tuple[str, Outline], ...]
    groups: Mapping[str, tuple[int, int]]

    def to_json(self) -> dict[str, Any]:
        """Plain lists, numbers and strings."""
        label = self.label and {"source": self.label.source, "model": self.label.registration.name}
        return {
            "verdict": self.verdict,
            "label": label,
            "label_fault": self.fault,
            "readings": [self._reading_json(one) for one in self.readings],
            "relatives_by_name": [
                {"model": name, "layout": one.layout.name, "prefix": one.prefix, "keys": one.keys, "of": one.of}
                for name, one in self.outlines
            ],
            "other_keys": {name: {"tensors": n, "nbytes": size} for name, (n, size) in self.groups.items()},
        }

    def _reading_json(self, one: Reading) -> dict[str, Any]:
        plan = one.plan
        return {
            "model": one.registration.name,
            "variants": list(one.variants),
            "layout": plan.layout.name,
            "prefix": plan.prefix,
            "fits": plan.fits,
            "keys": {
                "used": len(one.used),
                "dropped": dict(plan.dropped),
                "of": one.stored,
                "missing": list(plan.missing),
                "unexpected": list(plan.unexpected),
                "misshapen": list(plan.misshapen),
            },
            "halves": {
                half: {"keys": n, "of": of, "present": half in one.present} for half, (n, of) in one.halves.items()
            },
            "dtypes": self._dtypes(one),
            "determined": {name: {"value": f.value, "keys": list(f.keys)} for name, f in one.determined.items()},
            "undetermined": {
                name: {"values": values, "from": self._source(one)} for name, values in self._values(one).items()
            },
            "config": one.arch.to_published(),
        }

    def lines(self) -> list[str]:
        """The same as aligned plain text, in short."""
        rows = [("identified", headline)] if (headline := self._headline()) else []
        if self.fault:
            rows.append(("", self.fault))
        for number, one in enumerate(self.readings):
            rows += self._reading_rows(one, number)
        for name, outline in self.outlines:
            what = f"{name}, layout {outline.layout.name}: {outline.keys} of {outline.of} names are like its own"
            rows.append(("nearest", what))
        if self.groups:
            parts = [f"{cut(name, 40)} ({n} keys, {size_text(size)})" for name, (n, size) in self.groups.items()]
            rows.append(("other keys", listing(parts, 6)))
        return [f"{name:<12}{fact}".rstrip() for name, fact in rows]

    def _headline(self) -> str:
        """In a row of its own if more than one reading follows."""
        source = self.label.source if self.label else ""
        names = " or ".join(dict.fromkeys(one.registration.name for one in self.readings))
        return {
            "known": "",
            "ambiguous": f"{names}: keys and shapes fit each of them; say which with --model or a config.json",
            "contradiction": f"{source} and the weights contradict each other",
            "unknown": "unknown: no registered architecture accounts for these keys",
        }[self.verdict]

    def _reading_rows(self, one: Reading, number: int) -> Iterator[tuple[str, str]]:
        by_label = self.label is not None and number == 0
        title = {"known": "identified", "unknown": "nearest"}.get(self.verdict, "reading")
        who = f"by its keys, {one.name}" if self.verdict == "contradiction" and not by_label else one.registration.name
        variants = f"variant {' or '.join(one.variants)}" if one.variants else "no published variant"
        plan = one.plan
        prefix = f", prefix {plan.prefix}" if plan.prefix else ""
        source = f"; so says {self.label.source}" if by_label and self.label is not None else ""
        yield title, f"{who}: {variants}, layout {plan.layout.name}{prefix}{source}"
        faults = {"missing": plan.missing, "unexpected": plan.unexpected, "misshapen": plan.misshapen}
        odd = [f"{len(k)} {what}: {listing([cut(key, 80) for key in k], 2)}" for what, k in faults.items() if k]
        yield "keys", "; ".join([f"{len(one.used) + len(plan.dropped)} of {one.stored} accounted for", *odd])
        halves = [f"{half} {f'{n} of {of}' if n else 'absent'}" for half, (n, of) in one.halves.items()]
        yield "halves", ", ".join(halves) + " weights; stored as " + ", ".join(self._dtypes(one))
        if self.verdict == "contradiction" and by_label and len(self.readings) > 1 and self.label is not None:
            said, shown = differences(self.label.arch, self.readings[1])
            yield "", f"{self.label.source} says {said}; the weights say {shown}"
        if self.verdict == "unknown" or (self.verdict == "ambiguous" and number):
            return
        for position, (name, found) in enumerate(one.determined.items()):
            yield "" if position else "shown", f"{name} = {_text(found.value)}  ({listing(found.keys, 1)})"
        for position, (name, values) in enumerate(self._values(one).items()):
            yield "" if position else "not shown", f"{name} = {values_text(values)}"
        yield "", f"not shown by any shape: {self._source(one)}"

    def _values(self, one: Reading) -> dict[str, dict[str, list[str]] | Any]:
        """Undetermined fields: the value, or, where variants differ, each value with its variants."""
        archs = {v: one.registration.model.variants[v] for v in one.variants} if self.label is None else {}
        found: dict[str, Any] = {}
        for name, value in one.undetermined.items():
            by_value: defaultdict[str, list[str]] = defaultdict(list)
            for variant, arch in archs.items():
                by_value[_text(getattr(arch, name))].append(variant)
            found[name] = dict(by_value) if len(by_value) > 1 else value
        return found

    def _source(self, one: Reading) -> str:
        if self.label is not None:
            return f"values of {self.label.source}"
        if one.variants:
            return "values of the published variant; name it, or put its config.json beside the weights"
        return "assumed; take them from the config.json that belongs to the weights"

    def _dtypes(self, one: Reading) -> list[str]:
        return sorted({self.checkpoint.entries[key].dtype_name for key in one.used})


def values_text(values: Any) -> str:
    """One value, or several with the variants that have them."""
    if not isinstance(values, dict):
        return _text(values)
    return ", ".join(f"{value} ({', '.join(variants)})" for value, variants in values.items())


def _text(value: Any) -> str:
    return cut(", ".join(map(str, value)) if isinstance(value, tuple) else str(value), 60)


def inspect(checkpoint: Checkpoint) -> Identification:
    """What the checkpoint is, from its configuration and its headers; no weights are read and nothing is refused."""
    shapes, registrations = shapes_of(checkpoint), ModelRegistry.registrations()
    fault, label = "", None
    try:
        label = label_of(checkpoint)
    except ConfigError as error:
        fault = f"the configuration cannot be used: {cut(error.what)}"
    labelled = read_as(shapes, label.registration, {"": label.arch})[:1] if label is not None else []
    if label is not None and labelled[0].plan.fits:
        verdict: Verdict = "known"
        found = [labelled[0].named(_variants(labelled[0], label.arch))]
    else:
        read = readings(shapes, registrations)
        fitting = different([one for one in read if one.plan.fits])
        verdict = "contradiction" if labelled else ("unknown", "known", "ambiguous")[min(len(fitting), 2)]
        found = [*labelled, *(fitting or [] if labelled else fitting or _nearest(read))]
    lost = () if found else [one for one in near(shapes, registrations) if one.keys > 1][:_RELATIVES]
    outlines = tuple(
        (registration.name, one)
        for one in lost
        for registration in registrations
        if any(layout.rules is one.layout.rules for layout in registration.layouts)
    )
    return Identification(verdict, checkpoint, label, fault, tuple(found), outlines, _groups(checkpoint, found))


def _nearest(read: list[Reading]) -> list[Reading]:
    """The best reading of each of the nearest architectures."""
    best: dict[str, Reading] = {}
    for one in read:
        best.setdefault(one.registration.name, one)
    return list(best.values())[:_RELATIVES]


def _variants(reading: Reading, arch: VAEArchConfig) -> tuple[str, ...]:
    plain = arch.replace(extra={})
    return tuple(v for v, known in reading.registration.model.variants.items() if known == plain)


def _groups(checkpoint: Checkpoint, found: list[Reading]) -> dict[str, tuple[int, int]]:
    """What none of the readings speaks of: tensors and bytes by the first part of the name, the largest first."""
    spoken = {key for one in found for key in (*one.used, *one.plan.dropped)}
    tensors: Counter[str] = Counter()
    nbytes: Counter[str] = Counter()
    for name, entry in checkpoint.entries.items():
        if name not in spoken:
            tensors[name.partition(".")[0]] += 1
            nbytes[name.partition(".")[0]] += entry.nbytes
    return {name: (tensors[name], size) for name, size in nbytes.most_common()}
