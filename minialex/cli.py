"""The command line: ``minialex``. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from minialex.errors import ConfigurationError, MinialexError

app = typer.Typer(
    name="minialex",
    help="AlexNet (Krizhevsky, Sutskever, Hinton 2012), whole: train it, evaluate it, look inside.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

BackendOption = Annotated[str | None, typer.Option("--backend", help="installed backend; see `minialex backends`")]
DevicesOption = Annotated[
    str | None, typer.Option("--devices", help="one device for all columns, or one a column: 0,1 or cpu:0,cpu:1")
]
ThreadsOption = Annotated[int | None, typer.Option("--threads", min=1, help="threads of the backend")]
DebugOption = Annotated[bool, typer.Option("--debug", help="show the traceback of an error")]

EXTRA = {"allow_extra_args": True, "ignore_unknown_options": True}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with the code that `minialex.errors` gives (see RELIABILITY in the docs)."""
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


def overrides(extra: Sequence[str]) -> dict[str, Any]:
    """Recipe fields from the options that a command does not know: ``--learning-rate 0.02``, ``--colour=0``."""
    from minialex.errors import nearest
    from minialex.recipe import fields, parse_value

    changes: dict[str, Any] = {}
    words = list(extra)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise ConfigurationError(f"unexpected argument '{word}'")
        option, equals, value = word[2:].partition("=")
        name = option.replace("-", "_")
        if name not in fields():
            known = [field.replace("_", "-") for field in fields()]
            raise ConfigurationError(
                f"no option or recipe field '--{option}'.{nearest(option, known)} `minialex recipe` lists all fields"
            )
        if not equals:
            if not words:
                raise ConfigurationError(f"option '--{option}' needs a value")
            value = words.pop(0)
        changes[name] = parse_value(name, value)
    return changes


@app.command(context_settings=EXTRA)
def train(
    context: typer.Context,
    data: Annotated[
        str | None,
        typer.Option(help="shapes, cifar10, fashion-mnist (also NAME:PLACE), or a folder of images; default shapes"),
    ] = None,
    backend: BackendOption = None,
    devices: DevicesOption = None,
    threads: ThreadsOption = None,
    recipe: Annotated[str | None, typer.Option(help="a recipe's name or a .toml file; see `minialex recipe`")] = None,
    epochs: Annotated[int | None, typer.Option(help="passes over the training set")] = None,
    batch_size: Annotated[int | None, typer.Option(help="images of one step")] = None,
    seed: Annotated[int | None, typer.Option(help="of every random number of the run")] = None,
    init: Annotated[
        str | None,
        typer.Option(help="begin with a run's, checkpoint's or weights file's layers; or gaussian, he: draw all anew"),
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="go on with this run folder")] = None,
    out: Annotated[Path | None, typer.Option(help="the new run's folder; default runs/NAME-DATE")] = None,
    debug: DebugOption = False,
) -> int:
    """Train a network. Any recipe field can be given too: --learning-rate 0.02 --dropout 0 …

    Without options: the small two-column AlexNet on generated shapes, about a minute on two cores.
    """
    changes = overrides(context.args)
    given = {"epochs": epochs, "batch_size": batch_size, "seed": seed, "data": data}
    given |= {"backend": backend, "devices": devices}
    if init is not None:
        given["init" if init in ("gaussian", "he") else "init_from"] = init
    changes |= {name: value for name, value in given.items() if value is not None}
    from minialex import commands

    return commands.train(recipe, changes, threads, resume, out)


@app.command()
def evaluate(
    runs: Annotated[list[Path], typer.Argument(help="run folders, checkpoints or weights files; several are averaged")],
    views: Annotated[int, typer.Option(help="1, the centre, or 10, corners and centre with reflections")] = 1,
    data: Annotated[str | None, typer.Option(help="another data set than the run's own")] = None,
    backend: BackendOption = None,
    devices: DevicesOption = None,
    threads: ThreadsOption = None,
    batch_size: Annotated[int, typer.Option(min=1, help="images at a time")] = 100,
    per_class: Annotated[bool, typer.Option("--per-class", help="a table of all classes too")] = False,
    reliability: Annotated[Path | None, typer.Option(help="draw the reliability diagram there (.png)")] = None,
    json: Annotated[bool, typer.Option("--json", help="print everything as JSON instead")] = False,
    debug: DebugOption = False,
) -> int:
    """Validation errors of a run, of ten views of each image, or of several runs averaged."""
    from minialex import evaluating

    return evaluating.evaluate(runs, views, data, backend, devices, threads, batch_size, per_class, reliability, json)


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="a run folder, checkpoint or weights file")],
    images: Annotated[list[Path], typer.Argument(help="image files")],
    views: Annotated[int, typer.Option(help="1 or 10 views averaged")] = 1,
    picture: Annotated[Path, typer.Option(help="where the picture goes")] = Path("predictions.png"),
    backend: BackendOption = None,
    devices: DevicesOption = None,
    threads: ThreadsOption = None,
    debug: DebugOption = False,
) -> int:
    """The five most probable classes of images, as text and as a picture like the paper's figure 4."""
    from minialex import commands

    return commands.predict(run, images, views, picture, backend, devices, threads)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="a run folder, checkpoint or weights file")],
    out: Annotated[Path, typer.Argument(help="the new file: .safetensors, .onnx, or .pt with a module beside it")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace files that are there")] = False,
    debug: DebugOption = False,
) -> None:
    """Write a network's weights for others: a weights file, ONNX, or PyTorch; each with a model card."""
    from minialex.exchange import commands

    for path in commands.export(run, out, overwrite):
        print(path)


@app.command("import")
def import_(
    source: Annotated[
        Path, typer.Argument(help="PyTorch's or torchvision's .pt, .pth, .safetensors, or a .caffemodel")
    ],
    out: Annotated[Path, typer.Argument(help="the new weights file, .safetensors")],
    recipe: Annotated[str | None, typer.Option(help="recipe of a file whose tensors have our names")] = None,
    class_names: Annotated[
        Path | None, typer.Option(help="text file, one name a line; or a run of those classes")
    ] = None,
    mean: Annotated[Path | None, typer.Option(help="Caffe's mean image, .binaryproto or .npy")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace files that are there")] = False,
    debug: DebugOption = False,
) -> None:
    """Make a weights file of other programs' weights; nothing in those files is run."""
    from minialex.exchange import commands

    found = commands.import_(source, out, recipe, class_names, mean, overwrite)
    print(
        f"{out}: {found.recipe.classes} classes, {found.recipe.columns} column(s); evaluate, predict and train take it"
    )


@app.command(context_settings=EXTRA)
def summary(
    context: typer.Context,
    recipe: Annotated[str, typer.Option(help="a recipe's name or a .toml file")] = "paper",
    batch_size: Annotated[int | None, typer.Option(min=1, help="for the memory of a step")] = None,
    debug: DebugOption = False,
) -> None:
    """A network in numbers: shapes, who reads whom, parameters, neurons, multiply-adds, memory."""
    from minialex import commands

    commands.summary(recipe, overrides(context.args), batch_size)


@app.command(context_settings=EXTRA)
def bench(
    context: typer.Context,
    recipe: Annotated[str, typer.Option(help="a recipe's name or a .toml file")] = "paper",
    kind: Annotated[str, typer.Option(help="train, a training step, or infer, one view of a batch")] = "train",
    backend: BackendOption = None,
    devices: DevicesOption = None,
    threads: ThreadsOption = None,
    batch_size: Annotated[int | None, typer.Option(help="images of one step; default the recipe's")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="steps that are timed whole, and as many part by part")] = 5,
    floors: Annotated[bool, typer.Option(help="measure the machine's peak and show each part's floor")] = True,
    json: Annotated[Path | None, typer.Option("--json", help="write all figures there")] = None,
    picture: Annotated[Path | None, typer.Option(help="draw them there, a .png file")] = None,
    debug: DebugOption = False,
) -> None:
    """Where the time goes: a step of any network on any backend, in total and layer by layer, beside its floor.

    Images are random numbers. Any recipe field can be given too: --columns 1 --dtype float64 …
    """
    changes = overrides(context.args)
    if batch_size is not None:
        changes["batch_size"] = batch_size
    from minialex import commands

    commands.bench(recipe, changes, kind, backend, devices, threads, repeats, floors, json, picture)


@app.command()
def backends(debug: DebugOption = False) -> None:
    """Installed backends with their devices, or the reason why they cannot be used here."""
    from minialex import commands

    commands.backends()


@app.command()
def recipe(
    name: Annotated[str | None, typer.Argument(help="a recipe to print whole")] = None, debug: DebugOption = False
) -> None:
    """List the recipes and all fields with their meaning, or print one recipe as TOML."""
    from minialex import commands

    commands.recipe(name)


@app.command()
def differences(debug: DebugOption = False) -> None:
    """Where the paper and the original 2012 program differ: 28 points, and the fields that choose."""
    from minialex import commands

    commands.differences()


@app.command()
def download(
    name: Annotated[str, typer.Argument(help="cifar10 or fashion-mnist")],
    folder: Annotated[Path | None, typer.Option(help="where to; default ~/.cache/minialex")] = None,
    debug: DebugOption = False,
) -> None:
    """Fetch a data set from its official place and check it."""
    from minialex import commands

    commands.download(name, folder)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="print the version and exit")] = False) -> None:
    if version:
        from minialex import __version__

        print(f"minialex {__version__}")
        raise typer.Exit(0)
