"""Walks through folders of images: what counts, and what is left out and why; nothing is opened or queried twice.

A folder is read once; the disk returns with each name whether it is a file or a folder, so that a network disk is not
queried again for every image. Only links cost a further query.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from minialex.data.images import UNREAD, looks_like_image
from minialex.errors import DataError

_SYSTEM = {
    "__macosx", "@eadir", "#recycle", "@recycle", "@recently-snapshot", "#snapshot", "$recycle.bin", "lost+found",
    "system volume information", "__pycache__",
}  # fmt: skip
"""Folders, in lower case, that archives, network disks and systems leave among images, with copies of them."""
MARKS = ("recipe.toml", "store.json")
"""A folder with one of these files is one of our runs or stores."""


def entries(folder: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    """The contents of a folder, ordered by name. Raises DataError: it cannot be read."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{os.fspath(folder)}: cannot be read as a folder of images ({error.strerror}).") from None


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one; a cyclic link is not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def folder_reason(entry: os.DirEntry[str]) -> str:
    """Why a folder is skipped; empty if it is not."""
    if entry.name.startswith("."):
        return "a hidden folder"
    if entry.name.lower() in _SYSTEM:
        return f"a folder of the system, {entry.name}"
    return "a run or store of minialex" if _is_ours(entry.path) else ""


def _is_ours(folder: str) -> bool:
    """Whether a folder is a run or a store, perhaps unfinished, or contains nothing else."""
    inside = []
    try:
        with os.scandir(folder) as found:
            for entry in found:
                if entry.name in MARKS:
                    return True
                if looks_like_image(entry.name):
                    return False  # a folder of images: the rest need not be read
                if is_folder(entry):
                    inside.append(entry.path)
    except OSError:
        return False
    if os.path.isfile(os.path.join(folder, "prepare", "plan.json")):
        return True
    return bool(inside) and all(any(os.path.isfile(os.path.join(one, mark)) for mark in MARKS) for one in inside)


def file_reason(entry: os.DirEntry[str]) -> str:
    """Why an entry that is not a folder is not taken for an image; empty if it is."""
    if entry.name.startswith("."):
        return "a hidden file"
    if not looks_like_image(entry.name):
        ending = os.path.splitext(entry.name)[1].lower()
        if ending in UNREAD:
            return f"a {ending} file, which is not supported: convert it to JPEG or PNG"
        return f"no image by its name, {ending or 'without an ending'}"
    try:
        if entry.is_file():
            return ""
    except OSError:
        pass
    return "a link that leads nowhere" if entry.is_symlink() else "a pipe, a socket or a device"


def images(folder: str | os.PathLike[str]) -> Iterator[tuple[str, str]]:
    """All files below a folder that could be images, in a fixed order: (path, why it is left out, or empty).

    Linked files count; linked folders are left out, so there are no loops.

    Raises:
        DataError: an unreadable folder
    """
    found = entries(folder)
    folders = [entry for entry in found if is_folder(entry)]
    inner = {entry.name for entry in folders}
    for entry in found:
        if entry.name not in inner:
            yield entry.path, file_reason(entry)
    for entry in folders:
        reason = "a linked folder" if entry.is_symlink() else folder_reason(entry)
        if reason:
            yield entry.path, reason
        else:
            yield from images(entry.path)


def holds_images(folder: str | os.PathLike[str]) -> bool:
    """Whether there is an image anywhere below a folder; stops at the first."""
    return any(not reason for _, reason in images(folder))
