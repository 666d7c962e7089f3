"""The layout of a folder of images: where its classes are, and whether some of its folders are parts of it.

Classes are the folders that contain images; their names, in Unicode NFC, are sorted and numbered. Supported layouts:

- ``CLASS/IMAGE``; folders within a class belong to it;
- ``train/CLASS/IMAGE`` with ``val/CLASS/IMAGE`` or ``test/CLASS/IMAGE`` beside it, under these or other common names,
  in any case: ``Training``, ``valid``, ``dev``, ``test_set``, ``seg_train`` …;
- both inside folders that contain nothing else, ``photos/photos/CLASS/IMAGE``;
- Kaggle's edition of ImageNet, from any of its upper folders.

An ambiguous layout is an error that names both readings: folders that contain folders of the same names look like parts
with unusual names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from minialex.data.dataset import LeftOut
from minialex.data.images import looks_like_image
from minialex.data.sets import tree
from minialex.data.sets.listing import Entry, Listing, Source, plain_name, role
from minialex.data.sets.lists import ENDINGS as LISTS
from minialex.data.sets.lists import lines, read_words
from minialex.errors import DataError
from minialex.screen.formats import plural

_KAGGLE = Path("ILSVRC", "Data", "CLS-LOC")


_STRUCTURE = {
    "images", "image", "imgs", "img", "jpegimages", "annotations", "annotation", "labels", "masks", "mask", "trimaps",
    "segmentations", "segmentationclass", "segmentationobject", "imagesets", "bboxes", "xml", "meta", "metadata",
}  # fmt: skip
"""Folders, in lower case, of detection and segmentation sets: if there is nothing else, there are no classes."""


class _Folder(NamedTuple):
    """The contents of a folder."""

    path: Path
    folders: list[str]  # names of possible classes or parts
    images: int  # directly in it
    lists: list[str]  # files that may list the classes
    left_out: list[LeftOut]  # folders that are skipped


def _look(path: Path, without: Path | None = None) -> _Folder:
    """List a folder, not recursively; `without` is a folder that is being created in it."""
    looked = _Folder(path, [], 0, [], [])
    images = 0
    own = path.resolve()
    for entry in tree.entries(path):
        if not tree.is_folder(entry):
            images += looks_like_image(entry.name) and not entry.name.startswith(".")
            if entry.name.lower().endswith(LISTS):
                looked.lists.append(entry.name)
            continue
        reason = tree.folder_reason(entry)
        if not reason and entry.is_symlink() and own.is_relative_to(Path(entry.path).resolve()):
            reason = "a link to a folder that contains it"
        if not reason and without is not None and Path(entry.path).resolve() == without:
            reason = "the store that is being made"
        if reason:
            looked.left_out.append(LeftOut(entry.name, reason))
        else:
            looked.folders.append(entry.name)
    return looked._replace(images=images)


def _descend(looked: _Folder) -> _Folder:
    """The folder of the classes or parts: descends while only a single folder contains images."""
    while 1 <= len(looked.folders) <= 5 and not looked.images:
        full = [name for name in looked.folders if tree.holds_images(looked.path / name)] or looked.folders
        if len(full) > 1:
            return looked
        inner = _look(looked.path / full[0])
        if not inner.folders or inner.images:  # this is the class
            return looked
        others = [LeftOut(name, "a folder without images") for name in looked.folders if name not in full]
        looked = inner._replace(left_out=[*looked.left_out, *others, *inner.left_out])
    return looked


def read(place: str | os.PathLike[str], *, without: Path | None = None) -> Source:
    """Read a folder of images as a source.

    Args:
        without: full path of a folder in it to ignore: a store that is being made from it

    Raises:
        DataError: no such folder, no classes in it, or an unknown or ambiguous layout
    """
    root = Path(place)
    kaggle = _kaggle_root(root)
    if kaggle is not None:
        return _kaggle(kaggle)
    looked = _descend(_look(root, without))
    parts, notes = _parts(looked)
    if looked.path != root and parts.keys() == {"train"} and parts["train"].path == looked.path:
        notes.insert(0, f"the classes are taken from {looked.path}")
    train = parts["train"] if "train" in parts else next(iter(parts.values()))
    if not train.folders:
        raise _no_classes(train)
    if train.images:
        notes.append(
            f"{train.images:,} image{'s' * (train.images > 1)} beside the class folders of {train.path}: left out"
        )
    classes = _classes(train)
    if len(classes) > 1 and {name.lower() for name in classes} <= _STRUCTURE:
        raise DataError(f"{train.path}: {_some(list(classes))} look like images and their annotations, not like "
                        "classes: give a list of the images with their classes.")  # fmt: skip
    if "train" not in parts:
        notes.append(f"{looked.path} has no training part")
    for part, found in parts.items():
        if found is not train:
            _compare(train, found, part, classes, notes)
    outside = [*looked.left_out, *(item for found in parts.values() if found is not looked for item in found.left_out)]

    def listing(part: str) -> Listing | None:
        if part not in parts:
            return None
        return partial(_class_folders, root, _classes(parts[part]), tuple(classes), outside if part == "train" else [])

    return Source(
        plain_name(root.resolve().name), tuple(classes), (), listing("train") or (lambda: iter(())),
        listing("validation"), listing("test"), tuple(notes),
    )  # fmt: skip


def _parts(looked: _Folder) -> tuple[dict[str, _Folder], list[str]]:
    """The parts of a folder, each as the folder of its classes, and notes about them.

    Raises:
        DataError: an ambiguous layout
    """
    roles = {name: role(name) for name in looked.folders}
    parts = [name for name, part in roles.items() if part]
    others = [name for name, part in roles.items() if not part]
    if not parts or ("train" not in roles.values() and others):
        _refuse_likeness(looked, looked.folders)
        return {"train": looked}, []
    if others and not any(tree.holds_images(looked.path / name) for name in others):
        looked.left_out.extend(LeftOut(name, "a folder without images beside the parts") for name in others)
        others = []
    if len({roles[name] for name in parts}) == 1 and others:  # a single part may be a class: trains, tests
        _refuse_likeness(looked, looked.folders)
        return {"train": looked}, [f"{', '.join(parts)}: read as a class, not as a part of the data set"]
    names = ", ".join(parts)
    for one, other in combinations(parts, 2):
        if roles[one] == roles[other]:
            raise DataError(f"{looked.path}: {one} and {other} could both be the {_word(roles[one])} part: give "
                            f"{looked.path / one} alone, or keep only one.")  # fmt: skip
    inner = {roles[name]: _descend(_look(looked.path / name)) for name in parts}
    flat = next((folder for folder in inner.values() if not folder.folders), None)
    notes = []
    if others:
        shared = set.intersection(*(set(_classes(folder)) for folder in inner.values()))
        if not shared:
            raise DataError(
                f"{looked.path}: {names} look like parts of a data set, beside {_some(others)}. If they are parts, "
                f"move the others away; if all are classes, rename these: {names}."
            )
        looked.left_out.extend(LeftOut(name, "a folder beside the parts") for name in others)
        notes.append(f"{names} are read as parts of one data set; {_some(others)} beside them: left out")
    elif flat is not None and ("train" not in inner or not inner["train"].folders or len(parts) == 1):
        raise _no_classes(flat, f" If {names} are the classes themselves, rename them.")
    elif flat is not None:
        part = next(part for part, folder in inner.items() if folder is flat)
        if part == "validation":
            raise _no_classes(flat)
        del inner[part]
        notes.append(f"{flat.path} holds no class folders: left out")
    return inner, notes


def _word(part: str) -> str:
    return "training" if part == "train" else part


def _some(names: Sequence[str], most: int = 4) -> str:
    """The first few of several names, as text."""
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def _refuse_likeness(looked: _Folder, names: Sequence[str]) -> None:
    """Refuse folders that contain folders of the same names, since those may be the classes.

    Raises:
        DataError: they do
    """
    if not 2 <= len(names) <= 20 or looked.images:  # more are hardly parts, and looking takes time
        return
    inside = []
    for name in names:
        inner = _look(looked.path / name)
        if inner.images or len(inner.folders) < 2:
            return
        inside.append({plain_name(folder) for folder in inner.folders})
    shared = sorted(set.intersection(*inside))
    if len(shared) >= 2 and 2 * len(shared) >= max(map(len, inside)):
        if all(map(role, shared)):
            raise DataError(f"{looked.path}: each class has folders {_some(shared)}: put the parts above the classes, "
                            f"{shared[0]}/{names[0]}/…, or give a list of files.")  # fmt: skip
        raise DataError(
            f"{looked.path}: {_some(names)} hold folders of the same names, {_some(shared)}. If those are the classes, "
            f"name the upper ones train and val; if {_some(names)} are, take the inner folders away, or give a list."
        )


def _no_classes(looked: _Folder, more: str = "") -> DataError:
    """The error for a folder without class folders, with a suggestion."""
    holds = (
        f"holds {plural(looked.images, 'image')} but no class folders" if looked.images else "holds no class folders"
    )
    lists = [*looked.lists, *(_look(looked.path.parent).lists if looked.images else [])]
    beside = f" ({_some(lists)} beside them?)" if lists else ""
    return DataError(f"{looked.path}: {holds}; expected {looked.path}/CLASS/IMAGE.jpg, or give a list of the images "
                     f"with their classes{beside}.{more}")  # fmt: skip


def _classes(looked: _Folder) -> dict[str, list[Path]]:
    """The class folders by class name, in order; names that differ only in their Unicode form are merged."""
    found: dict[str, list[Path]] = {}
    for name in looked.folders:
        found.setdefault(plain_name(name), []).append(looked.path / name)
    return {name: found[name] for name in sorted(found)}


def _compare(train: _Folder, other: _Folder, part: str, classes: dict[str, list[Path]], notes: list[str]) -> None:
    """Compare a part's classes with the training part's.

    Raises:
        DataError: a class that is not in the training part
    """
    own = _classes(other)
    unknown = [name for name in own if name not in classes]
    if unknown:
        alike = {name.casefold(): name for name in classes}
        case = [f"'{name}' is '{alike[name.casefold()]}' there" for name in unknown if name.casefold() in alike]
        hint = f" Upper and lower case differ: {_some(case)}." if case else ""
        nor = f" (nor {'has' if len(unknown) == 2 else 'have'} {plural(len(unknown) - 1, 'other')})"
        raise DataError(f"{other.path}: class '{unknown[0]}' has no folder in {train.path}"
                        f"{nor if len(unknown) > 1 else ''}.{hint}")  # fmt: skip
    missing = [name for name in classes if name not in own]
    if missing:
        notes.append(
            f"{other.path} has no images of {len(missing):,} of {plural(len(classes), 'class')}: {_some(missing)}"
        )


def _class_folders(
    root: Path, classes: dict[str, list[Path]], names: tuple[str, ...], outside: Sequence[LeftOut]
) -> Iterator[Entry | LeftOut]:
    """List the images of class folders, and what is left out in and beside them."""
    yield from outside
    above = os.path.join(root, "")
    for label, name in enumerate(names):
        for folder in classes.get(name, []):
            for path, reason in tree.images(folder):
                shown = path.removeprefix(above)
                yield LeftOut(shown, reason) if reason else Entry(label, shown, path)


def class_folders(root: Path, place: Path, names: tuple[str, ...]) -> Iterator[Entry | LeftOut]:
    """Yield the images of some classes, one folder per class, in `place`; their names are relative to `root`."""
    return _class_folders(root, {name: [place / name] for name in names}, names, [])


def validation_folder(place: Path, root: Path, names: tuple[str, ...]) -> Listing:
    """List the validation images of known classes, from a folder elsewhere.

    Raises:
        DataError: no such folder, or an unknown class
    """
    looked = _descend(_look(place))
    own = _classes(looked)
    unknown = [name for name in own if name not in names]
    if unknown:
        nor = f" (nor {'is' if len(unknown) == 2 else 'are'} {plural(len(unknown) - 1, 'other')})"
        raise DataError(f"{looked.path}: class '{unknown[0]}' is not trained{nor if len(unknown) > 1 else ''}.")
    return partial(_class_folders, root, own, names, looked.left_out)


def _kaggle_root(place: Path) -> Path | None:
    """The folder into which Kaggle's edition of ImageNet was unpacked, if a place is one of its upper folders."""
    full = place.resolve()
    for root in (full, *full.parents[: len(_KAGGLE.parts)]):
        if (root / _KAGGLE).is_dir() and (root / _KAGGLE).is_relative_to(full):
            return root
    return None


def _kaggle(root: Path) -> Source:
    """Kaggle's edition of ImageNet, unpacked."""
    words = read_words(root / "LOC_synset_mapping.txt")
    names = tuple(sorted(words))
    labels = {name: label for label, name in enumerate(names)}

    def validation() -> Iterator[Entry | LeftOut]:
        table = root / "LOC_val_solution.csv"
        for number, line in lines(table):
            image, _, rest = line.partition(",")
            if image == "ImageId":
                continue
            name = rest.split(" ")[0]
            if name not in labels:
                raise DataError(f"{table}, line {number}: class '{name}' is not in LOC_synset_mapping.txt.")
            path = root / _KAGGLE / "val" / f"{image}.JPEG"
            yield Entry(labels[name], str(path.relative_to(root)), str(path))

    train = partial(class_folders, root, root / _KAGGLE / "train", names)
    return Source(root.name, names, tuple(words[name] for name in names), train, validation)
