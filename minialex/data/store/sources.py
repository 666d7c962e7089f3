"""What `minialex prepare` reads: the official ImageNet archives, a folder of images, or a list of files.

A source lists its images one by one, in a fixed order, and holds none of them, so its memory does not grow with the
set. Archives are read in place: only the headers of their members, one by one. Nothing is unpacked to disk, and
anything but a regular file is listed with a reason.

The official archives (image-net.org, after registration) are in one folder:

- ``ILSVRC2012_img_train.tar``: a tar of 1,000 tars, ``n01440764.tar`` …, one per class, named by its WordNet id;
- ``ILSVRC2012_img_val.tar``: 50,000 numbered images;
- ``ILSVRC2012_devkit_t12.tar.gz``, or the folder in it: the names of the classes (``meta.mat``), and the class of each
  validation image.

Those of ILSVRC-2010, the paper's table 1, have the same layout. Kaggle's edition, unpacked, is also supported: a folder
with ``ILSVRC/Data/CLS-LOC``, ``LOC_synset_mapping.txt`` and ``LOC_val_solution.csv``. Classes are numbered in the order
of their WordNet ids, as in torchvision and Caffe; the kit's own numbers (1 to 1000, in a different order) are only used
to read the kit.
"""

from __future__ import annotations

import fnmatch
import io
import os
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

from minialex.data.dataset import LeftOut
from minialex.data.sets import layout, lists, tree
from minialex.data.sets.listing import Entry, Source
from minialex.errors import DataError
from minialex.screen.formats import plural

_KIT_BYTES = 64 << 20  # the kit's files are smaller than one MiB
WORD_FILES = ("LOC_synset_mapping.txt", "synset_words.txt", "words.txt")


def find(
    place: str | os.PathLike[str],
    *,
    validation: str | None = None,
    words: str | None = None,
    without: Path | None = None,
) -> Source:
    """Find the source at a place: archives if there are any, else a folder of images, else a list.

    Args:
        place: a folder, the training archive, or a list for `minialex.data.sets.lists`
        validation: the validation images, if they are elsewhere: a folder of the same class folders, or a list
        words: a file with readable names of the classes, one per line: the class's name, a space, its words, as in
            ``synset_words.txt`` and ``LOC_synset_mapping.txt``; a file with one of these names in the folder is found
            automatically
        without: full path of a folder in it to ignore: the store that is being made

    Raises:
        DataError: nothing there, or something unusable
    """
    path = Path(place).expanduser()
    if not path.exists():
        raise DataError(f"{path}: no such file or folder.")
    where = path if path.is_dir() else path.parent
    if path.is_dir() and (archive := _one(path, "*img*train*.tar", "*train*.tar")) is not None:
        return _archives(archive, where)
    if path.is_file() and path.suffix == ".tar":
        return _archives(path, where)
    if path.is_dir():
        source = _folder(path, validation, without)
    elif path.suffix.lower() in lists.ENDINGS:
        source = lists.source(path, None if validation is None else _list(validation))
    else:
        raise DataError(f"{path}: not a tar archive, a folder of images, or a list ({', '.join(lists.ENDINGS)}).")
    if source.words and not words:
        return source
    files = [Path(words).expanduser()] if words else [where / n for n in WORD_FILES if (where / n).is_file()]
    if not files:
        return source
    titles, names = lists.read_words(files[0]), source.class_names
    if all(name.isdigit() for name in names) and len(titles) == len(names):
        return replace(source, class_names=tuple(titles), words=tuple(titles.values()))
    missing = [name for name in names if name not in titles]
    if missing:
        more = f" and {plural(len(missing) - 1, 'other')}" if len(missing) > 1 else ""
        raise DataError(f"{files[0]}: says nothing about class '{missing[0]}'{more}; "
                        "give another file with --words.")  # fmt: skip
    return replace(source, words=tuple(titles[name] for name in names))


def _one(where: Path, *patterns: str) -> Path | None:
    """The only file that matches the first pattern that matches any."""
    names = sorted(entry.name for entry in os.scandir(where))
    for pattern in patterns:
        matches = [name for name in names if fnmatch.fnmatch(name.lower(), pattern.lower())]
        if len(matches) > 1:
            raise DataError(f"{where}: several files could be meant: {', '.join(matches)}; keep only one.")
        if matches:
            return where / matches[0]
    return None


def _list(validation: str) -> Path:
    """The path of a list of validation images."""
    path = Path(validation).expanduser()
    if not path.is_file():
        raise DataError(f"{path}: no such list of validation images.")
    return path


def _folder(root: Path, validation: str | None, without: Path | None) -> Source:
    """A folder of images in a layout of `minialex.data.sets.layout`."""
    source = layout.read(root, without=without)
    if validation is None:
        return source
    place = Path(validation).expanduser()
    if not place.is_dir():
        raise DataError(f"{place}: no such folder of validation images.")
    return replace(source, validation=layout.validation_folder(place, root, source.class_names))


def _archives(train: Path, where: Path) -> Source:
    """The official training archive, with the validation archive and the development kit beside it."""
    val = _one(where, "*img*val*.tar", "*images*val*.tar", "*val*.tar")
    kit = _one(where, "*devkit*.tar.gz", "*devkit*.tgz", "*devkit*")
    if val is not None and kit is None:
        raise DataError(f"{where}: {val.name} has no labels in itself: put the development kit beside it "
                        "(ILSVRC2012_devkit_t12.tar.gz), or take the archive away.")  # fmt: skip
    if kit is None:
        names = tuple(sorted(_class_of(member.name) for member in _members(train) if isinstance(member, _Member)))
        return Source(train.stem, names, (), partial(_train, train, names), None)
    names, words, truth = _read_kit(kit)
    validate = None if val is None else partial(_validation, val, truth)
    return Source(train.stem, names, words, partial(_train, train, names), validate)


class _Member(NamedTuple):
    """A regular file in a tar: its name, the position of its bytes in the outermost file, and how to open it."""

    name: str
    offset: int
    size: int
    open: Callable[[], IO[bytes] | None]


def _members(path: Path, within: _Member | None = None) -> Iterator[_Member | LeftOut]:
    """The members of a tar, or of a tar within it; only headers are read.

    Raises:
        DataError: not a tar, or a damaged or truncated one: tarfile itself takes a damaged header for the end
    """
    shown = f"{path.name}/{within.name}" if within else path.name
    first = within.offset if within else 0
    try:
        with within.open() if within else path.open("rb") as file:  # type: ignore[union-attr]  # it is a plain file
            with tarfile.open(fileobj=file, mode="r:") as archive:
                while (member := archive.next()) is not None:
                    archive.members = []  # type: ignore[attr-defined]  # it would remember them all
                    content = partial(archive.extractfile, member)
                    if member.isreg() and not member.issparse():
                        yield _Member(member.name, first + member.offset_data, member.size, content)
                    elif not member.isdir():
                        yield LeftOut(f"{shown}/{member.name}", "in the archive, but no plain file")
                end = archive.offset
            file.seek(end)
            mark = file.read(512)
    except (tarfile.TarError, OSError) as error:
        damage = f"damaged or cut short, or not a tar archive ({error}); get it again."
        raise DataError(f"{path.parent / shown}: {damage}") from None
    if not mark:
        yield LeftOut(shown, "no image: the archive has no end marker; is it complete?")
    elif mark.strip(b"\0"):
        raise DataError(f"{path.parent / shown}: damaged at byte {first + end:,}; get it again.")


def _class_of(name: str) -> str:
    """The class of ``n01440764.tar``."""
    return Path(name).name.removesuffix(".tar")


def _train(path: Path, names: tuple[str, ...]) -> Iterator[Entry | LeftOut]:
    """The images of the tar of tars."""
    labels = {name: label for label, name in enumerate(names)}
    for outer in _members(path):
        if isinstance(outer, LeftOut):
            yield outer
            continue
        label = labels.get(_class_of(outer.name))
        if label is None or not outer.name.endswith(".tar"):
            yield LeftOut(f"{path.name}/{outer.name}", "no archive of a known class")
            continue
        for inner in _members(path, outer):
            if isinstance(inner, LeftOut):
                yield inner
            else:
                yield Entry(label, f"{outer.name}/{inner.name}", str(path), inner.offset, inner.size)


def _validation(path: Path, truth: tuple[int, ...]) -> Iterator[Entry | LeftOut]:
    """The numbered images of the validation archive, with their labels."""
    for member in _members(path):
        if isinstance(member, LeftOut):
            yield member
            continue
        number = re.search(r"_(\d+)\.[^.]+$", member.name)
        if number is None or not 1 <= int(number[1]) <= len(truth):
            yield LeftOut(f"{path.name}/{member.name}", f"no number from 1 to {len(truth):,} in its name")
        else:
            yield Entry(truth[int(number[1]) - 1], f"{path.name}/{member.name}", str(path), member.offset, member.size)


def _read_kit(kit: Path) -> tuple[tuple[str, ...], tuple[str, ...], tuple[int, ...]]:
    """WordNet ids and words of the classes, and each validation image's label, from the development kit."""
    meta, truth = _kit_files(kit)
    try:
        from scipy.io import loadmat
    except ImportError:
        install = "pip install 'minialex[imagenet]'"
        raise DataError(f"{kit}: its meta.mat is a MATLAB file, which SciPy reads: {install}.") from None
    try:
        synsets = loadmat(io.BytesIO(meta), squeeze_me=True, variable_names=["synsets"])["synsets"]
        number = next(field for field in synsets.dtype.names if field.endswith("_ID"))
        rows = [(int(s[number]), str(s["WNID"]), str(s["words"])) for s in synsets if int(s["num_children"]) == 0]
        own = [int(line) for line in truth.split()]
    except Exception as error:  # loadmat raises almost anything on damaged files
        raise DataError(f"{kit}: cannot be understood ({type(error).__name__}: {error}); get it again.") from None
    rows.sort(key=lambda row: row[1])
    label_of = {row[0]: label for label, row in enumerate(rows)}
    unknown = set(own) - set(label_of)
    if unknown or not rows or not own:
        stranger = min(unknown, default=0)
        raise DataError(f"{kit}: the ground truth has class {stranger}, which meta.mat does not; get it again.")
    return tuple(row[1] for row in rows), tuple(row[2] for row in rows), tuple(label_of[i] for i in own)


def _kit_files(kit: Path) -> tuple[bytes, bytes]:
    """meta.mat and the validation ground truth, from the kit's archive or its folder."""
    wanted: dict[str, bytes] = {}

    def kind(name: str) -> str:
        base = name.rpartition("/")[2]
        return "meta" if base == "meta.mat" else "truth" if base.endswith("_validation_ground_truth.txt") else ""

    try:
        if kit.is_dir():
            for path in map(Path, (path for path, _ in tree.images(kit))):
                if kind(path.name) and path.is_file() and path.stat().st_size <= _KIT_BYTES:
                    wanted.setdefault(kind(path.name), path.read_bytes())
        else:
            with tarfile.open(kit, "r|*") as archive:  # a stream: whatever the compression, read once
                for member in archive:
                    if kind(member.name) and member.isreg() and member.size <= _KIT_BYTES:
                        content = archive.extractfile(member)
                        wanted.setdefault(kind(member.name), content.read() if content else b"")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{kit}: damaged or cut short ({error}); get it again.") from None
    for key, name in (("meta", "data/meta.mat"), ("truth", "data/…_validation_ground_truth.txt")):
        if key not in wanted:
            raise DataError(f"{kit}: holds no {name}; is it the development kit?")
    return wanted["meta"], wanted["truth"]
