"""The entries of a source of images, one by one: files, tar members, and what is left out, with the reason."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from minialex.data.dataset import LeftOut
from minialex.data.images import MOST_BYTES, read_bytes
from minialex.errors import DataError

_ROLES = {
    **dict.fromkeys(("train", "training", "trn", "trainval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "devel", "eval"), "validation"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
_FILLERS = (
    "", "set", "data", "dataset", "images", "image", "imgs", "img", "split", "folder", "seg", "part", "files", "ilsvrc",
)  # fmt: skip


class Entry(NamedTuple):
    """One image of a source."""

    label: int  # its class
    name: str  # its name in lists: its path in the source, ARCHIVE/MEMBER in an archive
    path: str  # the file to open
    offset: int = -1  # where its bytes begin in that file; −1 if it is the whole file
    size: int = -1

    def read(self) -> bytes:
        """The image's bytes. Raises DataError: a missing, unreadable, empty or much too large file."""
        if self.offset < 0:
            return read_bytes(self.path)
        if self.size > MOST_BYTES:
            raise DataError(f"{self.size:,} bytes, more than {MOST_BYTES:,}.")
        try:
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                data = file.read(self.size)
        except OSError as error:
            raise DataError(f"cannot be read ({error.strerror or error}).") from None
        if not data:
            raise DataError("empty.")
        if len(data) != self.size:
            raise DataError(f"cut short: {len(data):,} of {self.size:,} bytes.")
        return data


Listing = Callable[[], Iterator[Entry | LeftOut]]


@dataclass(frozen=True)
class Source:
    """Where images come from; without a validation listing, some training images are held out for it."""

    name: str  # name of the data set
    class_names: tuple[str, ...]
    words: tuple[str, ...]  # readable names of the classes; empty if unknown
    train: Listing
    validation: Listing | None = None
    test: Listing | None = None  # never used for training or for choices
    notes: tuple[str, ...] = ()  # what may have been understood differently than intended


def plain_name(name: str) -> str:
    """A name in the form in which it is compared and hashed: Unicode NFC, without surrounding white space.

    macOS writes é as e and an accent, Windows drops trailing spaces, and Linux keeps bytes that are not text: a folder
    copied there and back still has the same name.
    """
    readable = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return unicodedata.normalize("NFC", readable).strip()


def role(name: str) -> str:
    """The part of a data set that a folder, or a cell of a table, names: train, validation, test; else empty."""
    words = [word.strip("0123456789") for word in re.split(r"[\W_]+", plain_name(name).lower())]
    said = [word for word in words if word not in _FILLERS]
    if len(said) != 1:
        return ""
    return next((part for end in _FILLERS if (part := _ROLES.get(said[0].removesuffix(end)))), "")


def in_short(reasons: Iterable[str]) -> dict[str, int]:
    """Count files by reason, without the details of each in brackets or after a colon."""
    counts = Counter(reason.partition(" (")[0].partition(":")[0].partition(";")[0].rstrip(".") for reason in reasons)
    return dict(counts.most_common())


def counted(reasons: dict[str, int], most: int = 8) -> str:
    """Counted reasons as text: ``"12 × no image by its name, .txt, 1 × empty"``."""
    shown = [f"{count:,} × {reason}" for reason, count in list(reasons.items())[:most]]
    if len(reasons) > most:
        shown.append(f"{sum(list(reasons.values())[most:]):,} × something else")
    return "; ".join(shown)
