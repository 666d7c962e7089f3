"""Checksums of a folder's own files: stopped at any moment, what is there passes; what was changed does not."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from minialex.errors import CheckpointError, ConfigurationError
from minialex.storage import atomic, sums

OLD, NEW = {"a.toml": b"old", "b b.json": b"other"}, {"a.toml": b"new", "c": b"fresh"}


def check_all(folder: Path) -> None:
    for path in folder.iterdir():
        sums.check(path)


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("listed", [True, False])
def test_a_kill_between_any_two_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: bool) -> None:
    for moment in range(5):
        folder = tmp_path / str(moment)
        folder.mkdir()
        sums.write(folder, OLD)
        if not listed:  # as an older version left it
            (folder / sums.SUMS).unlink()
        writes = 0

        def write(path: Path, data: bytes, whole: object = atomic.write_bytes, moment: int = moment) -> None:
            nonlocal writes
            writes += 1
            if writes > moment:
                raise Killed
            whole(path, data)  # type: ignore[operator]

        with monkeypatch.context() as patch:
            patch.setattr(atomic, "write_bytes", write)
            try:
                sums.write(folder, NEW)
            except Killed:
                assert moment < 4
            else:
                assert moment == 4
        check_all(folder)
        sums.write(folder, NEW)
        check_all(folder)
        (folder / "a.toml").write_bytes(b"old")
        with pytest.raises(CheckpointError, match=r"a\.toml' is damaged or was edited: .* delete its line in"):
            sums.check(folder / "a.toml")


def test_what_is_missing_damaged_or_not_ours(tmp_path: Path) -> None:
    sums.write(tmp_path, OLD)
    if shutil.which("sha256sum"):
        assert subprocess.run(["sha256sum", "--check", "--quiet", sums.SUMS], cwd=tmp_path, check=False).returncode == 0
    (tmp_path / "not listed").write_bytes(b"anything")
    sums.check(tmp_path / "not listed")
    (tmp_path / "b b.json").unlink()
    with pytest.raises(CheckpointError, match=r"b b\.json' is missing"):
        sums.check(tmp_path / "b b.json")
    with open(tmp_path / sums.SUMS, "a", encoding="utf-8") as file:
        file.write("no sum\n")
    with pytest.raises(CheckpointError, match=r"SHA256SUMS' is damaged: 'no sum'"):
        sums.check(tmp_path / "a.toml")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read(tmp_path: Path) -> None:
    sums.write(tmp_path, OLD)
    (tmp_path / "a.toml").chmod(0)
    with pytest.raises(ConfigurationError):
        sums.check(tmp_path / "a.toml")
