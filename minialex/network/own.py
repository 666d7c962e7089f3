"""User-defined networks by name: ``mine.py:net``, ``package.module:net``, or one that a package registers.

A network is a `Network`, or a function from a recipe's `NetworkFields` (its crop, classes and columns) to one. A
package registers one with two lines in its ``pyproject.toml``::

    [project.entry-points."minialex.networks"]
    leaky = "their_package:network"

A run's recipe stores the name, and opening the run imports the network by it: open only what you would run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from minialex.backend.imports import find
from minialex.errors import ConfigurationError, MinialexError, nearest
from minialex.network.layers import Linear
from minialex.network.network import Network
from minialex.recipe.fields import NetworkFields, announced, is_own
from minialex.screen.formats import plural

Maker = Callable[[NetworkFields], Network]
_here: dict[str, Network | Maker] = {}


def load(model: str) -> Network | Maker:
    """The network, or the function that makes it, named by a recipe's field `model`.

    Raises:
        ConfigurationError: If it does not exist (any more), or is something else.
    """
    if model in _here:
        network = _here[model]
    elif model.startswith("session:"):
        raise ConfigurationError(
            f"no network '{model}': it was an object in a Python session that has ended; write it to a file"
        )
    else:
        network = find("network", announced()[model].value if model in announced() else model)
    if not isinstance(network, Network) and (isinstance(network, type) or not callable(network)):
        what = "a Network or a function from NetworkFields to one"
        raise ConfigurationError(f"network '{model}' is a {type(network).__name__}, expected {what}")
    return network


def build(fields: NetworkFields) -> Network:
    """The network that a recipe names; its last layer has one output per class.

    Raises:
        ConfigurationError: If it does not exist, or its input does not fit the crop, or its outputs the classes.
    """
    model = fields.model
    made = load(model)
    network = made if isinstance(made, Network) else _made(model, made, fields)
    if not isinstance(network, Network):
        raise ConfigurationError(f"network '{model}' made a {type(network).__name__}, expected a Network")
    last = network.layers[-1] if network.layers else None
    if isinstance(last, Linear) and fields.classes:
        network = replace(network, layers=(*network.layers[:-1], replace(last, features=fields.classes)))
    if network.input_shape != (3, fields.crop, fields.crop):
        size = " × ".join(map(str, network.input_shape))
        raise ConfigurationError(
            f"network '{model}' takes images of {size}, the recipe crops 3 × {fields.crop} × {fields.crop}: "
            f"set crop to {network.input_shape[-1]}"
        )
    stage = network.stages(fields.columns)[-1]
    outputs = stage.output[0] * stage.pieces
    if len(stage.output) != 1 or (fields.classes and outputs != fields.classes):
        raise ConfigurationError(
            f"network '{model}' gives {stage.output} for an image, expected {plural(fields.classes, 'class')}"
        )
    names = [layer.name for layer in network.layers]
    for field in ("layer_rates", "init_layers"):
        for layer in getattr(fields, field, ()):
            if layer not in names:
                raise ConfigurationError(f"recipe field '{field}': no layer '{layer}'.{nearest(layer, names)}")
    return network


def _made(model: str, maker: Maker, fields: NetworkFields) -> Network:
    """Call a user's function; whatever fails in it becomes a ConfigurationError with the reason."""
    try:
        return maker(fields)
    except MinialexError:
        raise
    except (Exception, SystemExit) as error:  # the user's fault, not a bug of ours
        raise ConfigurationError(f"network '{model}' failed: {type(error).__name__}: {error}") from error


def name_of(network: Network | Maker | str) -> str:
    """The text that a recipe stores for a network; paths are absolute, so that it is found from elsewhere.

    An object is named after the imported module that holds it, or else only for as long as this process lives. A script
    is never named by its file, since opening the run would execute the script again.
    """
    if isinstance(network, str):
        place, _, name = network.rpartition(":")
        return f"{Path(place).expanduser().resolve()}:{name}" if place.endswith(".py") else network
    for text, known in _here.items():
        if known is network:
            return text
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "__main__") != "__main__":
            for name, value in list(getattr(module, "__dict__", {}).items()):
                if value is network and not name.startswith("_"):
                    return f"{module.__name__}:{name}"
    title = f"session:{getattr(network, 'name', getattr(network, '__name__', 'network'))}"
    name = next(name for n in count(1) if (name := title if n == 1 else f"{title}-{n}") not in _here)
    _here[name] = network
    return name


def changes_for(network: Network | Maker | str) -> dict[str, Any]:
    """The recipe fields that follow from a network: its name and, if it states one, the size of its images.

    Raises:
        ConfigurationError: See `load`.
    """
    model = name_of(network)
    if not is_own(model):
        return {"model": model}
    found = load(model)
    return {"model": model, **({"crop": found.input_shape[1]} if isinstance(found, Network) else {})}
