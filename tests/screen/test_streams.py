"""Standard output that is full, closed or read by nobody, and encodings that lack most of Unicode."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

WORK = """
import logging, sys, warnings
from minialex.screen import streams
from minialex.screen.terminal import console
streams.take_over()
for n in range(2000):
    console().print(f"line {n} × é 中 \\x1b[31m")
warnings.warn("of a\\n library \\x1b[31m")
logging.getLogger("minialex").warning("logged \\x1b[31m")
with open(sys.argv[1], "w") as file:
    file.write("done")
lost = streams.lost_output()
streams.complain("end", str(lost and lost.strerror))
"""

posix = pytest.mark.skipif(os.name != "posix", reason="shells of other systems have other words for it")


def work(tmp_path: Path, redirection: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run the program above in a shell; its work must always be done."""
    file = tmp_path / "file"
    done = subprocess.run(
        ["bash", "-c", f'"$0" -c "$1" "$2" {redirection}', sys.executable, WORK, str(file)],
        capture_output=True, check=True, env={**os.environ, **environment},
    )  # fmt: skip
    assert file.read_text() == "done"
    return done


@posix
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_lines_are_lost_and_nothing_else(tmp_path: Path, unbuffered: str) -> None:
    def end(redirection: str) -> bytes:
        return work(tmp_path, redirection, PYTHONUNBUFFERED=unbuffered).stderr.splitlines()[-1]

    if Path("/dev/full").exists():
        assert end("> /dev/full") == b"end: No space left on device"
    assert end("| head -1") == b"end: None", "the reader wants no more"
    assert end(">&-") == b"end: None"
    assert work(tmp_path, "2>&-").stderr == b""
    assert work(tmp_path, ">&- 2>&- <&-").stderr == b""


@posix
def test_any_encoding_will_do(tmp_path: Path) -> None:
    done = work(tmp_path, "", PYTHONIOENCODING="ascii")
    assert done.stdout.splitlines()[0] == rb"line 0 x e ? \x1b[31m"
    assert done.stderr.splitlines()[:2] == [rb"warning: of a library \x1b[31m", rb"warning: logged \x1b[31m"]
    assert work(tmp_path, "", PYTHONIOENCODING="cp1252").stdout.splitlines()[
        0
    ] == rb"line 0 \u00d7 \u00e9 ? \x1b[31m".decode("unicode_escape").replace("\x1b", r"\x1b").encode("cp1252")
    assert work(tmp_path, "", PYTHONIOENCODING="utf-8").stdout.splitlines()[0] == r"line 0 × é 中 \x1b[31m".encode()
