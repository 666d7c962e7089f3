"""``minialex import``."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minialex.cli.options import OverwriteOption, refuse_existing
from minialex.errors import CheckpointError, ConfigurationError

if TYPE_CHECKING:
    from minialex.runs.weights_file import Weights

OURS = "conv1.weight"  # a name that identifies our own
WORDNET = re.compile(r"(n\d{8})\s+(\S.*)")


def import_(
    source: Annotated[
        Path, typer.Argument(help="a PyTorch or torchvision file (.pt, .pth, .safetensors), or a .caffemodel")
    ],
    out: Annotated[Path, typer.Argument(help="the weights file to write, .safetensors")],
    recipe: Annotated[
        str | None, typer.Option(help="recipe of the network, if the file's tensors have minialex's names")
    ] = None,
    class_names: Annotated[
        Path | None, typer.Option(help="text file with one class name per line, or a run with the same classes")
    ] = None,
    mean: Annotated[Path | None, typer.Option(help="Caffe's mean image, a .binaryproto or .npy file")] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Convert another program's weights into a weights file. No code in the source file is executed."""
    from minialex.screen.formats import plural
    from minialex.screen.terminal import console

    say = console().print
    got = import_weights(source, out, recipe, class_names, mean, overwrite, say).recipe
    say(
        f"{out}: {plural(got.classes, 'class')}, {plural(got.columns, 'column')}; ready for evaluate, predict and train"
    )


def import_weights(
    source: Path, out: Path, recipe: str | None, class_names: Path | None, mean: Path | None, overwrite: bool,
    say: Callable[[str], None] = lambda line: None,
) -> Weights:  # fmt: skip
    """Convert a file of PyTorch, torchvision or Caffe into a weights file with a model card, and return its contents.

    Args:
        source: a state dictionary (``.pt``, ``.pth``, ``.safetensors``) or a caffemodel
        out: the new file, ``.safetensors``
        recipe: the recipe, if the tensors of a state dictionary have minialex's names, ``conv1.weight`` and so on
        class_names: a text file with one name per line, or a run or weights file with the same classes
        mean: the mean image of a caffemodel
        say: called with what was left out of the file, and with what was removed from its names

    Raises:
        CheckpointError: If a file is damaged or belongs to another network.
        ConfigurationError: If an option does not fit the file.
    """
    from minialex.exchange import card
    from minialex.runs import weights_file
    from minialex.screen.formats import plural
    from minialex.storage import atomic

    if out.suffix != ".safetensors":
        raise ConfigurationError(f"{out}: the weights file must end with .safetensors")
    page = out.with_name(out.name + ".md")
    refuse_existing([out, page], overwrite)
    if not source.is_file():
        raise CheckpointError(f"no file {source}; check the path")
    weights = read_weights(source, recipe, mean, say)
    if class_names is not None:
        names, words = read_class_names(class_names)
        if len(names) != weights.recipe.classes:
            count = plural(len(names), "class")
            raise ConfigurationError(f"{class_names} names {count}, {source} has {weights.recipe.classes}")
        weights = replace(weights, class_names=names, words=words)
    weights = replace(weights, origin={"from": f"the file {source.name}", **weights.origin})
    weights_file.write(out, weights)
    atomic.write_text(page, card.card(weights, out))
    return weights


def read_weights(
    source: Path, recipe: str | None, mean: Path | None, say: Callable[[str], None] = lambda line: None
) -> Weights:
    """Read weights from a file whose first bytes show its format."""
    from minialex.exchange import caffe, names, pytorch_file, torchvision
    from minialex.runs import weights_file
    from minialex.storage import safetensors

    _refuse_text(source)
    kind = weights_file.kind_of(source)
    if kind == "onnx":
        raise ConfigurationError(f"{source} is {weights_file.KINDS[kind]}: import the file that it was made from")
    if kind == "caffe":
        if recipe is not None:
            raise ConfigurationError(
                "--recipe is for files with minialex's layer names: a caffemodel states its own network"
            )
        return caffe.weights(source, mean)
    if mean is not None:
        raise ConfigurationError("--mean is for a caffemodel")
    if kind == "safetensors":
        if safetensors.read_metadata(source).get("format") == weights_file.FORMAT:
            raise ConfigurationError(f"{source} is already a weights file of minialex")
        tensors = safetensors.read(source)
        tensors = {name: a.astype("float32") if a.dtype == "float16" else a for name, a in tensors.items()}
    else:
        tensors = pytorch_file.read(source, say)
    tensors, gone = names.bare(tensors, lambda named: torchvision.is_torchvision(named) or OURS in named)
    if gone:
        say(f"{source}: removed from the names of its tensors: {gone}")
    if torchvision.is_torchvision(tensors):
        if recipe is not None:
            raise ConfigurationError("--recipe is for files with minialex's layer names: these are torchvision's")
        return torchvision.weights(tensors, str(source))
    if OURS not in tensors:
        some = ", ".join(sorted(tensors)[:3])
        raise CheckpointError(
            f"{source} has neither torchvision's layer names (features.0.weight) nor minialex's ({OURS}), but "
            f"{some}, …: rename them"
        )
    if recipe is None:
        raise ConfigurationError(
            f"{source} does not say which network it is: give --recipe NAME; see `minialex recipe`"
        )
    return own_weights(tensors, recipe, source)


def _refuse_text(source: Path) -> None:
    """Explain a text file that was saved under the name of a weights file."""
    try:
        with open(source, "rb") as file:
            start = file.read(64).lstrip().lower()
    except OSError as error:
        raise CheckpointError(f"cannot read {source}: {error.strerror}") from None
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise CheckpointError(f"{source} is a web page, not a weights file: download the file itself")
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{source} only points to the weights (Git LFS): `git lfs pull` fetches them")


def own_weights(tensors: dict[str, Any], recipe_name: str, source: Path) -> Weights:
    """A state dictionary with minialex's names, as written by `pytorch_module`; its ``mean`` is the centre crop's."""
    import numpy as np

    from minialex.exchange.whole import foreign
    from minialex.recipe.toml import load
    from minialex.runs.weights_file import check

    recipe = load(recipe_name)
    last = tensors.get("fc8.weight")
    if last is not None and last.ndim:
        recipe = recipe.replace(classes=len(last))
    mean = tensors.pop("mean", None)
    S, crop = recipe.image_size, recipe.crop
    if mean is None or mean.shape not in ((3, 1, 1), (3, crop, crop)) or not np.isfinite(mean).all():
        raise CheckpointError(f"{source}: expected a tensor 'mean' of shape (3, 1, 1) or (3, {crop}, {crop})")
    if mean.shape[1] > 1:  # unknown outside the centre
        before = (S - crop) // 2
        around = (before, S - crop - before)
        mean = np.pad(mean, ((0, 0), around, around), mode="edge")
    check(tensors, recipe, str(source))
    return foreign(tensors, recipe, mean, "a data set that the file does not name")


def read_class_names(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of classes, and their words, from a text file with one class per line, or from a run or weights file.

    If every line is a WordNet id followed by words, as in Caffe's ``synset_words.txt``, the ids are the names, as with
    ImageNet's folders.
    """
    from minialex.runs.weights_file import find

    if path.is_dir() or path.suffix == ".safetensors":
        weights = find(path)
        return weights.labels, weights.words
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read the class names {path}: {error}") from None
    if len(set(lines)) < len(lines):
        raise ConfigurationError(f"{path} names a class twice")
    pairs = [WORDNET.fullmatch(line) for line in lines]
    if lines and all(pairs):
        return tuple(p[1] for p in pairs if p), tuple(p[2] for p in pairs if p)
    return tuple(lines), ()
