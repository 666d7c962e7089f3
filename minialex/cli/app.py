"""The command line, ``minialex``. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

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
from minialex.cli.help import Groups
from minialex.cli.import_ import import_
from minialex.cli.notebooks import notebooks
from minialex.cli.options import FIELDS, options
from minialex.cli.plan import plan
from minialex.cli.predict import predict
from minialex.cli.prepare import prepare
from minialex.cli.recipe import recipe
from minialex.cli.summary import summary
from minialex.cli.train import train
from minialex.errors import ConfigurationError, MinialexError, ResourceError
from minialex.ranks import joining, launch
from minialex.screen import streams
from minialex.screen.quiet import quiet_decoders

app = typer.Typer(
    name="minialex",
    help="All of AlexNet (Krizhevsky, Sutskever, Hinton 2012): train it, evaluate it, look inside it.",
    cls=Groups,
    context_settings={"max_content_width": 100},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def add(group: str, *commands: Callable[..., int | None], name: str | None = None, fields: bool = False) -> None:
    """Turn functions into commands; with `fields` they also take recipe fields as options."""
    for command in commands:
        app.command(name, context_settings=FIELDS if fields else None, rich_help_panel=group)(options(command))


add("Train", train, fields=True)
add("Train", evaluate, predict, recipe, download, prepare)
app.add_typer(look.app, name="look", rich_help_panel="Look inside")
add("Look inside", summary, fields=True)
add("Look inside", features, differences)
add("Exchange weights", import_, name="import")
add("Exchange weights", export)
add("Measure", bench, plan, fields=True)
add("Measure", ablate)
add("Learn and teach", docs, notebooks, grade)
add("Maintain", doctor, backends)
app.add_typer(store.app, name="store", rich_help_panel="Maintain")


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="print the version and exit")] = False) -> None:
    if version:
        from minialex import __version__

        print(f"minialex {__version__}")
        raise typer.Exit(0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with the code that `minialex.errors` gives."""
    streams.take_over()
    quiet_decoders()
    code = joining.leave(run(sys.argv[1:] if arguments is None else list(arguments)))
    lost = streams.lost_output()
    if lost is not None:
        streams.complain("error", f"standard output cannot be written: {lost.strerror}")
    sys.exit(code or (0 if lost is None else ResourceError.exit_code))


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return the exit code; errors are one line on standard error."""
    debug = "--debug" in arguments or bool(os.environ.get("MINIALEX_DEBUG"))
    try:
        try:
            if launch.launcher() is not None:
                joining.join()
        finally:
            joining.hear_signals()
        result: object = app(list(arguments) or ["--help"], standalone_mode=False, obj=list(arguments))
        return result if isinstance(result, int) else 0
    except MinialexError as error:
        return _say(error, error.exit_code, str(error), debug)
    except typer.Abort:
        return 130
    except typer.Exit as error:
        return error.exit_code
    except KeyboardInterrupt:
        words = "interrupted; the last checkpoint is valid"
        if not joining.failed(words):
            streams.complain("error", words)
        return 130
    except OSError as error:
        return _say(error, *_of_the_system(error), debug)
    except ModuleNotFoundError as error:
        return _say(error, *_of_an_import(error), debug)
    except MemoryError as error:
        return _say(error, 6, "out of memory; try a smaller --batch-size", debug)
    except Exception as error:
        if hasattr(error, "format_message"):  # Typer's own error about the command line
            return _say(error, 2, _of_the_command_line(error), debug)
        words = " ".join(str(error).split())
        if words.startswith("Symlink loop"):  # pathlib raises RuntimeError before Python 3.13
            return _say(error, 2, f"{words}: check the path", debug)
        return _say(error, 1, f"{type(error).__name__}: {words} (a bug in minialex: run it again with --debug)", debug)


def _say(error: BaseException, code: int, text: str, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exception(error)
    text = text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} … {text[-LONGEST // 2 :]}"
    if not joining.failed(text):  # of several ranks one reports it, when they leave
        streams.complain("error", text)
    return code


LONGEST = 1500
"""The most characters in a message: a path may have thousands, and the end of the message says what to do."""

PLAIN_WORDS = {
    "Input should be a valid integer, unable to parse string as an integer": "expected a whole number",
    "Input should be a valid number, unable to parse string as a number": "expected a number",
    "Input should be greater than or equal to ": "expected at least ",
    "Input should be less than or equal to ": "expected at most ",
    "Got unexpected extra argument(s)": "unexpected argument",
}
"""What Typer says of the command line, for people who have not written the program."""


def _of_the_command_line(error: Any) -> str:
    """One line for Typer's own error, and where the command's options are explained."""
    text = " ".join(error.format_message().split())
    for theirs, ours in PLAIN_WORDS.items():
        text = text.replace(theirs, ours)
    names: list[str] = []
    context = getattr(error, "ctx", None)
    while context is not None and context.parent is not None:  # the outermost is the program, whatever its name
        names.insert(0, str(context.info_name))
        context = context.parent
    return f"{text.rstrip('.')}. `minialex {' '.join(names)} --help` explains the command" if names else text


OF_A_PATH = (
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EEXIST, errno.ENOTEMPTY,
    errno.EACCES, errno.EPERM, errno.EROFS, errno.EINVAL, errno.ENXIO,
)  # fmt: skip
"""Error numbers that mean a path cannot be used, rather than that the machine has failed."""


def _of_the_system(error: OSError) -> tuple[int, str]:
    """The exit code and the message for an error that no command has explained better."""
    what = " and ".join(repr(os.fsdecode(name)) for name in (error.filename, error.filename2) if name)
    text = f"{what}: {error.strerror or error}" if what else str(error.strerror or error)
    if error.errno in OF_A_PATH:
        return ConfigurationError.exit_code, f"{text}: check the path"
    return ResourceError.exit_code, text


EXTRAS = {
    "hypothesis": "conformance", "pytest": "conformance", "faiss": "look", "pyarrow": "look", "scipy": "studies",
    "onnx": "export", "google": "export", "jupytext": "notebooks", "nbformat": "notebooks", "nbclient": "notebooks",
    "ipykernel": "notebooks", "mpi4py": "mpi", "cupy": "cuda", "cuda": "cuda", "cudnn": "cudnn", "mkdocs": "docs",
}  # fmt: skip
"""Package -> the extra that installs it."""


def _of_an_import(error: ModuleNotFoundError) -> tuple[int, str]:
    """The exit code, and the command that installs what is missing."""
    package = (error.name or "").partition(".")[0]
    extra = f"[{EXTRAS[package]}]" if package in EXTRAS else ""
    return ConfigurationError.exit_code, f"the package '{package}' is not installed: pip install 'minialex{extra}'"
