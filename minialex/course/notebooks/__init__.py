"""The course: one notebook for each innovation of the paper, and the tools that build the notebooks.

``minialex notebooks FOLDER`` copies them (`minialex.course.notebooks.copying`). Inside a notebook,
`minialex.course.notebooks.show` shows images, sources and recorded studies, `minialex.course.notebooks.experiment`
trains small networks, and `minialex.course.checks` checks the exercises. ``python -m minialex.course.notebooks`` makes
the executed notebooks from their sources (`minialex.course.notebooks.build`). Nothing of Jupyter is imported until it
is needed.
"""

from __future__ import annotations

from pathlib import Path

from minialex.errors import ConfigurationError


def solutions() -> Path:
    """Where the published answers to the exercises are, one file per notebook.

    Raises:
        ConfigurationError: If there are none (`folder`).
    """
    return folder() / "solutions"


def folder() -> Path:
    """Where the executed notebooks are: in the installed package, or in the source tree of an editable install.

    Raises:
        ConfigurationError: If there are none, as in a wheel that was not made by the project's own build.
    """
    here = Path(__file__).parent
    for place in (here / "files", here.parents[2] / "notebooks"):
        if any(place.glob("[0-9][0-9]_*.ipynb")):
            return place
    raise ConfigurationError(f"no notebooks beside {here}: install minialex again")


def trained() -> Path:
    """Where the weights of the library's trained network are: recipe ``figure3``, on CIFAR-10.

    Raises:
        ConfigurationError: If they are missing, as in a wheel that was not made by the project's own build.
    """
    here = Path(__file__).parent
    for place in (here / "files", here.parents[2] / "docs" / "assets" / "live"):
        if (place / "classify.safetensors").is_file():
            return place / "classify.safetensors"
    raise ConfigurationError(f"no trained network beside {here}: install minialex again")


def paths() -> tuple[Path, ...]:
    """The executed notebooks, in the order of the course."""
    return tuple(sorted(folder().glob("[0-9][0-9]_*.ipynb")))
