"""The local server of the built site: what it answers to odd requests, and how it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from minialex.cli import server

ODD = [
    *(b"/%00", b"/%00/x", b"/a%00.html", b"/" + b"a" * 5000, b"/index.html/x"),
    *(b"//[", b"/%ff%fe", b"/..%2f..%2fetc/passwd", b"/made/pyodide/%00"),
]


def ask(port: int, path: bytes) -> bytes:
    """The first line that the server answers."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(b"GET " + path + b" HTTP/1.0\r\n\r\n")
        return connection.makefile("rb").readline()


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "index.html").write_text("<title>minialex</title>")
    return folder


def test_what_is_not_there_is_not_found(site: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with server.serve(site, 0) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        port = found.server_address[1]
        try:
            for path in ODD:
                assert b" 404 " in ask(port, path), path
            assert b" 200 " in ask(port, b"/index.html")
        finally:
            found.shutdown()
            thread.join()
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(os.name != "posix", reason="SIGINT of another process")
def test_ctrl_c_ends_it_although_a_page_is_open(site: Path) -> None:
    code = "import sys; from pathlib import Path; from minialex.cli import app, server; "
    code += "server.find = lambda: Path(sys.argv[1]); app.main(['docs', '--no-browser'])"
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", code, str(site)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    port = int(process.stdout.readline().split(":")[2].partition("/")[0])
    with socket.create_connection(("127.0.0.1", port)) as connection:  # a browser keeps its connection
        connection.sendall(b"GET /index.html HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" in connection.makefile("rb").readline()
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert time.monotonic() - began < 10, "a second, where the machine has nothing else to do"
    assert (process.returncode, err) == (0, "")
