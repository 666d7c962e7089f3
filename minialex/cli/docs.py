"""``minialex docs``: show the built site in the reader's browser, offline."""

from __future__ import annotations

from typing import Annotated

import typer

from minialex.errors import ConfigurationError


def docs(
    port: Annotated[int, typer.Option(min=0, max=65535, help="port of the local server; 0 means any free port")] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="open the site in the browser")] = True,
    fresh: Annotated[bool, typer.Option("--build", help="rebuild the site (only in a source tree)")] = False,
    pyodide: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|URL",
            help="where the live parts get Python: a folder with Pyodide and NumPy's wheel (nothing is then "
            "fetched from elsewhere), or an address; default the public address in the site's settings",
        ),
    ] = None,
) -> None:
    """Serve the tutorial site from this machine, offline, and open it in the browser.

    The live parts run Python in the page (Pyodide), which they fetch from a public address when you first press Run;
    with --pyodide they get it from this machine.
    """
    import webbrowser

    from minialex.cli import server
    from minialex.screen.terminal import console, waiting

    screen = console()
    if pyodide is not None:
        server.pyodide_of(pyodide)  # report errors before anything is built
    site = None if fresh else server.find()
    if site is None:
        root = server.source_tree()
        if root is None:
            raise ConfigurationError(
                "this installation has no built site: clone the source, pip install -e '.[docs]', and run it there"
            )
        with waiting(screen, "building the site"):
            server.build(root / "site")
        site = root / "site"
    with server.serve(site, port, pyodide) as running:
        screen.print(f"http://127.0.0.1:{running.server_address[1]}/index.html   (Ctrl-C stops it)")
        if browser:
            webbrowser.open(f"http://127.0.0.1:{running.server_address[1]}/index.html")
        try:
            running.serve_forever()
        except KeyboardInterrupt:
            screen.print("")
