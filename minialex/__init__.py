"""minialex: all of AlexNet (Krizhevsky, Sutskever, Hinton 2012), small enough to read in an afternoon.

``minialex.train("small", data="cifar10")`` trains and returns the run, ``minialex.load(path).predict("photo.jpg")``
queries a trained network; `__all__` lists the rest. Importing this package imports nothing else: each name loads its
module when it is first used.

To read it, start at `minialex.network.models` (the paper's table as code), then `minialex.network.layers`, then the
reference backend ``minialex_numpy``.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "load": "minialex.api.net:load",
    "train": "minialex.api.run:train",
    "TrainedNet": "minialex.api.net:TrainedNet",
    "TrainingRun": "minialex.api.run:TrainingRun",
    "load_recipe": "minialex.api.run:load_recipe",
    "new_session": "minialex.engine.opening:new_session",
    "networks": "minialex.network.models",
    "data": "minialex.data",
    "check": "minialex.course.checks",
    "MinialexError": "minialex.errors:MinialexError",
}
"""The module of each public name, as text: imports here would make every module import all of them."""

__all__ = [*_HOMES, "__version__"]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'minialex' has no attribute '{name}'")
    module, _, attribute = _HOMES[name].partition(":")
    found = import_module(module)
    globals()[name] = found = getattr(found, attribute) if attribute else found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)  # without this module's imports
