"""Lists of images with their classes, as written by people, spreadsheets and other programs.

Each line is one image: its path, relative to the list's folder, and its class, a name or a number. The grammar:

- Text is UTF-8, with or without a byte-order mark, or UTF-16. Lines that begin with # are comments.
- Cells are separated by tabs, else by semicolons, commas or bars, whichever most of the first lines have, with CSV's
  quotes. Otherwise a line is a path and a class, or a class and a path, separated by spaces; the path may contain
  spaces.
- A first line of column names is a header. It may name further columns; known are the path (``path``, ``file``,
  ``image`` …), the class (``label``, ``class`` …) and the part (``split``, ``subset`` …: train, val or test;
  ``is_valid``, ``is_train``, ``is_test``: true or false). If no name means the class, a single further column is it.
- Without a header, the path is the column with image extensions. Two columns are path and class in either order, and
  MXNet's ``.lst`` files are number, class, path. A path alone belongs to the class named like its folder.
- If all classes are numbers, they count from 0 or from 1 without gaps; 3.0 is 3, and 0.5 or nan is an error.

Anything else is an error with the line number.
"""

from __future__ import annotations

import csv
import io
import os
import posixpath
import re
import stat
import statistics
import unicodedata
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from minialex.data.dataset import LeftOut
from minialex.data.images import ENDINGS as IMAGES
from minialex.data.images import UNREAD
from minialex.data.sets.listing import Entry, Listing, Source, plain_name, role
from minialex.errors import DataError
from minialex.screen.formats import plural

ENDINGS = (".txt", ".tsv", ".csv", ".lst")
_SAMPLE = 100  # lines that determine the separator
_COLUMNS = {
    "path": ("path", "file", "filename", "filepath", "filepaths", "image", "images", "imagepath", "imagefile", "img",
             "imgpath", "imageid", "id", "name", "imagename", "photo", "picture"),
    "class": ("label", "labels", "class", "classname", "classlabel", "category", "target", "y", "breed", "species",
              "classid", "labelid", "categoryid"),
    "part": ("split", "subset", "set", "part", "partition", "phase", "dataset", "usage"),
}  # fmt: skip
_FLAGS = {
    "isvalid": ("validation", "train"), "isval": ("validation", "train"), "isvalidation": ("validation", "train"),
    "istest": ("test", "train"), "istrain": ("train", "validation"), "istraining": ("train", "validation"),
    "istrainingimage": ("train", "validation"),
}  # fmt: skip
"""Columns of true and false: the part of an image in either case."""
_COLUMNS["part"] += tuple(_FLAGS)
_YES, _NO = ("true", "yes", "1", "1.0"), ("false", "no", "0", "0.0")
_PATTERN = "|".join(re.escape(ending[1:]) for ending in (*IMAGES, *UNREAD))
_PATH_FIRST = re.compile(rf"(.*?\.(?:{_PATTERN}))\s+(\S.*)", re.IGNORECASE)
_PATH_LAST = re.compile(rf"([^\s/\\]+)\s+(\S.*\.(?:{_PATTERN}))", re.IGNORECASE)


class Line(NamedTuple):
    """One image of a list, as written there."""

    number: int  # of the line
    path: str
    label: str
    part: str


def text_of(path: Path) -> str:
    """The text of a file, without a byte-order mark. Raises DataError: not text, or in an unknown encoding."""
    try:
        if stat.S_ISCHR(path.stat().st_mode):  # /dev/zero has no end
            raise DataError(f"{path}: cannot be read as text (a device).")
        data = path.read_bytes()
        wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read as text ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: cannot be read as text: save it as UTF-8.") from None
    if "\0" in text:
        raise DataError(f"{path}: cannot be read as text: it contains zero bytes; save it as UTF-8.")
    return text


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file with their numbers, without empty ones and comments."""
    for number, line in enumerate(io.StringIO(text_of(path), newline=None), 1):
        if line.strip() and not line.startswith("#"):
            yield number, line.rstrip("\n")


def read_words(path: Path) -> dict[str, str]:
    """Readable names of classes by name, one per line: ``n01440764 tench, Tinca tinca``."""
    rows = (line.replace("\t", " ").partition(" ") for _, line in lines(path))
    return {plain_name(name): rest.strip() or name for name, _, rest in rows}


def read(path: Path) -> tuple[list[Line], list[str]]:
    """The images of a list, and notes on how it was read.

    Raises:
        DataError: it cannot be read, or a line is not understood
    """
    rows, dropped = [], 0
    for number, line in enumerate(io.StringIO(text_of(path), newline=None), 1):
        if number == 1 and line.lower().startswith("sep="):  # written by spreadsheets
            continue
        if line.startswith("#"):
            dropped += 1
        elif line.strip():
            rows.append((number, line.rstrip("\n")))
    notes = [f"{path}: {_comments(dropped)}"] if dropped else []
    nothing = DataError(f"{path}: lists no image{', but ' + _comments(dropped) if dropped else ''}.")
    if not rows:
        raise nothing
    sample = [line for _, line in rows[:_SAMPLE]]
    divider = next((c for c in "\t;,|" if 2 * sum(c in line for line in sample) > len(sample)), "")
    cells = list(_divided(path, rows, divider))
    columns, header = _columns(path, cells)
    width = max(len(cells[0][1]), max(columns.values()) + 1)
    where = ("validation", "train")  # the meanings of true and false
    if header:
        notes.append(f"{path}: the first line is read as a header: {', '.join(cells[0][1])}")
        where = _FLAGS.get(_plain(cells[0][1][columns["part"]]), where) if "part" in columns else where
        cells = cells[1:]
    meanings = {**dict.fromkeys(_YES, where[0]), **dict.fromkeys(_NO, where[1])}
    found = [_line(path, number, row, columns, width) for number, row in cells]
    found = [line._replace(part=meanings.get(line.part.lower(), line.part)) for line in found]
    if not found:
        raise nothing
    if "class" not in columns:
        notes.append(f"{path}: names no classes: each image's class is the folder that it is in")
    return found, notes


def _divided(path: Path, rows: list[tuple[int, str]], divider: str) -> Iterator[tuple[int, list[str]]]:
    """The cells of each line."""
    if divider:
        for number, line in rows:
            try:
                row = next(csv.reader(io.StringIO(line), delimiter=divider, skipinitialspace=True, strict=True))
            except csv.Error as error:
                raise DataError(f"{path}, line {number}: {error}, in {line[:80]!r}.") from None
            row = [cell.strip() for cell in row]
            while row and not row[-1]:  # spreadsheets pad lines
                row.pop()
            if row:
                yield number, row
        return
    sample = [line.strip() for _, line in islice(rows, 1, _SAMPLE)] or [rows[0][1].strip()]
    pattern = next((p for p in (_PATH_FIRST, _PATH_LAST) if all(p.fullmatch(line) for line in sample)), None)
    for number, line in rows:
        match = pattern and pattern.fullmatch(line.strip())
        if match:
            yield number, list(match.groups())
        elif line.strip().lower().endswith((*IMAGES, *UNREAD)) and pattern is None:
            yield number, [line.strip()]
        else:
            yield number, line.strip().rsplit(None, 1)


def _columns(path: Path, cells: list[tuple[int, list[str]]]) -> tuple[dict[str, int], bool]:
    """Which column is what, and whether the first line is a header.

    Raises:
        DataError: it is not clear
    """
    first = list(map(_plain, cells[0][1]))
    sample = [row for _, row in cells[1 : _SAMPLE + 1]] or [cells[0][1]]
    width = statistics.mode(map(len, [cells[0][1], *sample]))
    rest = [row for row in sample if len(row) == width] or [cells[0][1]]
    named = {kind: [i for i, name in enumerate(first) if name in names] for kind, names in _COLUMNS.items()}
    paths = [i for i in range(width) if all(i < len(row) and _like_path(row[i]) for row in rest)]
    known = all(len(found) <= 1 for found in named.values()) or bool(paths)
    certain = len(cells) > 1 or bool(named["path"] and named["class"])
    if certain and any(named.values()) and known and not any(_like_path(cell) for cell in cells[0][1]):
        columns = {}
        for kind, found in named.items():
            chosen = [i for i in found if kind != "path" or i in paths] or found
            if len(chosen) > 1:
                # several columns of labels: the one in words explains the numbers
                chosen = [i for i in chosen if not all(_number(row[i]) is not None for row in rest if i < len(row))]
                if kind == "part" and not chosen:
                    names = ", ".join(cells[0][1][i] for i in found)
                    raise DataError(f"{path}: {names} could all name the part: keep one, or one column 'split'.")
            if chosen:
                columns[kind] = chosen[0]
        if "path" not in columns and len(paths) == 1:
            columns["path"] = paths[0]
        others = [i for i in range(width) if i not in columns.values() and i < len(first) and first[i]]
        if "class" not in columns and "path" in columns and others:
            if len(others) > 1:
                raise DataError(f"{path}: no column of its header is the class: {', '.join(cells[0][1])}; call it "
                                "'class', or leave the path alone where it is the folder's name.")  # fmt: skip
            columns["class"] = others[0]
        if "path" not in columns:
            raise DataError(f"{path}: no column of its header is the image's path: {', '.join(cells[0][1])}; call it "
                            "'path', and the other 'class'.")  # fmt: skip
        return columns, True
    header = len(cells) > 1 and width > 1 and bool(paths) and not any(
        i < len(cells[0][1]) and _like_path(cells[0][1][i]) for i in paths
    )  # fmt: skip
    if width == 1 and all("/" in row[0].replace("\\", "/") for row in rest):
        return {"path": 0}, header
    if width == 2:
        place = paths[0] if len(paths) == 1 else 0
        return {"path": place, "class": 1 - place}, header
    if width == 3 and paths == [2] and all(row[0].isdigit() and _number(row[1]) is not None for row in rest):
        return {"path": 2, "class": 1}, header  # MXNet's
    number, row = cells[0]
    if width == 1:
        raise DataError(f"{path}, line {number}: expected a path and a class, got {row[0][:80]!r}.")
    raise DataError(f"{path}, line {number}: {width} columns, and not clear what they are: give a path and a class "
                    "alone, or a first line that names the columns 'path' and 'class'.")  # fmt: skip


def _plain(cell: str) -> str:
    """The name of a column in the form in which it is compared."""
    return re.sub(r"[\W_]", "", cell.lower())


def _comments(count: int) -> str:
    return f"{count:,} line{'s' * (count > 1)} that begin with #: left out as comments"


def _like_path(cell: str) -> bool:
    return cell.lower().endswith((*IMAGES, *UNREAD))


def _number(label: str) -> int | None:
    """The integer that a label stands for, if any: ``3``, ``003``, ``3.0``, ``-1``."""
    return int(float(label)) if re.fullmatch(r"-?\d{1,9}(\.0*)?", label) else None


def _decimal(label: str) -> bool:
    """Whether a label is a number of any kind: ``0.5``, ``1e3``, ``nan``."""
    try:
        float(label)
    except ValueError:
        return False
    return True


def _line(path: Path, number: int, row: list[str], columns: dict[str, int], width: int) -> Line:
    """Parse one line of a list. Raises DataError: too few or too many cells."""
    where = f"{path}, line {number}"
    if any(i >= len(row) or not row[i] for i in columns.values()):
        raise DataError(f"{where}: expected a path and a class, got {' '.join(row)[:80]!r}.")
    if len(row) > width:
        raise DataError(f"{where}: {len(row)} columns where there are {width} in others: put a path that contains the "
                        "separator in double quotes.")  # fmt: skip
    name = row[columns["path"]]
    if re.match(r"https?://", name):
        raise DataError(f"{where}: {name[:80]!r} is an address; download the images first, and list their files.")
    label = (
        row[columns["class"]] if "class" in columns else posixpath.basename(posixpath.dirname(name.replace("\\", "/")))
    )
    if not label:
        raise DataError(f"{where}: expected a path and a class, got {name[:80]!r}.")
    return Line(number, name, plain_name(label), row[columns["part"]] if "part" in columns else "")


def source(path: Path, validation: Path | None = None) -> Source:
    """Read a list as a source; `validation` is another list with the validation images of the same classes.

    Raises:
        DataError: a list that cannot be read or understood, or a class without an image
    """
    found, notes = read(path)
    names, numbers = _classes(path, found)
    parts: dict[str, list[Line]] = {}
    for line in found:
        parts.setdefault(_part(path, line), []).append(line)
    listings: dict[str, Listing] = {part: _listing(path, of_part, numbers, notes) for part, of_part in parts.items()}
    if validation is not None:
        others, more = read(validation)
        notes += more
        for line in others:
            if _class(line.label, numbers) is None:
                raise DataError(f"{validation}, line {line.number}: class '{line.label}' is not among those of {path}.")
        listings["validation"] = _listing(validation, others, numbers, notes)
    if "train" not in listings:
        raise DataError(f"{path}: lists no training image.")
    validate, test = listings.get("validation"), listings.get("test")
    return Source(plain_name(path.stem), names, (), listings["train"], validate, test, tuple(notes))


def _part(path: Path, line: Line) -> str:
    """The part that a line belongs to."""
    part = role(line.part) if line.part else "train"
    if not part:
        raise DataError(f"{path}, line {line.number}: part '{line.part}'; expected train, val or test.")
    return part


def _classes(path: Path, found: list[Line]) -> tuple[tuple[str, ...], dict[str, int]]:
    """The names of the classes in their order, and the number of each label.

    Raises:
        DataError: numbers with gaps
    """
    labels = dict.fromkeys(line.label for line in found)
    values = {label: number for label in labels if (number := _number(label)) is not None}
    if len(values) < len(labels):
        odd = [line for line in found if line.label not in values]
        if values and all(_decimal(line.label) for line in odd):  # not names: that would hide a slip
            where = f"{path}, line {odd[0].number}"
            raise DataError(f"{where}: class '{odd[0].label}' is not a whole number, but others are.")
        names = tuple(sorted(labels))
        return names, {name: number for number, name in enumerate(names)}
    seen = sorted(set(values.values()))
    first = min(seen[0], 1)
    gap = next((number for number, value in enumerate(seen, first) if number != value), None)
    if first < 0 or gap is not None:
        wrong = f"class {gap} has no image" if first >= 0 else f"class {seen[0]} is below 0"
        raise DataError(f"{path}: {wrong} (the largest is {seen[-1]}): number the classes from 0 or from 1 without "
                        "gaps, or give them names.")  # fmt: skip
    texts = {value: label if label.isdecimal() else str(value) for label, value in reversed(values.items())}
    return tuple(texts[value] for value in seen), {label: value - first for label, value in values.items()}


def _class(label: str, numbers: dict[str, int]) -> int | None:
    """The number of a label in another list, which may write numbers differently."""
    if label in numbers:
        return numbers[label]
    value = _number(label)
    return None if value is None else next((n for text, n in numbers.items() if _number(text) == value), None)


def _listing(path: Path, found: list[Line], numbers: dict[str, int], notes: list[str]) -> Listing:
    """The images of a list, with the files that they refer to.

    Raises:
        DataError: an image listed with two classes
    """
    base, ending = _base(path, found[0].path)
    names = [_file(base, line.path + ending) for line in found]
    seen: dict[str, Line] = {}
    for name, line in zip(names, found, strict=True):
        before = seen.setdefault(name, line)
        if before.label != line.label:
            raise DataError(f"{path}, line {line.number}: {line.path!r} has class '{line.label}', and '{before.label}' "
                            f"in line {before.number}: an image has one class.")  # fmt: skip
    if len(seen) < len(found):
        notes.append(f"{path}: {plural(len(found) - len(seen), 'line')} for an image that is there already")
    if base != path.parent:
        notes.append(f"{path}: its paths are read from the working folder {base}, not from the list's")

    def listing() -> Iterator[Entry | LeftOut]:
        for name, line in zip(names, found, strict=True):
            if name.lower().endswith(UNREAD):
                yield LeftOut(name, f"a {posixpath.splitext(name)[1]} file, which is not supported: convert it")
            else:
                label = _class(line.label, numbers)
                assert label is not None
                yield Entry(label, name, os.path.join(base, name))

    return listing


def _base(path: Path, first: str) -> tuple[Path, str]:
    """The folder that a list's paths are relative to, and the extension that they lack, from its first image."""
    for base in (path.parent, Path.cwd()):
        for ending in ("", *IMAGES, *map(str.upper, IMAGES)) if not _like_path(first) else ("",):
            if os.path.isfile(base / _file(base, first + ending)):
                return base, ending
    return path.parent, ""


def _file(base: Path, written: str) -> str:
    """The file that a path refers to, relative to a folder: Windows separates by \\, and macOS decomposes letters.

    The disk is read only if a path could be written in two ways.
    """
    name = posixpath.normpath(written)
    if "\\" in name and not os.path.lexists(base / name):
        name = posixpath.normpath(written.replace("\\", "/"))
    if not name.isascii() and not os.path.lexists(base / name):
        forms = (unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
        name = next((form for form in forms if os.path.lexists(base / form)), name)
    return name.removeprefix(os.path.join(base, ""))
