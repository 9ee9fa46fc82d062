"""Read a component's `config.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vaeport.checkpoint.files import describe_start, exists, nearest_paths, reading
from vaeport.checkpoint.strict_json import JsonProblemError, parse_json_object
from vaeport.checkpoint.text import cut, listing, short
from vaeport.errors import ConfigError

CONFIG_NAME = "config.json"


def read_config(folder: Path) -> dict[str, Any]:
    """Read `config.json` of a component folder, or a `.json` file named itself, as published.

    Raises:
        ConfigError: it is missing, not a JSON object, or names no `_class_name`.
        BlockedError: the system refuses to read it.
    """
    file = Path(folder) if Path(folder).suffix == ".json" else Path(folder) / CONFIG_NAME
    if not (exists(file) and file.is_file()):
        raise _missing(file)
    with reading(file):
        raw = file.read_bytes()
    try:
        config = parse_json_object(raw)
    except JsonProblemError as error:
        raise ConfigError(
            "config.json is not sound JSON",
            where=file,
            expected="one JSON object with unique keys",
            found=f"{cut(str(error))}; the file looks like {describe_start(file)}",
            fix="correct the file, or download it again",
        ) from error
    name = config.get("_class_name")
    keys = listing([cut(key) for key in config]) or "no keys"
    if not isinstance(name, str) or not name:
        raise ConfigError(
            "config.json does not say which model it configures",
            where=file,
            expected='"_class_name" with the name of the model\'s class',
            found=f'"_class_name": {short(name)}' if "_class_name" in config else keys,
            fix='add "_class_name", such as "AutoencoderKL"; `vaeport models` lists the names',
        )
    return config


def _missing(file: Path) -> ConfigError:
    folder = file.parent
    if not (exists(folder) and folder.is_dir()):
        return ConfigError(
            "the folder of config.json does not exist",
            where=folder,
            expected="a component folder",
            found="a file" if exists(folder) else nearest_paths(folder),
            fix="give the folder that holds config.json",
        )
    with reading(folder):
        components = sorted(path.parent.name for path in folder.glob(f"*/{CONFIG_NAME}"))
        present = sorted(path.name for path in folder.iterdir())
    return ConfigError(
        "the folder has no config.json",
        where=folder,
        expected=CONFIG_NAME,
        found="component folders: " + listing(components) if components else listing(present) or "an empty folder",
        fix=f"give the component's folder, such as {folder / components[0]}"
        if components
        else "put the config.json of these weights beside them",
    )
