"""The command line: ``minialex``. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from minialex.cli import look, store
from minialex.cli.ablate import ablate
from minialex.cli.backends import backends
from minialex.cli.bench import bench
from minialex.cli.differences import differences
from minialex.cli.docs import docs
from minialex.cli.doctor import doctor
from minialex.cli.download import download
from minialex.cli.evaluate import evaluate
from minialex.cli.export import export
from minialex.cli.features import features
from minialex.cli.grade import grade
from minialex.cli.import_ import import_
from minialex.cli.notebooks import notebooks
from minialex.cli.options import FIELDS, options
from minialex.cli.plan import plan
from minialex.cli.predict import predict
from minialex.cli.prepare import prepare
from minialex.cli.recipe import recipe
from minialex.cli.summary import summary
from minialex.cli.train import train
from minialex.errors import MinialexError
from minialex.screen.quiet import quiet_decoders

app = typer.Typer(
    name="minialex",
    help="AlexNet (Krizhevsky, Sutskever, Hinton 2012), whole: train it, evaluate it, look inside.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def add(*commands: Callable[..., int | None], name: str | None = None, fields: bool = False) -> None:
    """Make commands of functions; with `fields` they take recipe fields as options, too."""
    for command in commands:
        app.command(name, context_settings=FIELDS if fields else None)(options(command))


add(features)
add(train, fields=True)
add(evaluate, predict, export)
add(import_, name="import")
add(summary, bench, plan, fields=True)
add(ablate, docs, doctor, backends, grade, recipe, differences, download, notebooks, prepare)
app.add_typer(look.app, name="look")
app.add_typer(store.app, name="store")


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="print the version and exit")] = False) -> None:
    if version:
        from minialex import __version__

        print(f"minialex {__version__}")
        raise typer.Exit(0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with the code that `minialex.errors` gives."""
    quiet_decoders()
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    sys.exit(run(arguments))


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return the exit code; errors are one line on standard error."""
    debug = "--debug" in arguments or bool(os.environ.get("MINIALEX_DEBUG"))
    try:
        result: object = app(list(arguments) or ["--help"], standalone_mode=False)
        return result if isinstance(result, int) else 0
    except MinialexError as error:
        return _say(error, error.exit_code, debug)
    except typer.Abort:
        return 130
    except typer.Exit as error:
        return error.exit_code
    except KeyboardInterrupt:
        print("error: interrupted; the last checkpoint is valid", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read us has gone
        return 1
    except MemoryError as error:
        return _say(error, 6, debug, "out of memory; try a smaller --batch-size")
    except Exception as error:
        if hasattr(error, "format_message"):  # typer's own complaint about the command line
            return _say(error, 2, debug, error.format_message())
        return _say(error, 1, debug, f"{type(error).__name__}: {error} (a bug in minialex: run again with --debug)")


def _say(error: BaseException, code: int, debug: bool, text: str | None = None) -> int:
    if debug:
        import traceback

        traceback.print_exception(error)
    line = " ".join(str(error if text is None else text).split())
    print(f"error: {line}", file=sys.stderr)
    return code
