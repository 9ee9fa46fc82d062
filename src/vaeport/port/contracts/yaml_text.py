"""YAML as data alone, in and out: the core of YAML 1.2, unique keys, no tags, no aliases. Nothing in it ever runs."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from vaeport.checkpoint.text import cut


class YamlProblemError(ValueError):
    """Text that is not such YAML; the message says why and where."""


def parse_yaml(text: str) -> list[Any]:
    """The documents of a YAML text: mappings, lists, strings, numbers, booleans, None.

    `yes`, `no` and dates stay text, as YAML 1.2 has it.

    Raises:
        YamlProblemError: anything else, and two equal keys in one mapping.
    """
    import yaml

    try:
        return list(yaml.load_all(text, Loader=_loader()))
    except yaml.YAMLError as error:
        raise YamlProblemError(cut(str(error), 300)) from error
    except RecursionError as error:
        raise YamlProblemError("nested too deeply") from error
    except (ValueError, TypeError) as error:  # a number of absurd length, a key that is a mapping
        raise YamlProblemError(cut(str(error))) from error


@cache
def _loader() -> Any:
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """YAML 1.2 core, no more."""

        yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 replaced whole, as PyYAML wants it

        def compose_node(self, parent: Any, index: Any) -> Any:
            """Refuses aliases: a short text could stand for a huge one."""
            if self.check_event(yaml.AliasEvent):
                mark = self.peek_event().start_mark
                raise yaml.composer.ComposerError(None, None, "aliases are not read; write the value out", mark)
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            """Refuses a key that stands twice."""
            made = super().construct_mapping(node, deep)
            if len(made) != len(node.value):
                raise yaml.constructor.ConstructorError(None, None, "a key stands twice in a mapping", node.start_mark)
            return made

    _add_core_types(Loader)
    return Loader


def write_yaml(data: Any) -> str:
    """YAML text that readers of YAML 1.1 and of 1.2 read alike; mappings keep their order."""
    import yaml

    return str(yaml.dump(data, Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=120))


@cache
def _dumper() -> Any:
    import yaml

    class Dumper(yaml.SafeDumper):  # type: ignore[misc]
        """Quotes text that either version would take for a number."""

    _add_core_types(Dumper)
    return Dumper


def _add_core_types(kind: Any) -> None:
    for tag, pattern, starts in (
        ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
        ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
        ("int", r"[-+]?(?:0|[1-9][0-9]*)", list("-+0123456789")),
        ("float", r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ):
        kind.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"(?:{pattern})$"), starts)
