"""The commands ``minialex export`` and ``minialex import``."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np

from minialex.data.statistics import Statistics
from minialex.errors import CheckpointError, ConfigurationError
from minialex.exchange import caffe, card, onnx_file, pytorch_file, pytorch_module, torchvision
from minialex.recipe.toml import load as load_recipe
from minialex.runs import checkpoint
from minialex.runs import weights_file as weights_files
from minialex.runs.weights_file import Weights
from minialex.storage import atomic

WORDNET = re.compile(r"(n\d{8})\s+(\S.*)")
FORMATS = (".safetensors", ".onnx", ".pt", ".pth")


def export(source: Path, out: Path, overwrite: bool) -> list[Path]:
    """Write the weights of a run, a checkpoint or a weights file in the format that the ending of `out` names.

    Returns:
        The files that were written, the model card last.

    Raises:
        ConfigurationError: If the ending is unknown, a file is there already, or a package is missing.
        CheckpointError: If the weights are damaged.
    """
    if out.suffix not in FORMATS:
        raise ConfigurationError(f"{out}: give it one of the endings {', '.join(FORMATS)}, which name the formats")
    if out.stem == "torch":
        raise ConfigurationError(f"{out}: the module beside it would hide PyTorch itself: choose another name")
    page = out.with_name(out.name + ".md")
    written = [out, *([out.with_suffix(".py")] if out.suffix in (".pt", ".pth") else []), page]
    _refuse_existing(written, overwrite)
    found = weights_files.find(source)
    if out.suffix == ".safetensors":
        weights_files.write(out, found)
        use = [f"minialex predict {out.name} IMAGE", f"minialex train --init {out.name} --data FOLDER"]
    elif out.suffix == ".onnx":
        onnx_file.write(out, found)
        use = [
            "import onnxruntime",
            f'session = onnxruntime.InferenceSession("{out.name}")',
            f"crop = {found.recipe.crop}",
            "# pixels: float32 array [N, 3, crop, crop], RGB, 0 to 255",
            '(probabilities,) = session.run(["probabilities"], {"pixels": pixels})',
        ]
    else:
        pytorch_module.write(out, found)
        use = [
            f"from {out.stem} import load" if out.stem.isidentifier() else f"# the module is {out.stem}.py",
            f'network = load("{out.name}")',
            "# pixels: float32 tensor [N, 3, crop, crop], RGB, 0 to 255",
            "probabilities = network(pixels).softmax(1)",
        ]
    atomic.write_text(page, card.card(found, out, out.stat().st_size, use))
    return written


def import_(
    source: Path, out: Path, recipe: str | None, class_names: Path | None, mean: Path | None, overwrite: bool
) -> Weights:
    """Make a weights file of a file of PyTorch, torchvision or Caffe, with its model card; returns what it holds.

    Args:
        source: a state dictionary (``.pt``, ``.pth``, ``.safetensors``) or a caffemodel
        out: the new file, ``.safetensors``
        recipe: of a state dictionary whose tensors have our names, ``conv1.weight`` and so on
        class_names: a text file of one name a line; or a run or a weights file that has the same classes
        mean: of a caffemodel, its mean image

    Raises:
        CheckpointError: If a file is damaged or of another network.
        ConfigurationError: If an option does not fit.
    """
    if out.suffix != ".safetensors":
        raise ConfigurationError(f"{out}: weights are imported into a .safetensors file")
    page = out.with_name(out.name + ".md")
    _refuse_existing([out, page], overwrite)
    if not source.is_file():
        raise CheckpointError(f"no file {source}; check the path")
    found = _read(source, recipe, mean)
    if class_names is not None:
        names, words = read_class_names(class_names)
        if len(names) != found.recipe.classes:
            raise ConfigurationError(f"{class_names} names {len(names)} classes, {source} has {found.recipe.classes}")
        found = dataclasses.replace(found, class_names=names, words=words)
    found = dataclasses.replace(found, origin={"from": f"the file {source.name}", **found.origin})
    weights_files.write(out, found)
    use = [f"minialex predict {out.name} IMAGE", f"minialex evaluate {out.name} --data FOLDER"]
    atomic.write_text(page, card.card(found, out, out.stat().st_size, use))
    return found


def _read(source: Path, recipe: str | None, mean: Path | None) -> Weights:
    kind = weights_files.kind_of(source)
    if kind == "onnx":
        raise ConfigurationError(f"{source} is {weights_files.KINDS[kind]}: import the file that it was made of")
    if kind == "caffe":
        if recipe is not None:
            raise ConfigurationError("--recipe is for files with our names of layers: a caffemodel says what it is")
        return caffe.weights(source, mean)
    if mean is not None:
        raise ConfigurationError("--mean is for a caffemodel")
    if kind == "safetensors":
        if checkpoint.read_metadata(source).get("format") == weights_files.FORMAT:
            raise ConfigurationError(f"{source} is a weights file of minialex already")
        tensors = checkpoint.read_safetensors(source)
        tensors = {name: a.astype(np.float32) if a.dtype == np.float16 else a for name, a in tensors.items()}
    else:
        tensors = pytorch_file.read(source)
    if torchvision.is_torchvision(tensors):
        if recipe is not None:
            raise ConfigurationError("--recipe is for files with our names of layers: these are torchvision's")
        return torchvision.weights(tensors, str(source))
    if "conv1.weight" not in tensors:
        known = ", ".join(sorted(tensors)[:3])
        raise CheckpointError(
            f"{source} has neither torchvision's names of layers (features.0.weight) nor ours (conv1.weight), but "
            f"{known}, …: rename them"
        )
    if recipe is None:
        raise ConfigurationError(
            f"{source} does not say which network it is: give --recipe NAME; see `minialex recipe`"
        )
    return _ours(tensors, recipe, source)


def _ours(tensors: dict[str, Any], recipe_name: str, source: Path) -> Weights:
    """A state dictionary with our names, such as `pytorch_module` writes; its ``mean`` is that of the centre crop."""
    recipe = load_recipe(recipe_name)
    last = tensors.get("fc8.weight")
    if last is not None and last.ndim:
        recipe = recipe.replace(classes=len(last))
    mean = tensors.pop("mean", None)
    S, crop = recipe.image_size, recipe.crop
    if mean is None or mean.shape not in ((3, 1, 1), (3, crop, crop)) or not np.isfinite(mean).all():
        raise CheckpointError(f"{source}: expected a tensor 'mean' of shape (3, 1, 1) or (3, {crop}, {crop})")
    if mean.shape[1] == 1:
        image = np.broadcast_to(mean, (3, S, S))
    else:  # nothing is known outside the centre
        before = (S - crop) // 2
        around = (before, S - crop - before)
        image = np.pad(mean, ((0, 0), around, around), mode="edge")
    weights_files.check(tensors, recipe, str(source))
    statistics = Statistics(np.ascontiguousarray(image, np.float32), np.zeros((3, 3)))
    return Weights(recipe, (), statistics, tensors, "a data set that the file does not name")


def read_class_names(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of classes, and their words, from a text file of one class a line, or from a run or a weights file.

    Where every line is a WordNet id and words, as in Caffe's ``synset_words.txt``, the ids are the names, as they
    are of ImageNet's folders.
    """
    if path.is_dir() or path.suffix == ".safetensors":
        found = weights_files.find(path)
        return found.labels, found.words
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


def _refuse_existing(paths: list[Path], overwrite: bool) -> None:
    for path in paths:
        if path.exists() and not overwrite:
            raise ConfigurationError(f"{path} is there already: choose another name, or give --overwrite")
