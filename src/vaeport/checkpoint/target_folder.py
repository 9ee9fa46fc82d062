"""The folder a save goes to: what it may hold already, and how the new one takes its place."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from vaeport.checkpoint.config import CONFIG_NAME, read_config
from vaeport.checkpoint.files import exists, reading
from vaeport.checkpoint.layout import SAVE_STEM, parse_weight_name
from vaeport.checkpoint.text import cut, listing, size_text
from vaeport.errors import ConfigError, InputError


def weights_to_keep(folder: Path, class_name: str, variant: str | None) -> list[str]:
    """Weight files to carry over into the new folder.

    Raises:
        InputError: the folder holds anything but a former save of the same class.
    """
    if not os.path.lexists(folder):
        return []
    with reading(folder):
        names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else [folder.name]
    if folder.is_dir() and not names:
        return []
    foreign = [name for name in names if name != CONFIG_NAME and not parse_weight_name(name)]
    found = listing(foreign)
    if not foreign:
        try:
            former = read_config(folder)["_class_name"]
        except ConfigError as error:
            former = error.what
        found = "" if former == class_name else cut(former)
    if found:
        raise InputError(
            "the folder holds something other than a former save of this model; nothing was written",
            where=folder,
            expected=f"a new or empty folder, or a save of {class_name}",
            found=found,
            fix="save to a new folder",
        )
    return [name for name in names if name != CONFIG_NAME and not _is_replaced(name, variant)]


def _is_replaced(name: str, variant: str | None) -> bool:
    match = parse_weight_name(name)
    groups = match.groupdict() if match else {}
    theirs = groups.get("variant") or groups.get("late_variant")
    return groups.get("stem") == SAVE_STEM and groups.get("suffix") == "safetensors" and theirs == variant


def carry_over(source: Path, target: Path) -> None:
    """Bring a file, link or folder of the old target over to the new one."""
    if source.is_symlink():
        target.symlink_to(source.readlink())
        return
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copy2(source, target)


def move_in(staging: Path, folder: Path) -> None:
    """Put `staging` in the place of `folder`; if that fails, what was there is there again."""
    if not folder.exists():
        staging.rename(folder)
        return
    former = staging.with_suffix(".replaced")
    folder.rename(former)
    try:
        staging.rename(folder)
    except BaseException:
        former.rename(folder)
        raise
    shutil.rmtree(former, ignore_errors=True)


def free_space(folder: Path) -> str:
    """What is left on the disk of the nearest folder that exists, in words."""
    while not exists(folder):
        folder = folder.parent
    return f"{size_text(shutil.disk_usage(folder).free)} free"
