"""Lists of images as people, spreadsheets and other programs write them; what is not understood is refused by line."""

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from minialex.data import load
from minialex.data.dataset import LeftOut
from minialex.data.sets import lists
from minialex.data.sets.listing import Entry
from minialex.errors import DataError

FILES = ("cats/1.jpg", "cats/my cat.jpg", "dogs/3.jpg", "dogs/4.jpg")
CAFE = "caf\N{LATIN SMALL LETTER E WITH ACUTE}"


@pytest.fixture
def folder(tmp_path):
    for name in FILES:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path


def read(folder, text, name="list.txt", encoding="utf-8"):
    """(class names, [(path, class)], notes) of a list's training images."""
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    source = lists.source(path)
    found = [item for item in source.train() if isinstance(item, Entry)]
    return source.class_names, [(entry.name, source.class_names[entry.label]) for entry in found], source.notes


EXPECTED = [("cats/1.jpg", "cat"), ("cats/my cat.jpg", "cat"), ("dogs/3.jpg", "dog"), ("dogs/4.jpg", "dog")]


@pytest.mark.parametrize("line", ["{path} {label}", "{label} {path}", "{path}\t{label}", "{label}\t{path}",
                                  "{path},{label}",
                                  "{label},{path}", "{path};{label}", "{path}|{label}",
                                  '"{path}";"{label}"', '"{path}", {label}',
                                  "{path};{label};;", "./{path}  {label}"])  # fmt: skip
@pytest.mark.parametrize("header", ["", "path{}label", "Label{}Filename", "Image_ID{}Class"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_dividers_quotes_orders_and_headers(folder, line, header, end):
    divider = next((c for c in "\t;,|" if c in line), " ")
    lines = [line.format(path=path, label=label) for path, label in EXPECTED]
    path_first = line.index("{path") < line.index("{label")
    if header and path_first == header.startswith("Label"):
        header = "label{}path" if header.startswith(("path", "Image")) else "file{}class"
    text = end.join([*([header.format(divider)] if header else []), *lines]) + end
    names, found, notes = read(folder, text)
    assert names == ("cat", "dog")
    assert found == EXPECTED
    assert len(notes) == bool(header)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings(folder, encoding):
    text = "".join(f"{path};{label.replace('cat', CAFE)}\r\n" for path, label in EXPECTED)
    names, found, _ = read(folder, text, "list.csv", encoding)
    assert names == (CAFE, "dog")
    assert [path for path, _ in found] == list(FILES)
    with pytest.raises(DataError, match="cannot be read as text: save it as UTF-8"):
        read(folder, text, "list.csv", "latin-1")


def test_a_device_is_no_list():
    with pytest.raises(DataError, match=r"cannot be read as text \(a device\)"):
        lists.text_of(Path(os.devnull))


def test_a_spreadsheets_own_first_line(folder):
    assert read(folder, "sep=;\r\npath;label\r\n" + "".join(f"{p};{c}\r\n" for p, c in EXPECTED))[1] == EXPECTED


def test_mxnets_list(folder):
    text = "".join(
        f"{i}\t{label:.6f}\t{path}\n" for i, (path, label) in enumerate(zip(FILES, (0, 0, 1, 1), strict=True))
    )
    names, found, _ = read(folder, text, "data.lst")
    assert names == ("0", "1")
    assert found == [(path, str(i // 2)) for i, path in enumerate(FILES)]


def test_more_columns_with_a_header(folder):
    rows = [f'{i},{path},{label},"{part}",x' for i, ((path, label), part) in
            enumerate(zip(EXPECTED, ("train", "test", "train", "valid"), strict=True))]  # fmt: skip
    (folder / "birds.csv").write_text("\n".join(["class id,filepaths,labels,data set,scientific name", *rows]))
    source = lists.source(folder / "birds.csv")
    assert source.class_names == ("cat", "dog")
    assert [entry.name for entry in source.train()] == ["cats/1.jpg", "dogs/3.jpg"]
    assert [entry.name for entry in source.validation()] == ["dogs/4.jpg"]
    assert [entry.name for entry in source.test()] == ["cats/my cat.jpg"]
    (folder / "fast.csv").write_text(
        "fname,label,is_valid\ncats/1.jpg,a,False\ndogs/3.jpg,b,False\ndogs/4.jpg,b,True\n"
    )
    source = lists.source(folder / "fast.csv")
    assert ([len(list(source.train())), len(list(source.validation()))], source.class_names) == ([2, 1], ("a", "b"))
    (folder / "index.csv").write_text(",path,label\n0,cats/1.jpg,a\n1,dogs/3.jpg,b\n")  # as pandas writes it
    assert lists.source(folder / "index.csv").class_names == ("a", "b")


@pytest.mark.parametrize(
    ("column", "cells", "sizes"),
    [
        ("is_train", "1 1 0", [2, 1, 0]),
        ("Is Training", "True True False", [2, 1, 0]),
        ("is_valid", "0.0 0.0 1.0", [2, 1, 0]),
        ("is_test", "no no yes", [2, 0, 1]),
        ("split", "0 0 1", [2, 1, 0]),
    ],
)
def test_a_column_of_yes_and_no_divides_as_its_name_says(folder, column, cells, sizes):
    rows = zip(("cats/1.jpg", "dogs/3.jpg", "dogs/4.jpg"), "abb", cells.split(), strict=True)
    (folder / "list.csv").write_text("\n".join([f"path,label,{column}", *map(",".join, rows)]))
    source = lists.source(folder / "list.csv")
    parts = (source.train, source.validation, source.test)
    assert [len(list(part())) if part else 0 for part in parts] == sizes


def test_a_column_that_names_the_part_is_not_the_class(folder):
    names, found, _ = read(folder, "path,split\ncats/1.jpg,train\ndogs/3.jpg,train\ndogs/4.jpg,val\n")
    assert (names, len(found)) == (("cats", "dogs"), 2)
    names, _, _ = read(folder, ",path,klasse\n0,cats/1.jpg,a\n1,dogs/3.jpg,b\n")  # one column is left for it
    assert names == ("a", "b")


def test_paths_alone_are_of_the_class_of_their_folder(folder):
    names, found, notes = read(folder, "".join(f"{path}\n" for path in FILES))
    assert names == ("cats", "dogs")
    assert [label for _, label in found] == ["cats", "cats", "dogs", "dogs"]
    assert any("the folder that it is in" in note for note in notes)


def test_ways_in_which_a_path_is_written(folder, monkeypatch):
    composed, taken_apart = (unicodedata.normalize(form, f"{CAFE}.jpg") for form in ("NFC", "NFD"))
    (folder / taken_apart).write_bytes(b"x")
    (folder / "back\\slash.jpg").write_bytes(b"x")
    text = f"cats\\1.jpg,a\n.\\dogs\\3.jpg,b\n{composed},a\nback\\slash.jpg,b\n{folder}/dogs/4.jpg,b\n"
    assert [path for path, _ in read(folder, text)[1]] == [
        "cats/1.jpg", "dogs/3.jpg", taken_apart, "back\\slash.jpg", "dogs/4.jpg"]  # fmt: skip
    (folder / "lists").mkdir()  # relative to the working folder instead
    monkeypatch.chdir(folder)
    _, found, notes = read(folder, "lists/../cats/1.jpg a\ndogs/3.jpg b\n", "lists/a.txt")
    assert [path for path, _ in found] == ["cats/1.jpg", "dogs/3.jpg"]
    assert any("read from the working folder" in note for note in notes)
    assert read(folder, "id,breed\ncats/1,a\ndogs/3,b\n")[1] == [("cats/1.jpg", "a"), ("dogs/3.jpg", "b")]  # no ending


@pytest.mark.parametrize(
    ("labels", "names", "numbers"),
    [
        ("0 0 1 1", ("0", "1"), [0, 0, 1, 1]),
        ("1 1 2 2", ("1", "2"), [0, 0, 1, 1]),
        ("001 002 003 001", ("001", "002", "003"), [0, 1, 2, 0]),
        ("1.0 0.0 1.0 0.0", ("0", "1"), [1, 0, 1, 0]),
        ("n02 n01 n02 n01", ("n01", "n02"), [1, 0, 1, 0]),
        ("1 2 b b", ("1", "2", "b"), [0, 1, 2, 2]),
    ],
)
def test_classes(folder, labels, names, numbers):
    found = read(folder, "".join(f"{path},{label}\n" for path, label in zip(FILES, labels.split(), strict=True)))
    assert found[0] == names
    assert [names.index(label) for _, label in found[1]] == numbers


def test_comments_are_said_and_nothing_else_is_lost(folder):
    _, found, notes = read(folder, "# made by hand\n#dogs/4.jpg,dog\n\n" + "".join(f"{p},{c}\n" for p, c in EXPECTED))
    assert found == EXPECTED
    assert any("2 lines that begin with #: left out as comments" in note for note in notes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cats/1.jpg,0\ndogs/3.jpg,2\n", "class 1 has no image .*number the classes from 0 or from 1 without gaps"),
        ("cats/1.jpg,5\ndogs/3.jpg,6\n", "class 1 has no image"),
        ("cats/1.jpg,-1\ndogs/3.jpg,0\n", "class -1 is below 0"),
        ("cats/1.jpg,0\ndogs/3.jpg,0.5\n", "line 2: class '0.5' is not a whole number, but others are"),
        ("cats/1.jpg,nan\ndogs/3.jpg,1\n", "line 1: class 'nan' is not a whole number, but others are"),
        ("cats/1.jpg,a\ndogs/3.jpg,\n", "line 2: expected a path and a class, got 'dogs/3.jpg'"),
        (
            "cats/1.jpg,a\ncats/1.jpg,b\n",
            "line 2: 'cats/1.jpg' has class 'b', and 'a' in line 1: an image has one class",
        ),
        ("cats/1.jpg,a\ndogs/3.jpg\ndogs/4.jpg,b\n", "line 2: expected a path and a class, got 'dogs/3.jpg'"),
        ("cats/1.jpg,a,b\n", "line 1: 3 columns, and not clear what they are"),
        ("cats/1.jpg,a\ndogs/3.jpg,b,c\n", "line 2: 3 columns where there are 2 in others"),
        ("path,size\ncats/1.jpg,a\nhttps://x.org/3.jpg,b\n", "line 3: 'https://x.org/3.jpg' is an address"),
        ('cats/1.jpg,"a\ndogs/3.jpg,b\n', "line 1: unexpected end of data"),
        ("a,label,split\ncats/1.jpg,a,holdout\n", "line 2: part 'holdout'; expected train, val or test"),
        ("./cats/1.jpg,a\ncats/1.jpg,b\n", "line 2: 'cats/1.jpg' has class 'b', and 'a' in line 1"),
        ("path,cat,dog\ncats/1.jpg,1,0\ndogs/3.jpg,0,1\n", "no column of its header is the class: path, cat, dog"),
        ("path,label,is_val,is_test\ncats/1.jpg,a,0,0\ndogs/3.jpg,b,1,0\n", "is_val, is_test could all name the part"),
        ("path,label\n#1.jpg,a\n", "lists no image, but 1 line that begin"),
        ("\n# nothing\n", "lists no image, but 1 line that begin"),
        ("path,label\n", "lists no image"),
        ("first,label\n1,2\n3,4\n", "no column of its header is the image's path"),
    ],
)
def test_what_is_not_understood_is_refused(folder, text, message):
    with pytest.raises(DataError, match=message) as caught:
        read(folder, text, "list.csv")
    assert "\n" not in str(caught.value)


def test_a_second_list_of_validation_images(folder):
    (folder / "val.txt").write_text("dogs/4.jpg 1.0\n")
    (folder / "train.txt").write_text("cats/1.jpg 1\ndogs/3.jpg 2\n")
    source = lists.source(folder / "train.txt", folder / "val.txt")
    assert [(entry.name, entry.label) for entry in source.validation()] == [("dogs/4.jpg", 0)]
    (folder / "val.txt").write_text("dogs/4.jpg 3\n")
    with pytest.raises(DataError, match=r"val\.txt, line 1: class '3' is not among those of"):
        lists.source(folder / "train.txt", folder / "val.txt")


def test_formats_that_are_not_read_are_left_out(folder):
    (folder / "a.txt").write_text("cats/1.jpg a\nb.HEIC b\ndogs/3.jpg b\n")
    assert [type(item) for item in lists.source(folder / "a.txt").train()] == [Entry, LeftOut, Entry]


def test_a_list_is_a_data_set_and_keeps_the_folders_split(folder):
    for i in range(40):
        (folder / "cats" / f"{i}.jpg").write_bytes(bytes([i]))
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg"))
    (folder / "all.csv").write_text("".join(f"{name},{name.split('/')[0]}\n" for name in names))
    by_list, by_folder = load(str(folder / "all.csv"), size=8), load(str(folder), size=8)
    assert by_list.class_names == by_folder.class_names == ("cats", "dogs")
    assert by_list.validation.names == by_folder.validation.names
    assert np.array_equal(by_list.train.labels, by_folder.train.labels)
