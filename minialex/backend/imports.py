"""Imports a user's object by name: ``mine.py:net`` from a file, or ``package.module:net`` from a module."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any

from minialex.errors import ConfigurationError, MinialexError, nearest


def find(what: str, text: str) -> Any:
    """The object that a text names.

    Args:
        what: what it should be, for messages (``"network"``)
        text: ``FILE.py:NAME`` (a path, from the current folder), or ``MODULE:NAME`` (also searched in the current
            folder)

    Raises:
        ConfigurationError: If there is no such file, module or name, or importing it fails; with the reason.
    """
    place, _, name = text.rpartition(":")
    if not place or not name:
        raise ConfigurationError(f"no {what} '{text}': expected FILE.py:NAME or MODULE:NAME")
    module = load_module(what, place)
    found: Any = module
    try:
        for part in name.split("."):
            found = getattr(found, part)
    except AttributeError:
        hint = nearest(name, [key for key in vars(module) if not key.startswith("_")])
        raise ConfigurationError(f"no {what} '{text}': {place} has no '{name}'.{hint}") from None
    return found


def load_module(what: str, place: str) -> ModuleType:
    """The module that a file or a dotted name names, imported once.

    Raises:
        ConfigurationError: If there is none, or importing it fails; with the reason.
    """
    try:
        return _of_file(what, Path(place)) if place.endswith(".py") else _of_name(place)
    except MinialexError:
        raise
    except ModuleNotFoundError as error:
        if not f"{place}.".startswith(f"{error.name}."):
            raise ConfigurationError(
                f"no {what} from '{place}', which needs '{error.name}', and that is not installed"
            ) from None
        raise ConfigurationError(
            f"no {what} from '{place}': there is no module of this name in {os.getcwd()} or where Python looks "
            f"(PYTHONPATH, installed packages); change to its folder, or name its file: FOLDER/{error.name}.py"
        ) from None
    except (Exception, SystemExit) as error:  # any error in a user's own file becomes the reason, not our crash
        reason = f"{type(error).__name__}: {error}"
        raise ConfigurationError(f"no {what} from '{place}', which cannot be imported: {reason}") from error


def _of_name(name: str) -> ModuleType:
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    return importlib.import_module(name)


def _of_file(what: str, path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigurationError(f"no {what} from '{path}': no such file in {path.absolute().parent}")
    path = path.resolve()
    name = path.stem
    if getattr(sys.modules.get(name), "__file__", str(path)) != str(path) or not name.isidentifier():
        name = f"{name}_{zlib.crc32(str(path).encode()):08x}"  # never replaces another module
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look themselves up
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # modules beside it may be imported
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
