"""Options that several commands share, and the decorator that turns a function into a Typer command.

Everything else that a command needs is imported inside its function, because ``minialex --help`` reads all commands.
"""

from __future__ import annotations

import inspect
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from minialex.errors import ConfigurationError, nearest
from minialex.ranks import joining

if TYPE_CHECKING:
    from minialex.backend.protocol import Backend
    from minialex.ranks.group import Group
    from minialex.recipe.fields import Recipe

FIELDS = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Typer's settings for a command that also takes recipe fields as options: see `overrides`."""


def recipe_names(incomplete: str) -> list[str]:
    """The built-in recipes whose names begin with `incomplete`, for the shell's completion."""
    from minialex.recipe.toml import built_in

    return [name for name in built_in() if name.startswith(incomplete)]


BackendOption = Annotated[str | None, typer.Option("--backend", help="an installed backend; see `minialex backends`")]
DevicesOption = Annotated[
    str | None, typer.Option("--devices", help="one device for all columns, or one per column: 0,1 or cpu:0,cpu:1")
]
ThreadsOption = Annotated[int | None, typer.Option("--threads", min=1, help="number of threads the backend uses")]
PrecisionOption = Annotated[
    str | None,
    typer.Option("--precision", help="float32, tf32 or bfloat16, if the backend has a choice; default the run's"),
]
DebugOption = Annotated[bool, typer.Option("--debug", help="show the full traceback if there is an error")]
RecipeOption = Annotated[
    str, typer.Option("--recipe", help="a recipe's name or a .toml file", autocompletion=recipe_names)
]
DataOption = Annotated[str | None, typer.Option("--data", help="use this data set instead of the run's own")]
BatchOption = Annotated[int, typer.Option("--batch-size", min=1, help="images computed at once")]
RanksOption = Annotated[
    int | None, typer.Option("--ranks", min=1, help="number of processes that share the work, started by MPI")
]
HostsOption = Annotated[
    str | None, typer.Option("--hosts", help="machines that the ranks run on: a:8,b:8; default this one")
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="replace existing files")]
Network = Annotated[Path, typer.Argument(help="a run folder, checkpoint or weights file")]


@dataclass(frozen=True)
class Machine:
    """What does the computing: three options that a command takes as one parameter."""

    backend: BackendOption = None
    devices: DevicesOption = None
    threads: ThreadsOption = None

    def load(self, precision: str | None = None, group: Group | None = None) -> Backend:
        """The requested backend, or this machine's default; ranks of one machine share its cores."""
        from minialex.backend import registry

        threads = self.threads
        if threads is None and group is not None and group.size > 1:
            from minialex.engine.opening import threads_of_rank

            threads = threads_of_rank(group, self.backend or registry.default_name())
        return registry.load(self.backend, threads=threads, precision=precision)


def is_launcher(ranks: int | None, hosts: str | None) -> bool:
    """Whether this process should start ranks, and is not one itself.

    Raises:
        ConfigurationError: If the options do not fit together, or do not fit what started this process.
    """
    from minialex.ranks import launch

    started = launch.launcher()
    if started is not None and ranks not in (None, started.size):
        raise ConfigurationError(f"started as one of {started.size} processes, but --ranks is {ranks}: leave it out")
    if hosts is not None and ranks is None:
        raise ConfigurationError("--hosts says where ranks run: also give --ranks")
    return started is None and ranks is not None and ranks > 1


def options(command: Callable[..., int | None]) -> Callable[..., int | None]:
    """Make a command for Typer: a dataclass parameter becomes one option per field, and every command takes --debug.

    `minialex.cli.app.run` looks for ``--debug`` itself, so the commands need not.
    """
    bundles: dict[str, Any] = {name: hint for name, hint in get_type_hints(command).items() if is_dataclass(hint)}
    debug = inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=DebugOption)
    parameters = [*_parameters(command), debug]

    @wraps(command)
    def call(**values: Any) -> int | None:
        del values["debug"]
        for name, bundle in bundles.items():
            values[name] = bundle(**{field.name: values.pop(field.name) for field in fields(bundle)})
        try:
            return command(**values)
        except KeyboardInterrupt:  # Typer would only make it an exit code, and the other ranks would wait for this one
            joining.failed("interrupted")
            raise

    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call


def _parameters(function: Callable[..., Any]) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        if is_dataclass(hints[name]):
            yield from _parameters(hints[name])
        else:
            yield parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)


def overrides(extra: Sequence[str]) -> dict[str, Any]:
    """Recipe fields from the options that a command does not know: ``--learning-rate 0.02``, ``--colour=0``."""
    from minialex.recipe.fields import fields
    from minialex.recipe.toml import parse_value

    changes: dict[str, Any] = {}
    words = list(extra)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise ConfigurationError(f"unexpected argument '{word}'{_meant(word)}")
        option, equals, value = word[2:].partition("=")
        name = option.replace("-", "_")
        if name not in fields():
            hint = nearest(option, [field.replace("_", "-") for field in fields()])
            raise ConfigurationError(
                f"no option or recipe field '--{option}'.{hint} `minialex recipe` lists all fields"
            )
        if not equals:
            if not words:
                raise ConfigurationError(f"option '--{option}' needs a value")
            value = words.pop(0)
        changes[name] = parse_value(name, value)
    return {**of_network(changes["model"]), **changes} if "model" in changes else changes


def _meant(word: str) -> str:
    """The option that a word without one was probably meant for."""
    from minialex.data import NAMES
    from minialex.recipe.toml import built_in

    if word.partition(":")[0] in NAMES or (Path(word).is_dir() and not word.startswith("-")):
        return f". Did you mean --data {word}?"
    return f". Did you mean --recipe {word}?" if word in built_in() or word.endswith(".toml") else ""


def of_network(model: str) -> dict[str, Any]:
    """The fields that a user's own network sets: its name as a recipe stores it, and the size of its images."""
    from minialex.network import own
    from minialex.recipe.fields import is_own

    return own.changes_for(model) if is_own(model) else {}


def with_classes(recipe: Recipe) -> Recipe:
    """A recipe whose number of classes comes from its data, completed with that of the network's usual data set."""
    if recipe.classes:
        return recipe
    return recipe.replace(classes=1000 if recipe.model == "alexnet" else 10)


def check_writable(path: Path | None, option: str, ending: str = "") -> None:
    """Report right away, before anything takes time, that a file cannot be written.

    Raises:
        ConfigurationError: If its folder is missing, the path is a folder, or a picture's name has the wrong ending.
    """
    if path is None:
        return
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except FileNotFoundError:
        is_folder = False
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}: check the path") from None
    if is_folder:
        raise ConfigurationError(f"cannot write {path}: it is a folder; name a file")
    if not path.absolute().parent.is_dir():
        raise ConfigurationError(f"cannot write {path}: there is no folder {path.parent}")
    if ending and path.suffix.lower() != ending:
        why = "pictures are PNG files; " if ending == ".png" else ""
        raise ConfigurationError(f"{option} {path}: {why}give a name that ends with {ending}")


def refuse_existing(paths: Sequence[Path], overwrite: bool) -> None:
    """Refuse to write over existing files unless they may be replaced."""
    for path in paths:
        if path.exists() and not overwrite:
            raise ConfigurationError(f"{path} already exists: choose another name, or give --overwrite")
