"""The command line: ``minialex``. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from minialex.cli.look import app as look
from minialex.cli.look import features
from minialex.cli.options import BackendOption, DebugOption, DevicesOption, PrecisionOption, ThreadsOption
from minialex.errors import ConfigurationError, MinialexError

app = typer.Typer(
    name="minialex",
    help="AlexNet (Krizhevsky, Sutskever, Hinton 2012), whole: train it, evaluate it, look inside.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.add_typer(look, name="look")
app.command()(features)

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
    from minialex.recipe.fields import fields
    from minialex.recipe.toml import parse_value

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
    from minialex.cli import commands

    return commands.train(recipe, changes, threads, resume, out)


@app.command()
def evaluate(
    runs: Annotated[list[Path], typer.Argument(help="run folders, checkpoints or weights files; several are averaged")],
    views: Annotated[int, typer.Option(help="1, the centre, or 10, corners and centre with reflections")] = 1,
    data: Annotated[str | None, typer.Option(help="another data set than the run's own")] = None,
    backend: BackendOption = None,
    devices: DevicesOption = None,
    threads: ThreadsOption = None,
    precision: PrecisionOption = None,
    batch_size: Annotated[int, typer.Option(min=1, help="images at a time")] = 100,
    per_class: Annotated[bool, typer.Option("--per-class", help="a table of all classes too")] = False,
    reliability: Annotated[Path | None, typer.Option(help="draw the reliability diagram there (.png)")] = None,
    json: Annotated[bool, typer.Option("--json", help="print everything as JSON instead")] = False,
    debug: DebugOption = False,
) -> int:
    """Validation errors of a run, of ten views of each image, or of several runs averaged."""
    from minialex.cli import evaluate as evaluating

    return evaluating.evaluate(
        runs, views, data, backend, devices, threads, precision, batch_size, per_class, reliability, json
    )


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="a run folder, checkpoint or weights file")],
    images: Annotated[list[Path], typer.Argument(help="image files")],
    views: Annotated[int, typer.Option(help="1 or 10 views averaged")] = 1,
    picture: Annotated[Path, typer.Option(help="where the picture goes")] = Path("predictions.png"),
    backend: BackendOption = None,
    devices: DevicesOption = None,
    threads: ThreadsOption = None,
    precision: PrecisionOption = None,
    debug: DebugOption = False,
) -> int:
    """The five most probable classes of images, as text and as a picture like the paper's figure 4."""
    from minialex.cli import commands

    return commands.predict(run, images, views, picture, backend, devices, threads, precision)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="a run folder, checkpoint or weights file")],
    out: Annotated[Path, typer.Argument(help="the new file: .safetensors, .onnx, or .pt with a module beside it")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace files that are there")] = False,
    debug: DebugOption = False,
) -> None:
    """Write a network's weights for others: a weights file, ONNX, or PyTorch; each with a model card."""
    from minialex.cli import exchange as commands

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
    from minialex.cli import exchange as commands

    found = commands.import_(source, out, recipe, class_names, mean, overwrite)
    print(
        f"{out}: {found.recipe.classes} classes, {found.recipe.columns} column(s); evaluate, predict and train take it"
    )


@app.command(context_settings=EXTRA)
def summary(
    context: typer.Context,
    recipe: Annotated[str, typer.Option(help="a recipe's name or a .toml file")] = "alexnet-2012",
    batch_size: Annotated[int | None, typer.Option(min=1, help="for the memory of a step")] = None,
    debug: DebugOption = False,
) -> None:
    """A network in numbers: shapes, who reads whom, parameters, neurons, multiply-adds, memory."""
    from minialex.cli import commands

    commands.summary(recipe, overrides(context.args), batch_size)


@app.command(context_settings=EXTRA)
def bench(
    context: typer.Context,
    recipe: Annotated[str, typer.Option(help="a recipe's name or a .toml file")] = "alexnet-2012",
    kind: Annotated[str, typer.Option(help="train, a training step, or infer, one view of a batch")] = "train",
    data: Annotated[str | None, typer.Option(help="time the reading of this data set instead; see `train`")] = None,
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
    if data is not None:
        from minialex.cli import prepare as store_commands

        return store_commands.bench(data, recipe, changes, json)
    from minialex.cli import commands

    commands.bench(recipe, changes, kind, backend, devices, threads, repeats, floors, json, picture)


@app.command(context_settings=EXTRA)
def plan(
    context: typer.Context,
    recipe: Annotated[str, typer.Option(help="a recipe's name or a .toml file")] = "alexnet-2012",
    devices: Annotated[
        str | None,
        typer.Option("--devices", help="cpu, 0 or 0,1 (measured here, or --rates), or known cards: h200,h200"),
    ] = None,
    batch_size: Annotated[
        str | None, typer.Option("--batch-size", help="images of one step, all devices together; several: 128,256")
    ] = None,
    precision: Annotated[str | None, typer.Option(help="float32, tf32, bfloat16; several with commas")] = None,
    rates: Annotated[Path | None, typer.Option(help="measured rates: a report of minialex doctor")] = None,
    link: Annotated[
        str | None, typer.Option(help="between two devices: nvlink4, nvlink3, pcie5 … pcie2, or gigabytes a second")
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="training images of an epoch")] = 1_281_167,
    json: Annotated[bool, typer.Option("--json", help="print everything as JSON")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="print the tables for a document")] = False,
    picture: Annotated[Path | None, typer.Option("--picture", help="draw it there, a .png file")] = None,
    debug: DebugOption = False,
) -> None:
    """What a training step costs at least, what two columns exchange, and how long 90 epochs of ImageNet take.

    Arithmetic on shapes and rates; nothing is trained. Any recipe field can be given too: --epochs 30 --columns 1 …
    """
    from minialex.cli import plan as planning
    from minialex.recipe.toml import load

    base = load(recipe).replace(**overrides(context.args))
    planning.run(
        base, devices, batch_size, precision, rates, link, images, json_output=json, markdown=markdown,
        picture_path=picture,
    )  # fmt: skip


@app.command()
def ablate(
    studies: Annotated[list[str] | None, typer.Argument(help="studies by name, or TOML files of your own")] = None,
    every: Annotated[bool, typer.Option("--all", help="all studies of the package")] = False,
    show: Annotated[bool, typer.Option("--list", help="list the studies and what is recorded")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="try the mechanics in a minute; claims nothing")] = False,
    seeds: Annotated[int | None, typer.Option(min=1, help="only so many of the study's seeds")] = None,
    data: Annotated[str, typer.Option(help="where the studies' data set is, e.g. cifar-10-python.tar.gz")] = "",
    out: Annotated[Path, typer.Option(help="folder of the runs and of what they give")] = Path("runs/ablations"),
    jobs: Annotated[int | None, typer.Option(min=1, help="runs at once; default one a core, or one a device")] = None,
    backend: BackendOption = None,
    devices: Annotated[
        str | None, typer.Option("--devices", help="devices to spread runs over, one a run: 0,1 or cpu:0")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="threads of each run; default 1 if several run")] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="look for each arm's learning rate, and keep it")
    ] = False,
    collect: Annotated[bool, typer.Option("--collect", help="train nothing: show what finished runs give")] = False,
    record: Annotated[bool, typer.Option("--record", help="keep the outcome in the package")] = False,
    debug: DebugOption = False,
) -> int:
    """Ablations: what each innovation is worth, with several seeds, intervals and a verdict in words.

    Finished runs are shared between studies; after Ctrl-C or a power cut the same command goes on.
    """
    from minialex.cli import ablate as commands
    from minialex.studies.running import Place
    from minialex.studies.study import names

    if show:
        commands.listing()
        return 0
    wanted = list(names()) if every else list(studies or ())
    if not wanted:
        raise ConfigurationError(f"which study? {', '.join(names())}; or --all, or --list")
    place = Place(
        out, data, backend, threads, tuple(part.strip() for part in (devices or "").split(",") if part.strip())
    )
    arguments = [word for word in sys.argv[1:] if word != "ablate"]
    return commands.ablate(
        wanted, quick=quick, seeds=seeds, place=place, jobs=jobs, calibrate=calibrate, record=record,
        collect_only=collect, arguments=arguments,
    )  # fmt: skip


@app.command()
def docs(
    port: Annotated[int, typer.Option(min=0, max=65535, help="of the local server; 0: a free one")] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="open it in the browser")] = True,
    fresh: Annotated[bool, typer.Option("--build", help="build the site anew (in a source tree)")] = False,
    pyodide: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|URL",
            help="where the live parts take Python from: a folder with Pyodide and NumPy's wheel (nothing is then "
            "fetched from elsewhere), or an address; default what the site says, a public one",
        ),
    ] = None,
    debug: DebugOption = False,
) -> int:
    """The tutorial site, offline: served on this machine and opened in the browser.

    The live parts run Python in the page (Pyodide), which they take from a public address when you first press Run;
    --pyodide takes it from this machine.
    """
    from minialex.cli import docs as pages

    return pages.docs(port, browser, fresh, pyodide)


@app.command()
def doctor(
    backend: Annotated[
        str | None, typer.Option("--backend", help="the backend to ask about; default this machine's")
    ] = None,
    devices: Annotated[str | None, typer.Option("--devices", help="check a network on two devices: 0,1 or 0,0")] = None,
    report: Annotated[
        Path | None, typer.Option(help="write everything there as JSON; with --devices minialex-doctor.json")
    ] = None,
    precision: Annotated[str, typer.Option(help="of the network on two devices")] = "float32",
    steps: Annotated[int, typer.Option(min=1, help="training steps of the long check of two devices")] = 1000,
    quick: Annotated[bool, typer.Option("--quick", help="measure no rates")] = False,
    debug: DebugOption = False,
) -> int:
    """What this machine has for training, whether it works together, and the line that mends what does not.

    Ends with 0 if what was asked for works (training on the processor, --backend cuda, or --devices), else with 6.
    """
    from minialex.doctor import examine

    return examine.run(backend, devices, report, precision, steps, quick)


@app.command()
def backends(debug: DebugOption = False) -> None:
    """Installed backends with their devices, or the reason why they cannot be used here."""
    from minialex.cli import commands

    commands.backends()


@app.command()
def grade(
    theirs: Annotated[
        str | None,
        typer.Argument(help="a .py file, a folder of them, an importable name, module:Class, or an installed backend"),
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="operations to grade: relu,conv2d; one left out fails")] = None,
    examples: Annotated[int, typer.Option(min=1, help="calls drawn for an operation in each dtype")] = 100,
    seed: Annotated[int | None, typer.Option(min=0, help="draw other examples; default the same for everybody")] = None,
    timeout: Annotated[float, typer.Option(min=1, help="seconds for one operation")] = 120.0,
    memory: Annotated[float, typer.Option(min=0, help="GiB that it may allocate (Linux); 0: no limit")] = 4.0,
    points: Annotated[float | None, typer.Option(min=0, help="say how many of so many points")] = None,
    json: Annotated[Path | None, typer.Option("--json", help="write everything there too")] = None,
    new: Annotated[Path | None, typer.Option("--new", help="write an empty submission into this new folder")] = None,
    debug: DebugOption = False,
) -> int:
    """Hold a student's operations to the reference: a table, and the smallest failing call of each that is wrong.

    Ends with 0 if all passed, 1 if not, 2 if there is nothing to grade. It runs their code with your rights.
    """
    from minialex.cli import grade as commands

    if (theirs is None) == (new is None):
        raise ConfigurationError("say what to grade, or --new FOLDER for an empty submission, and not both")
    if new is not None:
        return commands.new(new, only or [])
    return commands.run(theirs or "", only or [], examples, seed, timeout, memory, points, json)


@app.command()
def recipe(
    name: Annotated[str | None, typer.Argument(help="a recipe to print whole")] = None, debug: DebugOption = False
) -> None:
    """List the recipes and all fields with their meaning, or print one recipe as TOML."""
    from minialex.cli import commands

    commands.recipe(name)


@app.command()
def differences(debug: DebugOption = False) -> None:
    """Where the paper and the original 2012 program differ: 28 points, and the fields that choose."""
    from minialex.cli import commands

    commands.differences()


@app.command()
def download(
    name: Annotated[str, typer.Argument(help="cifar10 or fashion-mnist")],
    folder: Annotated[Path | None, typer.Option(help="where to; default ~/.cache/minialex")] = None,
    debug: DebugOption = False,
) -> None:
    """Fetch a data set from its official place and check it."""
    from minialex.cli import commands

    commands.download(name, folder)


@app.command()
def notebooks(
    folder: Annotated[Path | None, typer.Argument(help="where to copy them; without it, they are listed")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace files that differ")] = False,
    debug: DebugOption = False,
) -> None:
    """The course: copy its notebooks into a folder, to run and to change there. Files that differ are kept."""
    from minialex.course.notebooks import copying

    if folder is None:
        copying.list_titles()
    else:
        copying.copy(folder, overwrite)


@app.command()
def prepare(
    source: Annotated[
        Path, typer.Argument(help="folder with the official ImageNet archives, folder of images, or list of files")
    ],
    store: Annotated[Path, typer.Argument(help="the store's folder: new, or begun by the same command")],
    validation: Annotated[Path | None, typer.Option(help="validation images, where they lie elsewhere")] = None,
    words: Annotated[Path | None, typer.Option(help="what the classes are called, as in synset_words.txt")] = None,
    size: Annotated[int, typer.Option(help="rows and columns of the images")] = 256,
    workers: Annotated[int | None, typer.Option(min=1, help="processes; default one a processor")] = None,
    debug: DebugOption = False,
) -> int:
    """Make a store of 256 x 256 images for training. Stopped or killed, the same command goes on."""
    from minialex.cli import prepare as store_commands

    return store_commands.prepare(source, store, size, validation, words, workers)


store_app = typer.Typer(help="Look after stores made by `minialex prepare`.")
app.add_typer(store_app, name="store")


@store_app.command()
def check(
    store: Annotated[Path, typer.Argument(help="the store's folder")],
    debug: DebugOption = False,
) -> int:
    """Compare every file of a store with its SHA-256; names the file and the byte of what is damaged."""
    from minialex.cli import prepare as store_commands

    return store_commands.check(store)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="print the version and exit")] = False) -> None:
    if version:
        from minialex import __version__

        print(f"minialex {__version__}")
        raise typer.Exit(0)
