"""Recipes as TOML files, and their values as the command line gives them.

A file has four tables, and may begin with ``base = "NAME"``: then it states only what differs. Field names are unique
across the tables, so that each can be overridden by its name alone: ``minialex train --learning-rate 0.02``.
"""

from __future__ import annotations

import codecs
import json
import tomllib
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any, get_args, get_origin

from minialex.errors import ConfigurationError, nearest
from minialex.recipe.fields import NAMES, TABLES, Recipe, fields, kinds

PRESETS = resources.files("minialex") / "recipe" / "presets"


def built_in() -> list[str]:
    """Names of the recipes in the package; those of ablations at the paper's scale as ``ablations/NAME``."""
    homes = ((PRESETS, ""), (PRESETS / "ablations", "ablations/"))
    files = [prefix + item.name for home, prefix in homes for item in home.iterdir() if item.name.endswith(".toml")]
    return sorted(name.removesuffix(".toml") for name in files)


def _text(name: str) -> str:
    return PRESETS.joinpath(*f"{name}.toml".split("/")).read_text(encoding="utf-8")


def load(name: str) -> Recipe:
    """A recipe from the package by name, or from a TOML file by path.

    Raises:
        ConfigurationError: If there is none, it is not TOML, or a table or field is unknown or wrong.
    """
    if name in built_in():
        return parse(_text(name), f"recipe '{name}'")
    path = Path(name)
    if path.suffix != ".toml" and not path.is_file():
        raise ConfigurationError(
            f"no recipe '{name}'; there are {', '.join(built_in())}, or give a .toml file.{nearest(name, built_in())}"
        )
    return parse(read(path, f"the recipe {path}"), str(path))


def read(path: Path, what: str) -> str:
    """The text of a TOML file; `what` names it in messages.

    Raises:
        ConfigurationError: If it cannot be read, or is not UTF-8.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read {what}: {error.strerror or error}") from None
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in data[:4]:
        raise ConfigurationError(f"cannot read {what}: it is UTF-16; save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")  # some editors begin a file with a byte order mark
    except UnicodeDecodeError as error:
        where = f"line {data[: error.start].count(10) + 1}"
        raise ConfigurationError(f"cannot read {what}: {where} is not UTF-8; save it as UTF-8") from None
    return text


def parse(text: str, where: str, seen: Iterable[str] = ()) -> Recipe:
    """A recipe from TOML text; `where` names it in messages."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{where} is not valid TOML: {error}") from None
    base = tables.pop("base", None)
    if base in seen:
        raise ConfigurationError(f"{where}: base '{base}' leads back to itself")
    recipe = Recipe()
    if base is not None:
        if base not in built_in():
            raise ConfigurationError(f"{where}: no base '{base}'; there are {', '.join(built_in())}")
        recipe = parse(_text(base), f"recipe '{base}'", (*seen, base))
    changes: dict[str, Any] = {}
    for table, entries in tables.items():
        if table not in TABLES or not isinstance(entries, dict):
            raise ConfigurationError(f"{where}: no table [{table}].{nearest(table, TABLES)}")
        known = [name for name, (home, _) in fields().items() if home == table]
        for name, value in entries.items():
            if name not in known:
                raise ConfigurationError(f"{where}: no field '{name}' in [{table}].{nearest(name, known)}")
            changes[name] = value
    try:
        return recipe.replace(**changes)
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}") from None


def parse_value(name: str, text: str) -> Any:
    """The value of a field from the command line's text; lists are separated by commas (or JSON), tables are JSON."""
    if name not in fields():
        raise ConfigurationError(f"no recipe field '{name}'.{nearest(name, fields())}")
    kind = kinds()[name]
    inner = get_args(kind)
    if get_origin(kind) is dict or (inner and get_origin(inner[0]) is dict):
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigurationError(f"recipe field '{name}': expected JSON, got {text!r} ({error})") from None
    if get_origin(kind) is tuple:
        parts = [part.strip(" '\"") for part in text.strip("[]() ").split(",") if part.strip()]
        return tuple(_scalar(name, part, inner[0]) for part in parts)
    return _scalar(name, text, kind)


def _scalar(name: str, text: str, kind: Any) -> Any:
    words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
    try:
        return words[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        raise ConfigurationError(f"recipe field '{name}': expected {NAMES[kind]}, got {text!r}") from None
