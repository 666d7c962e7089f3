"""``minialex docs``: the built site in the reader's browser, offline."""

from __future__ import annotations

import functools
import http.server
import webbrowser
from pathlib import Path

from rich.console import Console

from minialex.errors import ConfigurationError
from minialex.site import build


class _Quiet(http.server.SimpleHTTPRequestHandler):
    """Files of the site; no line for every request."""

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


def server(site: Path, port: int) -> http.server.ThreadingHTTPServer:
    """A server of the site on this machine alone; port 0 takes a free one.

    Raises
    ------
    ConfigurationError
        If the port is taken.
    """
    handler = functools.partial(_Quiet, directory=str(site))
    try:
        return http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError as error:
        raise ConfigurationError(f"port {port} cannot be used ({error.strerror}): give another --port, or 0") from None


def docs(port: int, browser: bool, fresh: bool) -> int:
    """Build the site if need be, and serve it until Ctrl-C."""
    screen = Console(soft_wrap=True)
    site = None if fresh else build.find()
    if site is None:
        root = build.source_tree()
        if root is None:
            raise ConfigurationError(
                "this installation has no built site: clone the source, pip install -e '.[docs]', and run it there"
            )
        with screen.status("building the site") if screen.is_terminal else screen:
            build.build(root / "site")
        site = root / "site"
    with server(site, port) as found:
        address = f"http://127.0.0.1:{found.server_address[1]}/index.html"
        screen.print(f"{address}   (Ctrl-C ends it)", highlight=False)
        if browser:
            webbrowser.open(address)
        try:
            found.serve_forever()
        except KeyboardInterrupt:
            screen.print("")
    return 0
