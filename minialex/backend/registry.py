"""Backends by name: entry points of the group ``minialex.backends``, each loaded only when asked for.

A third party's package joins with two lines in its ``pyproject.toml``::

    [project.entry-points."minialex.backends"]
    theirs = "their_package:TheirBackend"

Its class may state more than the protocol asks: ``priority``, its rank as the default; ``keeps_kernels``, whether
compiled kernels are kept on disk; and ``diagnose``, what it knows about its devices (`minialex.backend.findings`).

Listing only reads package metadata: of installed packages or, if there are none, the ``pyproject.toml`` of the
source tree that contains this file. Loading imports one backend, compares it with the protocol by reflection, and
builds it; an error there becomes the reason why that backend cannot be used, and affects no other.
"""

from __future__ import annotations

import inspect
import os
import re
import tomllib
import warnings
from contextlib import suppress
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, cast

from minialex.backend.imports import find
from minialex.backend.protocol import MOVERS, OPERATIONS, Backend
from minialex.errors import BackendUnavailable, ConfigurationError, MinialexError, nearest

GROUP = "minialex.backends"


def installed() -> dict[str, EntryPoint]:
    """Entry points of the installed backends by name, sorted; none is imported.

    Raises:
        ConfigurationError: If two packages claim one name for different classes.
    """
    found: dict[str, EntryPoint] = {}
    for point in sorted(entry_points(group=GROUP) or _of_source_tree(), key=lambda point: point.name):
        earlier = found.setdefault(point.name, point)
        if earlier.value != point.value:
            raise ConfigurationError(
                f"two packages define the backend '{point.name}': {earlier.value} and {point.value}; uninstall one"
            )
    return found


def _of_source_tree() -> list[EntryPoint]:
    """The entry points that an installation would have; none if this is not a source tree."""
    path = Path(__file__).parents[2] / "pyproject.toml"
    if not path.is_file():
        return []
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    if project["name"] != "minialex":
        return []
    return [EntryPoint(name, value, GROUP) for name, value in project["entry-points"][GROUP].items()]


def default_name() -> str:
    """The backend used if none is named: of those that can be imported, the one whose class has the highest `priority`.

    A class without that attribute is only used by name.

    Raises:
        ConfigurationError: If no installed backend has one, or the environment prevents the search.
    """
    ranks: dict[str, int] = {}
    for name in installed():
        with suppress(BackendUnavailable):
            ranks[name] = getattr(kind(name), "priority", -1)
    best = max(ranks, key=ranks.__getitem__, default=None)
    if best is None or ranks[best] < 0:
        raise ConfigurationError(f"no installed backend ({', '.join(installed()) or 'none'}) is a default; name one")
    return best


def kind(name: str) -> type:
    """The class of a backend, by name or as ``file.py:Class``: imported and compared with the protocol, but not built.

    Raises:
        ConfigurationError: If no backend has that name.
        BackendUnavailable: If it cannot be imported or does not follow the protocol, with the reason.
    """
    points = installed()
    if name not in points and ":" not in name:
        raise ConfigurationError(f"no backend named '{name}'; installed: {', '.join(points)}.{nearest(name, points)}")
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found: type = find("backend", name) if ":" in name else points[name].load()
        for warning in said:
            _pass_on(warning)
    except MinialexError:
        raise
    except Exception as error:  # any error in a third party's package becomes the reason, not our crash
        raise BackendUnavailable(f"backend '{name}' cannot be used: {type(error).__name__}: {error}") from error
    faults = protocol_faults(found)
    if faults:
        raise BackendUnavailable(f"backend '{name}' does not follow the protocol: {'; '.join(faults)}")
    return found


def _pass_on(warning: warnings.WarningMessage) -> None:
    """Pass on a library's warnings during its import; one about an environment variable becomes a one-line error."""
    name = re.search(r"Environment variable '(\w+)'", str(warning.message))
    if name:
        raise ConfigurationError(
            f"the environment variable {name[1]}={os.environ.get(name[1], '')} cannot be used: unset it, or give it "
            "another value"
        )
    warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def protocol_faults(backend: type) -> list[str]:
    """Where a class departs from the protocol: operations missing, renamed, or with other parameters."""
    names = (*MOVERS, *OPERATIONS, "compile_step", *(("apply",) if hasattr(backend, "apply") else ()))
    faults = [fault for name in names if (fault := signature_fault(name, inspect.getattr_static(backend, name, None)))]
    faults += [f"'{name}' is missing" for name in ("name", "devices") if not hasattr(backend, name)]
    return faults


def signature_fault(name: str, member: Any) -> str | None:
    """What is wrong with a class member (or a function) as the protocol's method of that name, or None."""
    if member is None:
        return f"'{name}' is missing"
    if isinstance(member, staticmethod):
        member = member.__func__
    if not callable(member):
        return f"'{name}' is not callable"
    expected, actual = _parameters(getattr(Backend, name)), _parameters(member)
    return None if actual == expected else f"'{name}' takes ({', '.join(actual)}), expected ({', '.join(expected)})"


def _parameters(function: Any) -> list[str]:
    """Parameters as text, ``*`` before the keyword-only ones, without ``self``."""
    texts: list[str] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in texts:
            texts.append("*")
        default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
        texts.append(parameter.name + default)
    return texts


def load(name: str | None = None, *, threads: int | None = None, precision: str | None = None) -> Backend:
    """Import and build a backend.

    Args:
        name: the name of an installed backend, or a class as ``file.py:Class`` or ``package.module:Class`` (see
            `minialex.backend.imports.find`); None for the default
        threads: number of threads it may use, for backends that have threads; None leaves it to the backend
        precision: of its matrix products, for backends that have a choice: ``"float32"``, ``"tf32"`` or ``"bfloat16"``

    Raises:
        ConfigurationError: If no backend has that name, or it does not accept an option that is given.
        BackendUnavailable: If it cannot run here or does not follow the protocol, with the reason.
    """
    name = name or default_name()
    found = kind(name)
    try:
        return build(name, found, threads=threads, precision=precision)
    except MinialexError:
        raise
    except Exception as error:
        raise BackendUnavailable(f"backend '{name}' cannot be used: {type(error).__name__}: {error}") from error


def build(name: str, kind: type, *, threads: int | None = None, precision: str | None = None) -> Backend:
    """An instance of a backend's class, whose constructor gets the options that are not None and no others.

    Every backend computes in float32, so that precision needs no parameter.

    Raises:
        ConfigurationError: If the class does not accept an option that is given.
    """
    given = {option: value for option, value in (("threads", threads), ("precision", precision)) if value is not None}
    parameters = inspect.signature(kind).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        for option in [option for option in given if option not in parameters]:
            if option == "precision" and given[option] == "float32":
                del given[option]
                continue
            hint = "; it computes in float32: give --precision float32" if option == "precision" else ""
            raise ConfigurationError(f"the {name} backend has no --{option}{hint}")
    return cast(Backend, kind(**given))
