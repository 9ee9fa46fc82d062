"""The base of all records and views: no unknown field, no mutation, and every broken rule told at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator
from pydantic.functional_validators import ModelWrapValidatorHandler

from vaeport.checkpoint.text import cut, nearest_names
from vaeport.errors import ConfigError
from vaeport.port.contracts.rules import RULES, Finding, finding, line_of
from vaeport.port.contracts.text import problems, tidy
from vaeport.port.contracts.yaml_text import write_yaml


class Record(BaseModel):
    """A frozen group of fields. Methods named `_rule_...` yield what the fields together break, places relative to it.

    Constructing one raises pydantic's `ValidationError` with a line for *every* broken rule; `accept` raises the
    same as a `ConfigError`, and `findings_in` returns them.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        str_strip_whitespace=True,
        coerce_numbers_to_str=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )

    @classmethod
    def _raw_problems(cls, value: Any) -> Iterator[Finding]:
        yield from ()

    @classmethod
    def _spelled(cls, value: dict[str, Any]) -> dict[str, Any]:
        """A copy of the given fields, under this record's names where an alias does not do."""
        return value

    @model_validator(mode="wrap")
    @classmethod
    def _judge(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        findings = list(cls._raw_problems(value))
        value = cls._spelled(dict(value)) if isinstance(value, dict) else value
        try:
            record = handler(value)
            lines = []
        except ValidationError as error:
            lines = [line_of(_finding_of(line, cls), line["loc"], line["input"]) for line in error.errors()]
            record = cls._sound_part(value, {str(line["loc"][0]) for line in error.errors() if line["loc"]})
        lines += [line_of(item) for item in (*findings, *_judged(record))]
        if lines:
            raise ValidationError.from_exception_data(cls.__name__, lines)
        return record

    @classmethod
    def _sound_part(cls, value: Any, failed: set[str]) -> Self:
        """The fields that are right on their own, the others absent: enough for the rules that need no more."""
        record = cls.__new__(cls)
        sound: dict[str, Any] = {}
        given = value if isinstance(value, dict) else {}
        for name, field in cls.model_fields.items():
            alias = field.validation_alias
            names = [name, *(map(str, alias.choices) if isinstance(alias, AliasChoices) else ())]
            found = next((key for key in names if key in given), None)
            if failed.intersection(names) or (found is None and field.is_required()):
                continue
            if found is None:
                sound[name] = field.get_default(call_default_factory=True)
            else:
                kind: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
                with suppress(ValidationError):
                    sound[name] = TypeAdapter(kind).validate_python(given[found])
        object.__setattr__(record, "__dict__", sound)
        object.__setattr__(record, "__pydantic_fields_set__", set(sound))
        object.__setattr__(record, "__pydantic_extra__", None)
        object.__setattr__(record, "__pydantic_private__", None)
        return record

    def plain_as(self, kind: type[Record]) -> dict[str, Any]:
        """Plain data of those fields alone that `kind`, a base of this record, has."""
        return {name: value for name, value in self.plain().items() if name in kind.model_fields}

    def plain(self) -> dict[str, Any]:
        """Plain data: dicts, lists, strings, numbers, in the order of the fields."""
        return self.model_dump(mode="json")

    def to_json(self) -> str:
        """JSON text in a stable order, ending in a newline."""
        return json.dumps(self.plain(), indent=2, ensure_ascii=False) + "\n"

    def to_yaml(self) -> str:
        """YAML text in the order of the fields."""
        return write_yaml(self.plain())


class Document(Record):
    """A record that stands alone in a file: its whole text is searched for secrets, machine paths and dumps."""

    MAY_NAME_MACHINE: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def _raw_problems(cls, value: Any) -> Iterator[Finding]:
        return problems(value, cls.MAY_NAME_MACHINE)


def _judged(record: Record) -> Iterator[Finding]:
    names = [name for kind in reversed(type(record).__mro__) for name in vars(kind) if name.startswith("_rule_")]
    for name in dict.fromkeys(names):
        with suppress(AttributeError):  # a rule about a field that is itself wrong cannot be judged
            yield from getattr(record, name)()


def _finding_of(line: Any, owner: type[Record] | None = None) -> Finding:
    where, kind, context = ".".join(map(str, line["loc"])), line["type"], line.get("ctx") or {}
    if kind in RULES:
        return Finding(kind, where, *(str(context.get(key, "")) for key in ("what", "expected", "found", "fix")))
    if kind == "missing":
        return finding("missing-field", where, fix="add it; write `unknown (searched ...)` for an unknown path")
    if kind == "extra_forbidden":
        known = owner.model_fields if owner and len(line["loc"]) == 1 else ()
        near = nearest_names(str(line["loc"][-1]), known) if known else "none of this name"
        return finding("unknown-field", where, near, line["loc"][-1], "correct the name or remove the field")
    if kind == "string_unicode":
        return finding("plain-text", where, "printable text", ascii(line["input"])[:80], "remove half characters")
    found = cut(tidy(repr(line["input"])), 80)
    if kind in ("literal_error", "enum"):
        fix = "use one of the allowed values"
        return finding("allowed-values", where, str(context.get("expected", "")), found, fix)
    return finding("wrong-form", where, line["msg"], found, "correct the value")


def findings_of(error: ValidationError) -> list[Finding]:
    """The broken rules behind a ValidationError, each once, in the order of the record."""
    return list(dict.fromkeys(_finding_of(line) for line in error.errors()))


def findings_in(kind: type[Record], data: Any) -> list[Finding]:
    """All rules that `data` breaks as a record of this kind."""
    try:
        kind.model_validate(data)
    except ValidationError as error:
        return findings_of(error)
    return []


R = TypeVar("R", bound=Record)


def accept(kind: type[R], data: Any, what: str, where: object = None) -> R:
    """`data` as a record.

    Raises:
        ConfigError: it breaks rules; all of them are told.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        found = findings_of(error)
        told = "".join("\n  " + str(item).replace("\n", "\n  ") for item in found)
        raise ConfigError(
            f"{what}: {len(found)} rule{'s' if len(found) > 1 else ''} broken",
            where=where,
            found=told,
            fix=next((item.fix for item in found if item.fix), None),
        ) from None
