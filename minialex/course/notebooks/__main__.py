"""For those who write notebooks: ``python -m minialex.course.notebooks build`` (or ``reword``, ``run``, ``check``)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from minialex.course.notebooks import build as making
from minialex.course.notebooks import folder as place
from minialex.errors import MinialexError

app = typer.Typer(help=__doc__, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
Names = Annotated[list[str] | None, typer.Argument(help="03_relu, or 03; default all")]
Limit = Annotated[float, typer.Option(help="seconds that one notebook may take")]


@app.command()
def build(names: Names = None, limit: Limit = making.SECONDS) -> None:
    """Run the sources notebooks/NN_name.py and write the executed NN_name.ipynb beside them."""
    for path, ran in making.build(_folder(), names or (), limit):
        print(f"{_line(path, ran)}  {path.stat().st_size / 1000:5.0f} kB", flush=True)


@app.command()
def reword(names: Names = None) -> None:
    """Take over text, words for pictures, shown sources and recorded studies without a run; code must not differ."""
    for path in making.reword(_folder(), names or ()):
        print(path.stem, flush=True)


@app.command()
def run(
    names: Names = None,
    limit: Limit = making.SECONDS,
    total: Annotated[float, typer.Option(help="seconds that all may take together")] = making.SECONDS_TOGETHER,
) -> None:
    """Run all notebooks from top to bottom and write nothing; fails if one fails or the time is not enough."""
    seconds, faults = 0.0, []
    for source in making.sources(_folder(), names or ()):
        try:
            ran = making.run(source, limit)
        except making.NotebookError as fault:  # the others may have faults too
            faults.append(str(fault))
            print(f"{source.stem:<22} fails", flush=True)
            continue
        seconds += ran.seconds
        print(_line(source, ran), flush=True)
    print(f"{'together':<22} {seconds:6.1f} s of {total:g}")
    if seconds > total:
        faults.append(f"the notebooks take {seconds:.0f} s together, more than {total:g} s")
    if faults:
        raise making.NotebookError("\n".join(faults))


@app.command()
def check() -> None:
    """Say which executed notebooks no longer match their sources."""
    faults = making.stale(_folder())
    if faults:
        raise making.NotebookError(f"{'; '.join(faults)}: run `python -m minialex.course.notebooks build`")


def _line(path: Path, ran: making.NotebookRun) -> str:
    return f"{path.stem:<22} {ran.seconds:6.1f} s  {ran.processor_seconds:6.1f} s of processor"


def _folder() -> Path:
    """notebooks/ of the source tree: an installed package has no sources."""
    here = Path(__file__).parents[3] / "notebooks"
    return here if here.is_dir() else place()


if __name__ == "__main__":
    try:
        app(standalone_mode=False)
    except MinialexError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
