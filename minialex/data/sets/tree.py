"""Walking through folders of images: what counts, what is left out and why, and nothing opened or asked for twice.

A folder is read once; whether an entry is a file or a folder comes with its name from the disk, so that a network disk
is not asked again for every image. Only links cost a further look.
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
"""Folders, in small letters, that archives, network disks and systems leave among images: with copies of them."""
MARKS = ("recipe.toml", "store.json")
"""A folder with one of these is a run or a store of ours."""


def entries(folder: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    """What a folder holds, in the order of names. Raises DataError: it cannot be read."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{os.fspath(folder)}: cannot be read as a folder of images ({error.strerror}).") from None


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link to one; a link in a loop is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def folder_reason(entry: os.DirEntry[str]) -> str:
    """Why a folder is not looked into, or nothing if it is."""
    if entry.name.startswith("."):
        return "a hidden folder"
    if entry.name.lower() in _SYSTEM:
        return f"a folder of the system, {entry.name}"
    return "a run or store of minialex" if _is_ours(entry.path) else ""


def _is_ours(folder: str) -> bool:
    """Whether a folder is a run, a store, also one that is begun, or holds nothing but such."""
    inside = []
    try:
        with os.scandir(folder) as found:
            for entry in found:
                if entry.name in MARKS:
                    return True
                if looks_like_image(entry.name):
                    return False  # a folder of images, however many: the rest need not be read
                if is_folder(entry):
                    inside.append(entry.path)
    except OSError:
        return False
    if os.path.isfile(os.path.join(folder, "prepare", "plan.json")):
        return True
    return bool(inside) and all(any(os.path.isfile(os.path.join(one, mark)) for mark in MARKS) for one in inside)


def file_reason(entry: os.DirEntry[str]) -> str:
    """Why something that is no folder is not taken for an image, or nothing if it is."""
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
    """All below a folder that could be meant as an image, in a fixed order: (path, why it is left out or nothing).

    Linked files count, linked folders are left out: so there are no loops.

    Raises:
        DataError: a folder that cannot be read
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
    """Whether there is an image anywhere below a folder; looks no further than the first."""
    return any(not reason for _, reason in images(folder))
