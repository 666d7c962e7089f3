"""Recipes: every choice in a run as a named field, with the paper's value as its default.

A recipe is one frozen dataclass, composed of four, one for each table of its file (`minialex.recipe.toml`). Section
numbers are the paper's.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, get_args, get_origin, get_type_hints

from minialex.errors import ConfigurationError, nearest


def option(
    default: Any,
    doc: str,
    *,
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    below: float | None = None,
) -> Any:
    """A field of a recipe: its default, its meaning, and the values it accepts."""
    limits = {"minimum": minimum, "above": above, "maximum": maximum, "below": below}
    metadata = {"doc": doc, "choices": choices, **limits}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class NetworkFields:
    """The network to train: the table [network] of a recipe."""

    model: str = option(
        "alexnet",
        "a network of minialex.network.models, or your own: FILE.py:NAME, MODULE:NAME or the name of an installed one",
        choices=("alexnet", "alexnet_small", "cifar4", "cifar5"),
    )
    columns: int = option(2, "columns that the network is divided into; 2, as on the two GPUs (3.2)", minimum=1)
    classes: int = option(1000, "number of classes; if 0, taken from the data", minimum=0)
    crop: int = option(224, "rows and columns of the part of the image that the network sees (3.5)", minimum=1)
    conv1_padding: str = option(
        "one-sided",
        "zero padding of the image: 3 on the right and below (2012 program), 2 on each side, or none",
        choices=("one-sided", "symmetric", "none"),
    )
    kernels: tuple[int, ...] = option(
        (96, 256, 384, 384, 256), "number of kernels in each of the five convolutional layers (3.5)", minimum=1
    )
    kernel_sizes: tuple[int, ...] = option(
        (), "rows and columns of the kernels in each convolutional layer, if not the model's own", minimum=1
    )
    features: tuple[int, ...] = option(
        (4096, 4096), "neurons of the two hidden fully connected layers (3.5)", minimum=1
    )
    paddings: tuple[int, ...] = option((2, 1, 1, 1), "zero padding on each side in conv2 … conv5 (3.5)", minimum=0)
    conv6: int = option(
        0,
        "kernels of a sixth convolutional layer after the last pooling layer: 256 in the networks marked * (6)",
        minimum=0,
    )
    omit: tuple[str, ...] = option((), "convolutional layers to leave out, e.g. conv3 (7)")
    connect: str = option(
        "paper",
        "layers in which columns read each other: conv3 and the fully connected ones (3.2), only the last, or all",
        choices=("paper", "never", "everywhere"),
    )
    activation: str = option("relu", "the activation function of the neurons (3.1)", choices=("relu", "tanh"))
    norm_layers: tuple[str, ...] = option(("conv1", "conv2"), "layers followed by local response normalisation (3.3)")
    norm_scope: str = option(
        "column",
        "whether channels inhibit each other within a column only, or across all columns",
        choices=("column", "all"),
    )
    norm_size: int = option(5, "n, the number of adjacent channels in a window (3.3)", minimum=1)
    norm_k: float = option(2.0, "k of the normalisation (3.3)", above=0)
    norm_alpha: float = option(1e-4, "α of the normalisation (3.3)", minimum=0)
    norm_alpha_over_n: bool = option(True, "divide α by n, as in the 2012 program but not in the paper's formula")
    norm_beta: float = option(0.75, "β of the normalisation (3.3)", minimum=0)
    norm_place: str = option(
        "after-relu",
        "after ReLU everywhere (3.5), before ReLU in layer 1 (2012 program), or after pooling (CaffeNet)",
        choices=("after-relu", "before-relu-1", "after-pool"),
    )
    spatial_norm: bool = option(
        False, "also normalise over neighbouring positions in layer 2 (2012 program; not in the paper)"
    )
    pool_size: int = option(3, "z, the size of a pooling window (3.4)", minimum=1)
    pool_stride: int = option(2, "s, the distance between pooling windows (3.4)", minimum=1)
    pool_ceil: bool = option(True, "let the last pooling windows extend over the edge (2012 program)")
    pool_ties: str = option("first", "which of several equal maxima gets the gradient", choices=("first", "all"))
    dropout: float = option(
        0.5, "probability that a hidden neuron in fc6 or fc7 is set to zero (4.2)", minimum=0, below=1
    )
    dropout_mode: str = option(
        "paper", "rescale at test time (4.2), or during training instead", choices=("paper", "inverted")
    )
    dropout_place: str = option(
        "after", "after fc6 and fc7 (4.2), or before them (torchvision)", choices=("after", "before")
    )
    init: str = option(
        "gaussian",
        "initial weights: N(0, std²) (5), He's std = √(2 / fan-in), or Glorot's √(2 / (fan-in + fan-out))",
        choices=("gaussian", "he", "glorot"),
    )
    std: float = option(
        0.01,
        "standard deviation of the initial weights of conv1, conv2 and fc8 (5); of fc8 only, unless gaussian",
        above=0,
    )
    std_middle: float = option(0.01, "the same for conv3, conv4 and conv5", above=0)
    std_full: float = option(0.01, "the same for fc6 and fc7", above=0)
    bias: float = option(1.0, "initial biases of conv2, conv4, conv5, fc6 and fc7; the others start at 0 (5)")


@dataclass(frozen=True)
class TrainingFields:
    """How to train it: the table [training] of a recipe."""

    epochs: int = option(90, "passes over the training set, at most (5)", minimum=1)
    batch_size: int = option(128, "images in one step (5)", minimum=1)
    shards: int = option(
        0,
        "equal parts of a batch, each computed alone, whose gradients are summed in a fixed order, so that any number "
        "of processes up to this one gives the same bits; 0: the number of processes at the start",
        minimum=0,
    )
    sum: str = option(
        "fixed",
        "order in which gradients are summed over processes: a fixed one, so that the bits do not depend on how many "
        "there are, or the order of the engine (MPI, NCCL), which agrees within a bound",
        choices=("fixed", "engine"),
    )
    full_layers: str = option(
        "data-parallel",
        "how processes share the fully connected layers: each has all units, for its own images, or the units are "
        "divided, one piece per shard, for all images (Krizhevsky 2014)",
        choices=("data-parallel", "divided"),
    )
    seed: int = option(0, "seed of every random number in the run", minimum=0, below=2**64)
    dtype: str = option("float32", "type of weights and activations", choices=("float32", "float64"))
    precision: str = option(
        "float32",
        "of the products in convolutions and fully connected layers, if the backend has a choice; all else, sums and "
        "weights included, stays float32",
        choices=("float32", "tf32", "bfloat16"),
    )
    learning_rate: float = option(0.01, "initial learning rate ε (5)", above=0)
    momentum: float = option(0.9, "momentum of the update (5)", minimum=0, below=1)
    weight_decay: float = option(0.0005, "weight decay, applied within the update (5)", minimum=0)
    trust_coefficient: float = option(
        0.0,
        "η of layer-wise adaptive rate scaling, LARS (You, Gitman and Ginsburg 2017): a step changes every array by "
        "about η times the learning rate of its norm; 0: no scaling",
        minimum=0,
    )
    decay_biases: bool = option(False, "whether biases decay too (not in the 2012 program)")
    bias_rate_factor: float = option(
        1.0, "learning rate of the biases, as a multiple of that of the weights", minimum=0
    )
    bias_rate_fixed: bool = option(
        False, "whether the biases keep their rate when that of the weights is cut (2012 program)"
    )
    init_from: str = option("", "run, checkpoint or weights file whose layers training starts from (6: fine-tuning)")
    init_layers: tuple[str, ...] = option((), "layers to take from it; if none is named, all that fit")
    layer_rates: dict[str, float] = option({}, "factors on the learning rate, by layer; 0 freezes the layer", minimum=0)
    schedule: str = option(
        "plateau",
        "lower the rate when the validation error stops improving (5), at the epochs in `steps`, by `timeline`, "
        "along half a cosine to 0, as a polynomial of power 2 to 0, or never",
        choices=("plateau", "steps", "timeline", "cosine", "polynomial", "constant"),
    )
    rate_scaling: str = option(
        "none",
        "how the learning rates scale if a batch is not 128 images: not at all, in proportion (Goyal et al. 2017), or "
        "with its square root (Krizhevsky 2014)",
        choices=("none", "linear", "square-root"),
    )
    warmup_epochs: int = option(
        0, "epochs at the start over which the rate rises linearly to its full value", minimum=0
    )
    cut_factor: float = option(10.0, "factor by which a cut divides the rate (5)", above=1)
    cuts: int = option(3, "cuts in the plateau schedule; when it would cut once more, training ends (5)", minimum=0)
    patience: int = option(4, "epochs without improvement before a cut", minimum=1)
    min_improvement: float = option(
        0.001, "smallest fall of the validation error (a fraction of 1) that counts as an improvement", minimum=0
    )
    steps: tuple[int, ...] = option((), "epochs before which the rate is cut, for schedule = steps", minimum=1)
    timeline: tuple[dict[str, Any], ...] = option(
        (), "for schedule = timeline: tables with an `epoch` and the values that apply from its start"
    )
    validation_epochs: int = option(
        1,
        "epochs from one validation, after which a checkpoint is saved, to the next; the last epoch ends with one, too",
        minimum=1,
    )
    checkpoint_steps: int = option(0, "steps between checkpoints; 0: one per validation", minimum=0)
    keep_checkpoints: int = option(2, "number of latest checkpoints to keep, besides the best", minimum=2)


@dataclass(frozen=True)
class ImageFields:
    """The images to train on: the table [images] of a recipe."""

    data: str = option(
        "imagenet",
        "shapes, cifar10, fashion-mnist (the last two also NAME:PATH), or the path of a store, a folder of images or a "
        "list of images",
    )
    loader_threads: int = option(
        2,
        "threads that read images ahead (with a GPU, at least one per processor); any number gives the same batches",
        minimum=1,
        maximum=256,  # each has batches of its own waiting in memory
    )
    image_size: int = option(256, "rows and columns at which images are stored (2)", minimum=1)
    resize: str = option(
        "one-step",
        "how an image is made square: its central square is scaled in one step, or its shorter side is scaled and the "
        "centre cut out afterwards, as in torchvision",
        choices=("one-step", "resize-then-crop"),
    )
    skip_broken: bool = option(False, "leave out and list image files that cannot be read, instead of stopping")
    train_images: int = option(0, "use only this many training images; 0: all", minimum=0)
    validation_images: int = option(0, "use only this many validation images; 0: all", minimum=0)
    labels: str = option(
        "own",
        "labels of the training images: their own, or drawn at random once for each image (Zhang et al. 2017)",
        choices=("own", "random"),
    )
    crops: str = option("random", "training crops: random, or the centre (4.1)", choices=("random", "centre"))
    crop_positions: str = option(
        "inclusive",
        "offsets 0 … size − crop (2012 program), or one fewer, which gives the paper's factor of 2048 (4.1)",
        choices=("inclusive", "exclusive"),
    )
    crop_chunk: int = option(1, "number of consecutive images in a batch that share a crop and a reflection", minimum=1)
    reflect: bool = option(True, "reflect each training image with probability 1/2 (4.1)")
    colour: float = option(
        0.1, "standard deviation of the colour shift along the principal components (4.1)", minimum=0
    )
    colour_scale: str = option(
        "stdev",
        "scale components by the square root of the eigenvalue (2012 program), or by the eigenvalue (the formula)",
        choices=("stdev", "eigenvalue"),
    )
    colour_divide: bool = option(False, "divide training images by 1 + colour (2012 program)")
    mean: str = option(
        "pixel",
        "mean to subtract: that of each pixel (2), the centre crop of the mean image (2012), or one per channel",
        choices=("pixel", "centre", "channel"),
    )
    pixel_scale: float = option(1.0, "factor on the pixels (0 … 255) after the mean is subtracted", above=0)
    shuffle: str = option(
        "each-epoch", "a new order each epoch, or one order for all epochs", choices=("each-epoch", "once")
    )
    views: int = option(1, "views averaged in validation: 1 (the centre) or 10 (4.1)")


@dataclass(frozen=True)
class PlaceFields:
    """Where to compute: the table [place] of a recipe. A resumed run continues there, and gives the same bits."""

    backend: str = option("", "an installed backend; if empty, the fastest one for this machine's processor")
    devices: str = option("", "one device for all columns, or one per column, e.g. cuda:0,cuda:1; if empty, the first")


@dataclass(frozen=True)
class Recipe(NetworkFields, TrainingFields, ImageFields, PlaceFields):
    """All choices in a run, each a field such as ``recipe.learning_rate``; see the four tables."""

    def replace(self, **changes: Any) -> Recipe:
        """A checked copy of the recipe with some fields changed.

        Raises:
            ConfigurationError: If a field is unknown (the nearest known one is named) or a value is not allowed.
        """
        for name in changes:
            if name not in fields():
                raise ConfigurationError(f"no recipe field '{name}'.{nearest(name, fields())}")
        changed = dataclasses.replace(self, **{name: _checked(name, value) for name, value in changes.items()})
        _check_together(changed)
        return changed

    def table(self, name: str) -> dict[str, Any]:
        """The fields of one of the four tables, with their values."""
        return {info.name: getattr(self, info.name) for info in dataclasses.fields(TABLES[name])}

    def to_toml(self) -> str:
        """The whole recipe as TOML text."""
        import tomli_w

        usual = Recipe()
        tables = {
            table: {name: value for name, value in self.table(table).items()
                    if name not in LATER or value != getattr(usual, name)}
            for table in TABLES
        }  # fmt: skip
        return tomli_w.dumps(tables)

    def differences(self, other: Recipe) -> dict[str, tuple[Any, Any]]:
        """The fields whose values differ: name -> (this recipe's value, the other's)."""
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in fields()}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


TABLES = {"network": NetworkFields, "training": TrainingFields, "images": ImageFields, "place": PlaceFields}


LATER = ("shards", "sum", "full_layers", "rate_scaling", "trust_coefficient", "validation_epochs")
"""Fields that files omit unless they are used, so that files written before these fields existed stay the same."""


@cache
def fields() -> dict[str, tuple[str, dataclasses.Field[Any]]]:
    """Every field by name: its table and its `dataclasses.Field`, whose metadata holds its documentation."""
    return {info.name: (table, info) for table, kind in TABLES.items() for info in dataclasses.fields(kind)}


@cache
def kinds() -> dict[str, Any]:
    """The type of every field: bool, int, float, str, ``tuple[int, ...]``, ``dict[str, float]``, …"""
    return get_type_hints(Recipe)


NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
"""The name of a type in a message."""


def _checked(name: str, value: Any) -> Any:
    """The value converted to the field's type, and checked against its limits."""
    kind, metadata = kinds()[name], fields()[name][1].metadata
    origin, inner = get_origin(kind), get_args(kind)
    wrong = ConfigurationError(f"recipe field '{name}': expected {NAMES.get(kind, kind)}, got {value!r}")
    if origin is tuple:
        item_kind = get_origin(inner[0]) or inner[0]
        if not isinstance(value, list | tuple) or any(type(item) is not item_kind for item in value):
            raise wrong
        value = numbers = tuple(value)
    elif origin is dict:
        if not isinstance(value, Mapping) or not all(_is_number(item) for item in value.values()):
            raise wrong
        value = {str(key): float(item) for key, item in value.items()}
        numbers = tuple(value.values())
    else:
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise wrong
        numbers = (value,)
    for number in numbers:
        if _is_number(number):
            _check_limits(name, number, metadata)
    if isinstance(value, str) and "\0" in value:
        raise ConfigurationError(f"recipe field '{name}': contains a null character, which no name or path can have")
    choices = metadata["choices"]
    if choices and value not in choices and not (name == "model" and is_own(value)):
        more = (*announced(), "FILE.py:NAME", "MODULE:NAME") if name == "model" else ()
        raise ConfigurationError(
            f"recipe field '{name}': expected one of {', '.join((*choices, *more))}, got '{value}'."
            f"{nearest(str(value), choices)}"
        )
    return value


NETWORKS = "minialex.networks"
"""The entry-point group under which packages register their own networks."""


@cache
def announced() -> dict[str, EntryPoint]:
    """The networks that packages register, by name: looked up once, since that takes longer than to check a recipe."""
    return {point.name: point for point in entry_points(group=NETWORKS)}


def is_own(model: str) -> bool:
    """Whether a model is a user's own network: ``FILE.py:NAME``, ``MODULE:NAME``, or registered by a package."""
    return ":" in model or model in announced()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_limits(name: str, number: float, limits: Mapping[str, Any]) -> None:
    if not math.isfinite(number):
        raise ConfigurationError(f"recipe field '{name}': expected a finite number, got {number}")
    tests = {
        "minimum": ("at least", number.__ge__), "above": ("more than", number.__gt__),
        "maximum": ("at most", number.__le__), "below": ("less than", number.__lt__),
    }  # fmt: skip
    for limit, (words, holds) in tests.items():
        if limits[limit] is not None and not holds(limits[limit]):
            raise ConfigurationError(f"recipe field '{name}': expected {words} {limits[limit]}, got {number}")


CHANGEABLE = ("learning_rate", "colour", "layer_rates")
"""Fields that a timeline may change during a run."""


def _check_together(recipe: Recipe) -> None:
    """Check the rules that involve several fields at once."""
    if recipe.crop > recipe.image_size:
        raise ConfigurationError(f"recipe field 'crop': {recipe.crop} is larger than image_size, {recipe.image_size}")
    if recipe.precision != "float32" and recipe.dtype != "float32":
        raise ConfigurationError(
            f"recipe field 'precision': {recipe.precision} needs dtype float32, not {recipe.dtype}"
        )
    if recipe.shards > 1 and recipe.batch_size % recipe.shards:
        below, above = (recipe.shards * (recipe.batch_size // recipe.shards + more) for more in (0, 1))
        fits = f"{below} or {above}" if below else f"{above}"
        raise ConfigurationError(
            f"a batch of {recipe.batch_size} images cannot be divided into {recipe.shards} shards: "
            f"set --batch-size {fits}"
        )
    if recipe.validation_epochs > 1 and recipe.schedule == "plateau":
        raise ConfigurationError(
            "recipe field 'validation_epochs': the plateau schedule needs the validation error of every epoch: "
            "set it to 1, or choose another schedule"
        )
    if recipe.views not in (1, 10):
        raise ConfigurationError(f"recipe field 'views': expected 1 or 10, got {recipe.views}")
    for name, count in (("kernels", 5), ("features", 2), ("paddings", 4)):
        if len(getattr(recipe, name)) != count:
            raise ConfigurationError(f"recipe field '{name}': expected {count} numbers, got {getattr(recipe, name)}")
    if recipe.kernel_sizes and len(recipe.kernel_sizes) != 5:
        raise ConfigurationError(f"recipe field 'kernel_sizes': expected 5 numbers or none, got {recipe.kernel_sizes}")
    layers = [f"conv{i}" for i in range(1, 6)]
    trained = [*layers, "conv6", "fc6", "fc7", "fc8"]
    own = ("init_layers", "layer_rates") if is_own(recipe.model) else ()  # checked where the network is built
    for name, known in (("omit", layers), ("norm_layers", layers), ("init_layers", trained), ("layer_rates", trained)):
        if name in own:
            continue
        for layer in getattr(recipe, name):
            if layer not in known:
                raise ConfigurationError(f"recipe field '{name}': no layer '{layer}'.{nearest(layer, known)}")
    if recipe.init_layers and not recipe.init_from:
        raise ConfigurationError("recipe field 'init_layers': also set init_from, the file that the layers come from")
    if "conv1" in recipe.omit:
        raise ConfigurationError(
            "recipe field 'omit': conv1 cannot be left out: it reduces the image to the size that conv2 expects"
        )
    for entry in recipe.timeline:
        if not isinstance(entry.get("epoch"), int) or entry["epoch"] < 1:
            raise ConfigurationError(f"recipe field 'timeline': every table needs an epoch of at least 1, got {entry}")
        for name, value in entry.items():
            if name == "epoch":
                continue
            if name not in CHANGEABLE:
                raise ConfigurationError(
                    f"recipe field 'timeline': '{name}' cannot change during a run; {', '.join(CHANGEABLE)} can"
                )
            _checked(name, value)
