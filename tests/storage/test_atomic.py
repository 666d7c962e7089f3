"""Whole files or none: real full disks and limits, and errors planted in sync, rename and close."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minialex.errors import ConfigurationError, ResourceError
from minialex.storage import atomic


@contextlib.contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    """Limit the size of this process's files, for as short as can be: pytest writes files too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def failing(code: int) -> Callable[..., Any]:
    """Return a function that fails as the operating system does."""

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(code, os.strerror(code))

    return fail


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    atomic.write_json(path, {"first": [1, None]})
    atomic.write_json(path, {"second": "ü"})
    assert path.read_bytes() == b'{\n "second": "\\u00fc"\n}\n'
    atomic.write_text(path, "ü\r\n")
    assert path.read_bytes() == "ü\r\n".encode()
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("link", [False, True])
def test_a_device_or_a_pipe_is_never_replaced(tmp_path: Path, link: bool) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    path = tmp_path / "link" if link else pipe
    if link:
        path.symlink_to(pipe)
    with pytest.raises(ConfigurationError, match="a device or a pipe"):
        atomic.write_text(path, "x")
    assert pipe.is_fifo()
    assert path.is_symlink() == link


def test_files_have_the_permissions_that_the_user_asks_for(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        atomic.write_text(tmp_path / "a", "")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, {"a": object()}])
def test_what_json_cannot_say_is_refused_and_nothing_written(tmp_path: Path, value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"state\.json': not a JSON value"):
        atomic.write_json(tmp_path / "state.json", value)
    assert os.listdir(tmp_path) == []


def test_a_file_is_synced_before_its_name_and_its_name_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    def noted(name: str) -> Callable[..., Any]:
        call = getattr(os, name)

        def wrapper(first: Any, *rest: Any) -> Any:
            what = Path(os.readlink(f"/proc/self/fd/{first}")) if name == "fsync" else Path(first)
            events.append(f"{name} {what.relative_to(tmp_path)}")
            return call(first, *rest)

        return wrapper

    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, noted(name))
    atomic.write_text(tmp_path / "a", "text")
    assert events == ["fsync .tmp-0-a", "replace .tmp-0-a", "fsync ."]


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (errno.ENOSPC, ResourceError, "the disk is full: 3 bytes needed, "),
        (errno.EDQUOT, ResourceError, "your disk quota is used up: 3 bytes needed, "),
        (errno.EFBIG, ResourceError, "the file is larger than allowed: 3 bytes needed, "),
        (errno.EIO, ResourceError, "the disk reports an error (Input/output error): 3 bytes needed, "),
        (errno.ENOMEM, ResourceError, "Cannot allocate memory: 3 bytes needed, "),
        (errno.EROFS, ConfigurationError, "Read-only file system: choose a folder that you may write to"),
        (errno.EACCES, ConfigurationError, "Permission denied: choose a folder that you may write to"),
    ],
)
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_what_fails_on_the_way_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int, kind: type[Exception], words: str
) -> None:
    path = tmp_path / "a"
    atomic.write_text(path, "before")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing(code))
        with pytest.raises(kind) as caught:
            atomic.write_text(path, "new")
    assert str(caught.value).startswith(f"cannot write {str(path)!r}: {words}")
    assert "\n" not in str(caught.value)
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["a"]


def test_an_error_of_close_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoClose(io.FileIO):  # a network disk tells only now that the quota is used up
        def close(self) -> None:
            if not self.closed:
                super().close()
                raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(atomic, "open", lambda path, mode, buffering: NoClose(path, mode), raising=False)
    with pytest.raises(ResourceError, match="quota"):
        atomic.write_text(tmp_path / "a", "new")
    assert os.listdir(tmp_path) == []


def test_a_write_that_is_cut_short_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(io.FileIO):
        def write(self, data: Any) -> int:
            return super().write(data[:3])

    monkeypatch.setattr(atomic, "open", lambda path, mode, buffering: Slow(path, mode), raising=False)
    size, digest = atomic.write_new(tmp_path / "a", [b"", b"abcdefgh", b"ij"])
    assert (tmp_path / "a").read_bytes() == b"abcdefghij"
    assert (size, digest) == (10, "72399361da6a7754fec986dca5b7cbaf1c810a28ded4abaf56b2106d06cb78b0")


def test_a_full_disk(small_disk: Path) -> None:
    path = small_disk / "weights"
    atomic.write_bytes(path, b"before")
    with pytest.raises(ResourceError, match=r"'.*/weights': the disk is full: 2\.0 MB needed, 1\.0 MB free; make room"):
        atomic.write_bytes(path, bytes(2_000_000))
    assert path.read_bytes() == b"before"
    assert os.listdir(small_disk) == ["weights"]


def test_a_disk_without_room_for_one_more_name(small_disk: Path) -> None:
    for number in range(63):  # and the folder itself
        (small_disk / str(number)).touch()
    with pytest.raises(ResourceError, match=r"1\.0 MB free, but no inode for one more file"):
        atomic.write_bytes(small_disk / "a", b"")


def test_a_read_only_disk(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(ConfigurationError, match="Read-only file system: choose a folder that you may write to"):
        atomic.write_bytes(small_disk / "a", b"")
    with pytest.raises(ConfigurationError, match="Read-only"):
        atomic.make_folder(small_disk / "a" / "b")


def test_a_file_size_limit(tmp_path: Path) -> None:
    words = r"larger than allowed: 20\.0 kB needed, 10\.0 kB allowed .* \(ulimit -f"
    with pytest.raises(ResourceError, match=words), file_size_limit(10_000):
        atomic.write_bytes(tmp_path / "a", bytes(20_000))
    assert os.listdir(tmp_path) == []
    with file_size_limit(10_000):
        atomic.write_bytes(tmp_path / "a", bytes(10_000))


def test_missing_and_wrong_folders(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file or directory: check the path"):
        atomic.write_bytes(tmp_path / "missing" / "a", b"")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="Not a directory: check the path"):
        atomic.make_folder(tmp_path / "file" / "a")
    with pytest.raises(ConfigurationError, match="Not a directory: check the path"):
        atomic.make_folder(tmp_path / "file")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigurationError, match="Is a directory: check the path"):
        atomic.write_bytes(tmp_path / "folder", b"")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_stale_temporaries_go_and_living_ones_stay(tmp_path: Path) -> None:
    (tmp_path / ".tmp-0-a").write_bytes(b"half")
    (tmp_path / ".tmp-0-folder").mkdir()
    (tmp_path / ".tmp-0-folder" / "a").write_bytes(b"half")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".tmp-link").symlink_to(tmp_path / "elsewhere")
    with atomic.new_folder(tmp_path / "folder") as living:
        assert living.name == ".tmp-1-folder"
        code = "import sys; from pathlib import Path; from minialex.storage import atomic\n"
        code += "atomic.remove_stale(Path(sys.argv[1]))"
        root = os.fspath(Path(__file__).parents[2])
        subprocess.run([sys.executable, "-c", code, tmp_path], check=True, env={**os.environ, "PYTHONPATH": root})
        assert sorted(os.listdir(tmp_path)) == [".tmp-1-folder", "elsewhere"]
        atomic.move_folder(living, tmp_path / "folder")
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", "folder"]


def test_a_folder_is_replaced_by_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fresh(text: str) -> Path:
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "a").write_text(text)
        return tmp_path / "new"

    target = tmp_path / "site"
    atomic.replace_folder(fresh("first"), target)  # nothing was there
    (tmp_path / ".tmp-removed-site").mkdir()  # of a process that was killed
    seen = []
    move = atomic.move_folder

    def watched(source: Path, to: Path) -> None:
        seen.append((tmp_path / ".tmp-removed-site" / "a").read_text())  # what a crash now would leave
        move(source, to)

    monkeypatch.setattr(atomic, "move_folder", watched)
    atomic.replace_folder(fresh("second"), target)
    assert seen == ["first"]
    assert (target / "a").read_text() == "second"
    assert os.listdir(tmp_path) == ["site"]
    monkeypatch.setattr(atomic, "move_folder", failing(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        atomic.replace_folder(fresh("third"), target)
    assert (target / "a").read_text() == "second"
    assert sorted(os.listdir(tmp_path)) == ["new", "site"]

    target.rename(tmp_path / ".tmp-removed-site")  # killed between the two names
    with pytest.raises(OSError, match="Input/output"):
        atomic.replace_folder(tmp_path / "new", target)
    assert (target / "a").read_text() == "second"


def test_lines_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\ntwo, cut sho")
    file = atomic.LineFile(path)
    file.append("two\r\nlines\u2028in one \udc80")
    file.sync()
    file.close()
    assert path.read_text() == "one\ntwo lines in one ?\n"


def test_a_line_that_does_not_fit_is_cut_off_again(tmp_path: Path) -> None:
    file = atomic.LineFile(tmp_path / "a.txt")
    file.append("first")
    with pytest.raises(ResourceError, match=r"a\.txt': the file is larger than allowed"), file_size_limit(20):
        file.append("a second that is longer than the limit")
    file.append("third")
    file.close()
    assert (tmp_path / "a.txt").read_text() == "first\nthird\n"


def test_numbers_that_json_lacks_become_null() -> None:
    record = {"loss": float("nan"), "top1": float("inf"), "step": 3, "more": [{"a": float("-inf")}, 0.5]}
    assert atomic.json_line(record) == '{"loss": null, "top1": null, "step": 3, "more": [{"a": null}, 0.5]}'
