"""Downloads from a server that misbehaves: what is not the file never gets its name."""

import errno
import hashlib
import http.server
import os
import threading
from pathlib import Path

import pytest

from minialex.data import download
from minialex.data.download import REGISTRY, File, fetch
from minialex.errors import ConfigurationError, DataError, ResourceError

CONTENT = os.urandom(300_000)


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT at /set.bin in the ways that a test asks for."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.kind = "application/octet-stream"
        self.status = 200
        self.cuts = []  # bytes after which the next answers are cut
        self.ranges = True
        self.no_length = False
        self.requests = []

    def handle_error(self, *arguments):
        """A client that hangs up is no surprise here."""


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        server = self.server
        wanted = self.headers.get("Range")
        server.requests.append(wanted)
        content, status = server.content, server.status
        if wanted and server.ranges and status == 200:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            status, content = 206, content[start:]
        self.send_response(status)
        self.send_header("Content-Type", server.kind)
        if not server.no_length:
            self.send_header("Content-Length", str(len(content)))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        self.end_headers()
        self.wfile.write(content[: server.cuts.pop(0)] if server.cuts else content)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "_PAUSE", 0.0)
    monkeypatch.setenv("NO_PROXY", "*")
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def registry(server, content=CONTENT):
    url = f"http://127.0.0.1:{server.server_address[1]}/set.bin"
    return {"set": (File(url, len(content), hashlib.sha256(content).hexdigest()),)}


def left(folder: Path):
    """Names of the files that are there, and their sizes."""
    return {path.name: path.stat().st_size for path in (folder / "set").iterdir()}


def test_a_good_server(server, tmp_path):
    seen = []
    target = fetch("set", tmp_path, registry=registry(server), progress=lambda *values: seen.append(values))
    assert target == tmp_path / "set"
    assert (target / "set.bin").read_bytes() == CONTENT
    assert left(tmp_path) == {"set.bin": len(CONTENT)}
    assert seen[-1] == ("set.bin", len(CONTENT), len(CONTENT))
    assert (target / "set.bin").stat().st_mode & 0o044  # readable as other files are
    fetch("set", tmp_path, registry=registry(server))
    assert len(server.requests) == 1  # there already


def test_a_connection_that_is_cut_is_taken_up(server, tmp_path):
    server.cuts = [180_000, 60_000]
    fetch("set", tmp_path, registry=registry(server))
    assert (tmp_path / "set" / "set.bin").read_bytes() == CONTENT
    first, second, third = server.requests
    assert first is None  # then from where it was cut, less a block at most
    assert 180_000 - download._BLOCK < int(second[6:-1]) <= 180_000
    assert int(second[6:-1]) + 60_000 - download._BLOCK < int(third[6:-1]) <= 240_000


def test_a_server_without_ranges_starts_again(server, tmp_path):
    server.cuts, server.ranges = [180_000], False
    fetch("set", tmp_path, registry=registry(server))
    assert (tmp_path / "set" / "set.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("no_length", [True, False])
def test_a_server_that_always_breaks_off(server, tmp_path, no_length):
    server.cuts, server.no_length = [2 * download._BLOCK] * 5, no_length
    arrived = 10 * download._BLOCK
    with pytest.raises(DataError, match=rf"{arrived:,} of 300,000 bytes arrived.*run the same command again") as caught:
        fetch("set", tmp_path, registry=registry(server))
    assert "\n" not in str(caught.value)
    assert left(tmp_path) == {"set.bin.part": arrived}
    fetch("set", tmp_path, registry=registry(server))  # the next run goes on
    assert server.requests[-1] == f"bytes={arrived}-"
    assert (tmp_path / "set" / "set.bin").read_bytes() == CONTENT
    assert left(tmp_path) == {"set.bin": len(CONTENT)}


def test_a_web_page(server, tmp_path):
    server.content, server.kind = b"<!DOCTYPE html><p>Please log in", "text/html; charset=utf-8"
    with pytest.raises(DataError, match="web page"):
        fetch("set", tmp_path, registry=registry(server))
    assert left(tmp_path) == {}


@pytest.mark.parametrize("length", [17, 299_999, 300_001, 900_000])
def test_another_length(server, tmp_path, length):
    server.content = os.urandom(length)
    with pytest.raises(DataError, match=f"sends {length} bytes, but set.bin has 300,000"):
        fetch("set", tmp_path, registry=registry(server))
    assert left(tmp_path) == {}


def test_a_file_without_end(server, tmp_path):
    server.no_length = True
    sizes = []

    def progress(name, have, size):
        sizes.append((have, os.path.getsize(tmp_path / "set" / "set.bin.part")))

    server.content = os.urandom(3_000_000)
    with pytest.raises(DataError, match="SHA-256 differs"):
        fetch("set", tmp_path, registry=registry(server), progress=progress)
    assert left(tmp_path) == {}
    server.content = CONTENT + server.content  # what the checksum covers is all that counts
    fetch("set", tmp_path, registry=registry(server), progress=progress)
    assert left(tmp_path) == {"set.bin": len(CONTENT)}
    assert max(max(pair) for pair in sizes) <= len(CONTENT)
    assert len(sizes) <= 2 * (len(CONTENT) // download._BLOCK + 1)  # no more is read than is wanted


@pytest.mark.parametrize("position", [0, 150_000, 299_999])
def test_one_wrong_byte(server, tmp_path, position):
    server.content = CONTENT[:position] + bytes([CONTENT[position] ^ 1]) + CONTENT[position + 1 :]
    with pytest.raises(DataError, match="SHA-256 differs") as caught:
        fetch("set", tmp_path, registry=registry(server))
    assert "\n" not in str(caught.value)
    assert left(tmp_path) == {}
    server.content = CONTENT
    fetch("set", tmp_path, registry=registry(server))
    assert left(tmp_path) == {"set.bin": len(CONTENT)}


def test_a_part_of_another_file_is_not_believed(server, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "set.bin.part").write_bytes(bytes(100_000))
    with pytest.raises(DataError, match="SHA-256 differs"):
        fetch("set", tmp_path, registry=registry(server))
    assert left(tmp_path) == {}
    (tmp_path / "set" / "set.bin").write_bytes(CONTENT[:-1])  # nor is a damaged file with the right name
    fetch("set", tmp_path, registry=registry(server))
    assert (tmp_path / "set" / "set.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("status", [403, 404, 416, 503])
def test_a_server_that_refuses(server, tmp_path, status):
    server.status = status
    with pytest.raises(DataError, match=f"answers '{status} "):
        fetch("set", tmp_path, registry=registry(server))
    assert left(tmp_path) == {}


def test_no_server(server, tmp_path, monkeypatch):
    unreachable = {"set": (File("http://127.0.0.1:9/set.bin", 10, "0" * 64),)}
    with pytest.raises(DataError, match=r"0 of 10 bytes arrived \(ConnectionError") as caught:
        fetch("set", tmp_path, registry=unreachable)
    assert "\n" not in str(caught.value)
    assert left(tmp_path) == {}


def test_a_full_disk(server, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match="No space left on device; set takes 300,000 bytes"):
        fetch("set", tmp_path, registry=registry(server))
    assert "set.bin" not in left(tmp_path)


def test_a_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ResourceError, match="cannot be written"):
        fetch("set", tmp_path / "file", registry=registry(server))


def test_names_and_the_usual_folder(server, tmp_path, monkeypatch):
    with pytest.raises(ConfigurationError, match=r"Did you mean 'cifar10'\?"):
        fetch("cifar-10", tmp_path)
    monkeypatch.setenv("MINIALEX_DATA", str(tmp_path / "here"))
    assert fetch("set", registry=registry(server)) == tmp_path / "here" / "set"
    monkeypatch.delenv("MINIALEX_DATA")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert fetch("set", registry=registry(server)) == tmp_path / ".cache" / "minialex" / "set"


def test_the_registry():
    for files in REGISTRY.values():
        for file in files:
            assert file.url.startswith("http")
            assert len(bytes.fromhex(file.sha256)) == 32
            assert file.size > 5000
    assert REGISTRY["cifar10"][0].name == "cifar-10-python.tar.gz"
    assert {file.name for file in REGISTRY["fashion-mnist"]} == {
        f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
    }
