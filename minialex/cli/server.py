"""Find, build and serve the site on this machine."""

from __future__ import annotations

import functools
import http.server
import io
import json
import re
import subprocess
import sys
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import minialex
from minialex.errors import ConfigurationError, ResourceError
from minialex.screen.streams import complain

PACKAGE = Path(minialex.__file__).parent

PACKAGED = PACKAGE / "site" / "built"
"""Where a wheel holds the built site, if there was one when the wheel was made."""

SETTINGS = "/made/live/settings.json"
"""The file from which the live parts read Pyodide's address."""

PYODIDE = "/made/pyodide/"
"""The path under which a folder with Pyodide is served, beside the site."""


class SiteHandler(http.server.SimpleHTTPRequestHandler):
    """Serves the site's files, and Pyodide from the reader's folder, without logging every request."""

    protocol_version = "HTTP/1.1"

    def __init__(self, *arguments: Any, address: str | None, folder: Path | None, **named: Any) -> None:
        self.address, self.folder = address, folder
        super().__init__(*arguments, **named)

    def log_message(self, format: str, *arguments: object) -> None:
        """Log nothing."""

    def translate_path(self, path: str) -> str:
        """The file for a request, under the site or under Pyodide's folder."""
        asked = urlsplit(path).path
        if self.folder is None or not asked.startswith(PYODIDE):
            return super().translate_path(path)
        site, self.directory = self.directory, str(self.folder)
        try:
            return super().translate_path(asked.removeprefix(PYODIDE.rstrip("/")))
        finally:
            self.directory = site

    def send_head(self) -> IO[bytes] | None:  # type: ignore[override]
        """Send the site's settings with the reader's address of Pyodide in them, and every other file as it is."""
        try:
            return self._found()
        except (OSError, ValueError):  # the request is not a valid path: a null byte, a name too long
            self.send_error(HTTPStatus.NOT_FOUND)
            return None

    def _found(self) -> IO[bytes] | None:
        settings = Path(super().translate_path(SETTINGS))
        if self.address is None or urlsplit(self.path).path != SETTINGS or not settings.is_file():
            return super().send_head()
        body = json.dumps({**json.loads(settings.read_text(encoding="utf-8")), "pyodide": self.address}).encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        return io.BytesIO(body)


class SiteServer(http.server.ThreadingHTTPServer):
    """A server that reports an error in one line, and stays silent when a reader closes the page early."""

    def handle_error(self, request: object, client_address: object) -> None:
        """Report a request that could not be answered."""
        error = sys.exception()
        if not isinstance(error, ConnectionError | TimeoutError):
            complain("warning", f"a request could not be answered: {type(error).__name__}: {error}")


def pyodide_of(place: str) -> tuple[str, Path | None]:
    """Pyodide's address for the pages, and the folder to serve if it is on this disk.

    Raises:
        ConfigurationError: If the folder has no Pyodide.
    """
    if re.match(r"https?://", place):
        return place.rstrip("/") + "/", None
    folder = Path(place).expanduser()
    lock = folder / "pyodide-lock.json"
    try:
        wanted = ["pyodide.js", json.loads(lock.read_text(encoding="utf-8"))["packages"]["numpy"]["file_name"]]
    except (OSError, ValueError, KeyError, TypeError):
        wanted = ["pyodide.js", "pyodide-lock.json"]
    lacks = [name for name in wanted if not (folder / name).is_file()]
    if lacks:
        raise ConfigurationError(
            f"--pyodide {place}: no {' and no '.join(lacks)} there; unpack a full release of Pyodide "
            "(https://github.com/pyodide/pyodide/releases) and give its folder, or an address that begins with https://"
        )
    return PYODIDE.lstrip("/"), folder.resolve()


def serve(site: Path, port: int, pyodide: str | None = None) -> http.server.ThreadingHTTPServer:
    """A server for the site, reachable from this machine only; port 0 takes a free one.

    Args:
        site: folder of the built site
        port: to listen on
        pyodide: a folder with Pyodide and NumPy's wheel, which is served too, or an address; None leaves the site's
            own. The site's files stay unchanged: the answer to a request for its settings is changed.

    Raises:
        ConfigurationError: If the port is taken, or the folder has no Pyodide.
    """
    address, folder = (None, None) if pyodide is None else pyodide_of(pyodide)
    handler = functools.partial(SiteHandler, directory=str(site), address=address, folder=folder)
    try:
        return SiteServer(("127.0.0.1", port), handler)
    except OSError as error:
        raise ConfigurationError(f"port {port} cannot be used ({error.strerror}): give another --port, or 0") from None


def source_tree() -> Path | None:
    """The root of the source tree that this package is in, or None if it is installed."""
    return PACKAGE.parent if (PACKAGE.parent / "mkdocs.yml").is_file() else None


def find() -> Path | None:
    """The folder of a built site: the wheel's, or the source tree's."""
    root = source_tree()
    places = [PACKAGED] if root is None else [PACKAGED, root / "site"]
    return next((place for place in places if (place / "index.html").is_file()), None)


def build(out: Path) -> None:
    """Build the site in a separate process, because the builder is a room above the commands and reads them."""
    command = [sys.executable, "-m", "minialex.site", "--build", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        if "ModuleNotFoundError" in done.stderr:
            raise ConfigurationError("building the site needs more packages: pip install -e '.[docs]'")
        last = (done.stderr.strip().splitlines() or ["the site could not be built"])[-1].removeprefix("error: ")
        raise (ConfigurationError if done.returncode == ConfigurationError.exit_code else ResourceError)(last)
