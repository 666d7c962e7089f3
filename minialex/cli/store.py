"""``minialex store …``: check stores that ``minialex prepare`` made."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from minialex.cli.help import Groups
from minialex.cli.options import options
from minialex.errors import DataError

SHOWN = 20  # damages that are printed

app = typer.Typer(help="Check stores made by `minialex prepare`.", cls=Groups, rich_markup_mode=None)


@app.command()
@options
def check(store: Annotated[Path, typer.Argument(help="the store's folder")]) -> None:
    """Compare every file of a store with its SHA-256, and name the file and byte of any damage."""
    from minialex.data.store import store as stores
    from minialex.screen.formats import duration, plural, readable_size
    from minialex.screen.terminal import console, metered

    screen = console()
    began = time.monotonic()
    with metered(screen) as meter:
        damages = stores.check(store, progress=lambda done, total: meter.tell("checking", done, total))
    for damage in damages[:SHOWN]:
        where = f", byte {damage.offset:,}" if damage.offset >= 0 else ""
        screen.print(f"{damage.file}{where}: {damage.what}")
    if len(damages) > SHOWN:
        screen.print(f"… and {len(damages) - SHOWN:,} more")
    if damages:
        where = f" at byte {damages[0].offset:,}" if damages[0].offset >= 0 else ""
        raise DataError(f"{store}: damaged in {plural(len(damages), 'place')}, first in {damages[0].file}{where}; "
                        "prepare it again into a new folder.")  # fmt: skip
    manifest = stores.read_manifest(store)
    images = sum(manifest.count(part) for part in stores.PARTS)
    size = readable_size(images * 3 * manifest.size**2)
    screen.print(f"{store}: sound, {plural(images, 'image')}, {size}, {duration(time.monotonic() - began)}")
